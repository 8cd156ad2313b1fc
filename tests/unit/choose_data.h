/* choose_data.h - a row to choose from with its lists and results, drawn and compared with the definition's; for every back
 * end alike.
 *
 * Who may call: tests/unit and tests/gpu. Memory: structs are the caller's, and a row points into its own: after a copy
 * choose_data_point. Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_UNIT_CHOOSE_DATA_H
#define BLIPLINE_TESTS_UNIT_CHOOSE_DATA_H

#include "tensor/ops.h"

enum { CHOOSE_DATA_BEST = 1200, CHOOSE_DATA_LIST = 300 };

struct choose_data {
    struct ops_choose_row row;
    int32_t seen[CHOOSE_DATA_LIST], banned[CHOOSE_DATA_LIST];
    int32_t ids[CHOOSE_DATA_BEST];
    float values[CHOOSE_DATA_BEST], logprobs[CHOOSE_DATA_BEST];
};

/* The row's pointers into its own arrays; ids are -1 and values NaN where nothing is chosen. */
void choose_data_point(struct choose_data *d);
/* Distinct ids for `seen`, any for `banned`; both may name the same. */
void choose_data_lists(struct choose_data *d, int64_t vocab, int n_seen, int n_banned);
void choose_data_close(float a, float b);
/* Without log-softmax the values are the same numbers. With it they may differ in the last place, so two ids may change
 * places where theirs are as good as equal. */
void choose_data_same(const struct choose_data *ref, const struct choose_data *out);

#endif
