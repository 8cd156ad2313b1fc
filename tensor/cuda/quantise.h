/* quantise.h - converts rows to e4m3 with one scale each (fp8.cuh).
 *
 * Who may call: tensor/cuda/.
 * Memory: the caller's device memory.
 * Errors: as cuda_status. */
#ifndef BLIPLINE_TENSOR_CUDA_QUANTISE_H
#define BLIPLINE_TENSOR_CUDA_QUANTISE_H

#include "tensor/cuda/cuda.h"

/* x [n_rows, width] of dtype with row stride ld_x -> codes [n_rows, width] dense, scales [n_rows]. Enqueued on
 * o->stream. */
int cuda_quantise_rows(struct cuda_ops *o, int64_t n_rows, int64_t width, const void *d_x, enum dtype dtype,
                       int64_t ld_x, void *d_codes, float *d_scales);

#endif
