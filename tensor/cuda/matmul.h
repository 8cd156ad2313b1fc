/* matmul.h - one product as cublasLt does it: the library, its descriptions and the algorithms chosen.
 *
 * cublasLt counts matrices by columns. A row-major [R, C] is, byte for byte, a column-major [C, R] with the same
 * distance between rows as it has between columns. So y = x w^T (row-major x [rows, k], w [n, k], y [rows, n]) is asked
 * for as D = A^T B with A = w seen as [k, n], B = x seen as [k, rows] and D = y seen as [n, rows]: nothing is moved.
 * The library's "M" is our n, its "N" our rows; its bias runs along its rows, which are our columns, as it should.
 * Who may call: linear.cu.
 * Units: distances (ld) in elements.
 * Memory: all pointers are the device's and the caller's; the library's workspace is ours, and one product uses it at a
 *         time (one stream).
 * Errors: -ENOTSUP: the library has no algorithm for this product (nothing is enqueued); else as cuda_status. */
#ifndef BLIPLINE_TENSOR_CUDA_MATMUL_H
#define BLIPLINE_TENSOR_CUDA_MATMUL_H

#include <cublasLt.h>

#include "tensor/cuda/cuda.h"

/* d = act(x w^T * scale_x scale_w^T + c + bias): cublasLt adds c before its epilogue, so an activation and a residual
 * (which ops.h adds after it) do not go into one product. */
struct cuda_product {
    int64_t n_rows, n, k;
    cudaDataType in_type; /* of w and x */
    const void *w;        /* [n, k] dense */
    const void *x;
    int64_t ld_x;
    const float *d_scale_w, *d_scale_x; /* [n], [n_rows], both or neither; in_type e4m3 only */
    cudaDataType out_type;              /* of c and d */
    const void *c;                      /* NULL: none; may be d with the same ld */
    int64_t ld_c;
    void *d;
    int64_t ld_d;
    cublasLtEpilogue_t epilogue;
    const void *d_bias; /* [n], NULL where the epilogue has none */
    cudaDataType bias_type;
};

int cuda_product_run(struct cuda_ops *o, const struct cuda_product *p);
cudaDataType cuda_data_type(enum dtype dtype);

#endif
