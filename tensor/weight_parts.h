/* weight_parts.h - the shape [n, k] of parts stacked by rows.
 *
 * Who may call: weight_new of every back end.
 * Units: elements.
 * Memory: none.
 * Errors: -EOVERFLOW: more rows than fit 64 bits; outputs are then untouched. The caller limits n * k. Parts that do
 * not fit together are a bug (assert). */
#ifndef BLIPLINE_TENSOR_WEIGHT_PARTS_H
#define BLIPLINE_TENSOR_WEIGHT_PARTS_H

#include "tensor/ops.h"

int weight_parts_shape(const struct ops_weight_part *parts, int n_parts, int64_t *ret_n, int64_t *ret_k) CHECK_RESULT;

#endif
