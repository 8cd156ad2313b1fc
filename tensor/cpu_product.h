/* cpu_product.h - y = act(x W^T + b) + residual in f32 with our own loops, used where oneDNN has no AVX-512.
 *
 * A matrix is packed once into panels of columns for any number of rows. A row's result does not depend on the number
 * of rows or threads, with any instruction set.
 *
 * Who may call: the compute thread of one struct ops_cpu.
 * Units: as struct ops_linear_args; everything f32.
 * Memory: the caller frees the panels with cpu_panels_free.
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_TENSOR_CPU_PRODUCT_H
#define BLIPLINE_TENSOR_CPU_PRODUCT_H

#include "tensor/cpu.h"

struct cpu_panels;

/* weight: dense [N, K]; bias: N values or NULL. Both are copied. */
int cpu_panels_new(struct ops_cpu *c, int64_t n, int64_t k, const float *weight, const float *bias,
                   struct cpu_panels **ret, struct err *err) CHECK_RESULT;
void cpu_panels_free(struct cpu_panels *w);
/* Ignores a->weight. */
int cpu_product_run(struct ops_cpu *c, const struct cpu_panels *w, const struct ops_linear_args *a) CHECK_RESULT;

#endif
