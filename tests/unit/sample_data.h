/* sample_data.h - a row to choose from with its lists and results, drawn and compared with the definition's; for every
 * back end alike.
 *
 * Who may call: tests/unit and tests/gpu. Memory: structs are the caller's, and a row points into its own: after a copy
 * sample_data_point. Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_UNIT_SAMPLE_DATA_H
#define BLIPLINE_TESTS_UNIT_SAMPLE_DATA_H

#include "tensor/ops.h"

enum { SAMPLE_DATA_BEST = 1200, SAMPLE_DATA_LIST = 300 };

struct sample_data {
    struct ops_sample_row row;
    int32_t seen[SAMPLE_DATA_LIST], banned[SAMPLE_DATA_LIST];
    int32_t ids[SAMPLE_DATA_BEST];
    float values[SAMPLE_DATA_BEST], logprobs[SAMPLE_DATA_BEST];
};

/* The row's pointers into its own arrays; ids are -1 and values NaN where nothing is chosen. */
void sample_data_point(struct sample_data *d);
/* Distinct ids for `seen`, any for `banned`; both may name the same. */
void sample_data_lists(struct sample_data *d, int64_t vocab, int n_seen, int n_banned);
void sample_data_close(float a, float b);
/* Without log-softmax the values and ids are the same. With it values may differ in the last place, so ids may change
 * places with each other, or with an id behind the last, where their values are as good as equal. */
void sample_data_same(const struct sample_data *ref, const struct sample_data *out);

#endif
