/* cpu_matmul.h - y = act(x W^T + b) [+ y] with oneDNN and packed weights, on processors with AVX-512. Nothing else uses
 * oneDNN.
 *
 * Weights are packed once into the layout that oneDNN prefers; the same bytes serve any number of rows. A primitive is
 * made for one exact shape; an LRU cache keeps CPU_MATMUL_CACHE of them. With AVX-512 a row's result depends on neither
 * the number of threads nor the number of rows (from cpu_matmul_n_rows_min on); tests check this. Without AVX-512,
 * oneDNN packs weights in each call and its sums depend on both; cpu_product.h is used then.
 *
 * Who may call: the compute thread of one struct ops_cpu.
 * Units:  x [rows, K], W [N, K], y [rows, N], all f32 or all bf16 (sums in f32, bias f32, y f32 if asked for),
 *         row-major, strides in elements.
 * Memory: the caller frees each packed matrix with cpu_packed_free, before cpu_matmul_free.
 * Errors: -ENOMEM, -EOVERFLOW, -EIO (oneDNN failed), -ENOTSUP (no bf16 on this processor); err names the matrix. */
#ifndef BLIPLINE_TENSOR_CPU_MATMUL_H
#define BLIPLINE_TENSOR_CPU_MATMUL_H

#include "base/err.h"
#include "tensor/ops.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CPU_MATMUL_CACHE = 512 };

struct cpu_matmul;
struct cpu_packed;

struct cpu_matmul_args {
    struct cpu_packed *weight;
    int64_t n_rows;
    const void *x;
    int64_t ld_x;
    void *y;
    int64_t ld_y;
    bool y_f32;
    enum ops_act act;
    bool add_to_y; /* y already holds the residual */
    int n_threads; /* 1 or the number given to cpu_matmul_new */
};

/* True if oneDNN can use AVX-512 here and DNNL_MAX_CPU_ISA allows it. */
bool cpu_matmul_is_fast(void);
/* Then: its instruction set ("avx512_bf16") and version ("oneDNN 2.6.3"). */
void cpu_matmul_describe(char *isa, size_t isa_size, char *library, size_t library_size);
/* dtype: DTYPE_F32 or DTYPE_BF16. */
int cpu_matmul_new(enum dtype dtype, struct cpu_matmul **ret, struct err *err) CHECK_RESULT;
void cpu_matmul_free(struct cpu_matmul *m);
/* True if ld_x > K and ld_y > N work at full speed; otherwise callers must pass dense rows. */
bool cpu_matmul_takes_strides(const struct cpu_matmul *m, const struct cpu_packed *w);
/* From this number of rows on, a row's result does not depend on the number; callers pad with rows of zeros. */
int64_t cpu_matmul_n_rows_min(void);
int cpu_matmul_run(struct cpu_matmul *m, const struct cpu_matmul_args *a) CHECK_RESULT;

/* weight: dense [N, K] of cpu_matmul_new's dtype; bias: N values or NULL. Both are copied. n_threads is used for
 * packing. */
int cpu_packed_new(struct cpu_matmul *m, int64_t n, int64_t k, const void *weight, const float *bias, int n_threads,
                   struct cpu_packed **ret, struct err *err) CHECK_RESULT;
void cpu_packed_free(struct cpu_packed *w);

#endif
