/* matmul.h - a matrix product with cublasLt.
 *
 * cublasLt is column-major. A row-major [R, C] has the same bytes as a column-major [C, R] with the same leading
 * dimension. So y = x w^T (row-major x [rows, k], w [n, k], y [rows, n]) is computed as D = A^T B with A = w as [k, n],
 * B = x as [k, rows] and D = y as [n, rows]. The library's M is our n and its N our rows; its bias runs along M, that
 * is along our columns.
 * Who may call: linear.cu.
 * Units: leading dimensions (ld) in elements.
 * Memory: all pointers are device memory of the caller. Products share one workspace, so they run on one stream.
 * Errors: -ENOTSUP: the library has no algorithm for this product (nothing is enqueued); else as cuda_status. */
#ifndef BLIPLINE_TENSOR_CUDA_MATMUL_H
#define BLIPLINE_TENSOR_CUDA_MATMUL_H

#include <cublasLt.h>

#include "tensor/cuda/cuda.h"

/* d = act(x w^T * scale_x scale_w^T + c + bias): cublasLt adds c before the activation, but ops.h adds the residual
 * after it, so a product cannot do both. */
struct cuda_product {
    int64_t n_rows, n, k;
    cudaDataType in_type; /* of w and x */
    const void *w;        /* [n, k] dense */
    const void *x;
    int64_t ld_x;
    const float *d_scale_w, *d_scale_x; /* [n], [n_rows], both or neither; only for in_type e4m3 */
    cudaDataType out_type;              /* of c and d */
    const void *c;                      /* NULL: none; may be d with the same ld */
    int64_t ld_c;
    void *d;
    int64_t ld_d;
    cublasLtEpilogue_t epilogue;
    const void *d_bias; /* [n], NULL: none */
    cudaDataType bias_type;
};

int cuda_product_run(struct cuda_ops *o, const struct cuda_product *p);
cudaDataType cuda_data_type(enum dtype dtype);

#endif
