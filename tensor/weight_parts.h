/* weight_parts.h - the shape of the matrix that parts give when they are stacked by rows.
 *
 * Who may call: weight_new of every back end.
 * Units: elements.
 * Memory: none.
 * Errors: -EOVERFLOW: more rows than 64 bits count; outputs untouched. What n * k may be is the caller's to say. Parts
 * that do not fit together are our bug (assert). */
#ifndef BLIPLINE_TENSOR_WEIGHT_PARTS_H
#define BLIPLINE_TENSOR_WEIGHT_PARTS_H

#include "tensor/ops.h"

int weight_parts_shape(const struct ops_weight_part *parts, int n_parts, int64_t *ret_n, int64_t *ret_k) CHECK_RESULT;

#endif
