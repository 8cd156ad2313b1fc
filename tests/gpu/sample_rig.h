/* sample_rig.h - rows to choose from, beside sampler.c.
 *
 * Many rows go into one call, each with options, lists and results of its own.
 * Who may call: tests/gpu. Memory: rows are freed with free(). Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_GPU_SAMPLE_RIG_H
#define BLIPLINE_TESTS_GPU_SAMPLE_RIG_H

#include "tests/gpu/cuda_rig.h"
#include "tests/unit/sample_data.h"

struct sample_data *sample_rig_new(size_t n);
/* The n rows x [n, ld] in one call; ids are -1 where none were chosen. */
int sample_rig_run(struct ops *o, struct sample_data *d, int n, const float *x, int64_t vocab, int64_t ld);
/* Each row against the reference, which takes one at a time. */
void sample_rig_check(const struct cuda_rig *g, const struct sample_data *rows, int n, const float *x, int64_t vocab,
                      int64_t ld);

#endif
