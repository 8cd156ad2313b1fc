/* sample_nuclei.h - the nuclei (top_p) that a back end may have whose weights are rounded, and their probabilities.
 *
 * A nucleus ends where the weights e^(score - max) above reach top_p of their sum. If that is true or false within
 * rounding, a back end may keep one id more or less than the definition, but the same ids for every draw from this row.
 *
 * Who may call: tests/unit and tests/gpu. Memory: freed by sample_nuclei_free.
 * Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_UNIT_SAMPLE_NUCLEI_H
#define BLIPLINE_TESTS_UNIT_SAMPLE_NUCLEI_H

#include "tensor/ops.h"

#include <stdbool.h>
#include <stdint.h>

struct sample_nuclei {
    double *probabilities; /* [vocab], in the present nucleus */
    int64_t vocab, n_kept, n_least;
    double exp_ulps, rounded; /* how many times a weight's rounding counts */
    double error;             /* of a sum of weights, as a share of it */
};

/* The largest nucleus; without top_p, or if exp_ulps is 0 (a back end in double), the only one. exp_ulps: the error of
 * e^x in f32; unit: what a weight may lose besides, the largest being 1. */
struct sample_nuclei sample_nuclei_new(const struct ops_sample_row *row, const float *scores, int64_t vocab,
                                       double exp_ulps, double unit);
/* The next smaller one; false: there is none. */
bool sample_nuclei_next(struct sample_nuclei *n);
/* By how much the probability of an id may be off. */
double sample_nuclei_limit(const struct sample_nuclei *n, int64_t id);
void sample_nuclei_free(struct sample_nuclei *n);

#endif
