/* cpu_matmul.h - y = act(x W^T + b) [+ y] by oneDNN with packed weights, where it has AVX-512; the only user of oneDNN.
 *
 * Weights are packed once into the layout that oneDNN prefers; the same packed bytes serve any number of rows.
 * Primitives are made for one exact shape and kept, at most CPU_MATMUL_CACHE of them, the least recently used goes.
 * With AVX-512 a row's result does not depend on the number of rows, from cpu_matmul_n_rows_min on, or threads
 * (tested). Without, oneDNN packs weights in each call and sums as shape and threads come: cpu_product.h is for that.
 *
 * Who may call: the compute thread of one struct ops_cpu.
 * Units:  x [rows, K], W [N, K], y [rows, N], all f32 or all bf16 (sums in f32, bias f32, y f32 if asked for),
 *         row-major, ld in elements.
 * Memory: a packed matrix belongs to the caller until cpu_packed_free, which must precede cpu_matmul_free.
 * Errors: -ENOMEM, -EOVERFLOW, -EIO (oneDNN failed), -ENOTSUP (no bf16 here); err says where. */
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
    bool add_to_y; /* the residual is already in y */
    int n_threads; /* 1 or what cpu_matmul_new was told */
};

/* Has oneDNN AVX-512 here, and leave to use it (DNNL_MAX_CPU_ISA)? */
bool cpu_matmul_is_fast(void);
/* If so: the instructions that it uses ("avx512_bf16"), and its version ("oneDNN 2.6.3"). */
void cpu_matmul_describe(char *isa, size_t isa_size, char *library, size_t library_size);
/* dtype: DTYPE_F32 or DTYPE_BF16. */
int cpu_matmul_new(enum dtype dtype, struct cpu_matmul **ret, struct err *err) CHECK_RESULT;
void cpu_matmul_free(struct cpu_matmul *m);
/* Whether ld_x > K and ld_y > N come out right and at full speed; if not, callers pass dense rows. */
bool cpu_matmul_takes_strides(const struct cpu_matmul *m, const struct cpu_packed *w);
/* A row's result is the same in any number of rows from this one on: callers fill fewer up with rows of zeros. */
int64_t cpu_matmul_n_rows_min(void);
int cpu_matmul_run(struct cpu_matmul *m, const struct cpu_matmul_args *a) CHECK_RESULT;

/* weight: [N, K] dense, of the type of cpu_matmul_new; bias: N values or NULL. Both are copied. n_threads for the
 * packing itself. */
int cpu_packed_new(struct cpu_matmul *m, int64_t n, int64_t k, const void *weight, const float *bias, int n_threads,
                   struct cpu_packed **ret, struct err *err) CHECK_RESULT;
void cpu_packed_free(struct cpu_packed *w);

#endif
