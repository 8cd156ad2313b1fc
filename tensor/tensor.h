/* tensor.h - a view of a block of numbers: type, shape, address.
 *
 * Who may call: anyone, from any thread; a struct tensor is a plain view.
 * Units:  shapes count elements, contiguous, row-major, in host memory unless stated otherwise.
 * Memory: a tensor never owns `data` (a checkpoint's map, an arena, a buffer). Views of a checkpoint are read-only
 * although `data` is not const.
 * Errors: -EINVAL for a bad type, rank or dimension, -EOVERFLOW if a size does not fit; outputs are then untouched.
 * / */
#ifndef BLIPLINE_TENSOR_TENSOR_H
#define BLIPLINE_TENSOR_TENSOR_H

#include "base/dtype.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TENSOR_MAX_DIMS 4

struct tensor {
    enum dtype dtype;
    int n_dims; /* 0 .. TENSOR_MAX_DIMS; 0: a scalar */
    int64_t shape[TENSOR_MAX_DIMS];
    void *data;
};

int tensor_n_elements(const struct tensor *t, int64_t *ret_n) CHECK_RESULT;
int tensor_size_bytes(const struct tensor *t, size_t *ret_bytes) CHECK_RESULT;
/* Same rank and dimensions (types may differ). */
bool tensor_shape_is(const struct tensor *t, int n_dims, const int64_t *shape);
/* "[2, 3]" into buf (cut if short); returns buf. */
char *tensor_shape_text(int n_dims, const int64_t *shape, char *buf, size_t buf_size);

/* n numbers F32/F16/BF16/U8 -> f32, exact. Neither side needs alignment. Other types are a bug (assert). */
void tensor_to_f32(float *dst, enum dtype dtype, const void *src, size_t n);
/* n f32 -> F32/F16/BF16, rounded to nearest even; NaN stays NaN. */
void tensor_from_f32(void *dst, enum dtype dtype, const float *src, size_t n);
/* n numbers from one float type to another (F32, F16, BF16); dst and src do not overlap. */
void tensor_convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
/* Row `row` of dimension 0 (everything after it flattened) -> f32; 0 <= row < shape[0], n_dims >= 1. */
void tensor_row_to_f32(const struct tensor *t, int64_t row, float *dst);

#endif
