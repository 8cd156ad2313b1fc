/* cpu_select.h - the largest of many numbers, without sorting them.
 *
 * Who may call: cpu_sample.c, any thread.
 * Units: indices.
 * Memory: lists are the caller's and are reordered.
 * Errors: none. */
#ifndef BLIPLINE_TENSOR_CPU_SELECT_H
#define BLIPLINE_TENSOR_CPU_SELECT_H

#include <stdbool.h>
#include <stdint.h>

struct cpu_candidate {
    float value, weight;
    int32_t id;
};

/* The k-th largest, k from 1. */
float cpu_kth_largest(float *x, int64_t n, int64_t k);
/* The k best first, in order: the largest first, the lowest id first among equals. */
void cpu_select_best(struct cpu_candidate *c, int64_t n, int64_t k);

/* As for top_p in sampler.h: among equals the highest id first. */
static inline bool cpu_is_before_in_nucleus(const struct cpu_candidate *a, const struct cpu_candidate *b)
{
    return a->value > b->value || (a->value == b->value && a->id > b->id);
}
/* The last candidate, largest first, before which less than `mass` has gathered. */
struct cpu_candidate cpu_nucleus_end(struct cpu_candidate *c, int64_t n, double mass);

#endif
