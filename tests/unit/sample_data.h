/* sample_data.h - a random row of logits with its options and results, and the comparison with the reference, for every
 * back end.
 *
 * Who may call: tests/unit and tests/gpu. Memory: the caller owns the structs. A row points into its own struct:
 * call sample_data_point after a copy. Errors: a failed assertion ends the test. */
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

/* Sets the row's pointers into its own arrays; ids become -1 and values NaN. */
void sample_data_point(struct sample_data *d);
/* Distinct ids for `seen`, any for `banned`; both may name the same. */
void sample_data_lists(struct sample_data *d, int64_t vocab, int n_seen, int n_banned);
void sample_data_close(float a, float b);
/* Without log-softmax the values and ids are the same. With it values may differ in the last digit, so ids with
 * nearly equal values may be swapped, also with an id after the last. */
void sample_data_same(const struct sample_data *ref, const struct sample_data *out);

#endif
