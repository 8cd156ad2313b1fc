/* product.h - the arithmetic behind cublasLtMatmul, apart from its interface.
 *
 * Who may call: cublaslt.cc. Memory: all of the caller's, open (emulator_memory_open). */
#ifndef BLIPLINE_TESTS_EMULATOR_PRODUCT_H
#define BLIPLINE_TESTS_EMULATOR_PRODUCT_H

#include <library_types.h>

#include <stddef.h>
#include <stdint.h>

/* Column-major, as cublasLt has it. */
struct product_matrix {
    cudaDataType type; /* R_32F, R_16F, R_16BF, R_8F_E4M3 */
    int64_t ld;
    bool transposed;
    const void *values;
    const float *scale; /* A and B: NULL or one value, or with `outer` one for each row of A (column of B) */
    bool outer;
};

enum product_act { PRODUCT_NONE, PRODUCT_RELU, PRODUCT_GELU };

/* d[m, n] = act(alpha * a[m, k] b[k, n] + beta * c[m, n] + bias[m]) */
struct product {
    int64_t m, n, k;
    struct product_matrix a, b, c, d;
    float alpha, beta;
    bool tf32; /* operands to 10 bits of mantissa */
    enum product_act act;
    const void *bias; /* NULL: none */
    cudaDataType bias_type;
};

void product_run(const struct product *p);
size_t product_type_bytes(cudaDataType type);

#endif
