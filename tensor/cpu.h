/* cpu.h - shared by the files of the CPU back end: its state, scratch memory, and the number of threads for a call.
 *
 * Who may call: tensor/cpu*.c, on the compute thread only, as for struct ops.
 * Units:  sizes in bytes, work in floating-point operations (one core does about 100 per nanosecond).
 * Memory: cpu_scratch returns a block that the back end owns; it is valid until the next cpu_scratch call.
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_TENSOR_CPU_H
#define BLIPLINE_TENSOR_CPU_H

#include "tensor/cpu_isa.h"
#include "tensor/cpu_kernels.h"
#include "tensor/cpu_matmul.h"
#include "tensor/cpu_pool.h"
#include "tensor/ops.h"

struct ops_cpu {
    struct ops base;
    int n_threads;
    const struct cpu_kernels *kernels;
    struct cpu_matmul *matmul; /* oneDNN's matrix products; NULL: use our own (cpu_product.h) */
    struct cpu_pool *pool;     /* NULL with oneDNN: then OpenMP runs all loops */
    void *scratch;
    size_t scratch_bytes;
};

static inline struct ops_cpu *cpu_of(struct ops *o)
{
    return (struct ops_cpu *)o;
}

/* Size of one activation. */
static inline size_t cpu_element_bytes(const struct ops_cpu *o)
{
    return o->base.act_dtype == DTYPE_F32 ? 4 : 2;
}

static inline const void *cpu_element(const void *p, int64_t i, size_t element)
{
    return (const unsigned char *)p + i * (int64_t)element;
}

static inline void *cpu_element_out(void *p, int64_t i, size_t element)
{
    return (unsigned char *)p + i * (int64_t)element;
}

/* The kernels of `isa` (not AUTO) for f32 or bf16 activations, or NULL if this machine or build lacks them. */
const struct cpu_kernels *cpu_kernels_for(enum cpu_isa isa, enum dtype act_dtype);
int cpu_scratch(struct ops_cpu *o, size_t bytes, void **ret) CHECK_RESULT;
/* Returns 1 or all threads. Waking threads takes tens of microseconds, so small calls run on one. */
int cpu_threads_for(const struct ops_cpu *o, double work_flop);
/* Processes items begin .. end-1; 0 <= thread < cpu_threads_for(work). */
typedef void cpu_share_fn(void *arg, int64_t begin, int64_t end, int thread);
/* Calls fn for 0 .. n-1 in parts of `grain` items (0: a few even parts per thread), on cpu_threads_for(work)
 * threads. */
void cpu_share(const struct ops_cpu *o, double work_flop, int64_t n, int64_t grain, cpu_share_fn *fn, void *arg);
/* The row stride of scratch, in floats: room for n and one more vector, and an odd number of cache lines, so that
 * the rows of a tile map to different cache sets. */
int64_t cpu_padded_row(int64_t n);

/* Operators of struct ops_funcs that are defined in other files; contracts in ops.h. */
int cpu_linear(struct ops *o, const struct ops_linear_args *a);
int cpu_attention(struct ops *o, const struct ops_attention_args *a);
int cpu_decode_attention(struct ops *o, const struct ops_decode_attention_args *a);
int cpu_gate(struct ops *o, const struct ops_gate_args *a);
int cpu_norm(struct ops *o, const struct ops_norm_args *a);
int cpu_sample(struct ops *o, const struct ops_sample_args *a);
int cpu_rows_copy(struct ops *o, const struct ops_rows_args *a);
int cpu_patchify(struct ops *o, const struct ops_patchify_args *a);
int cpu_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                  const struct ops_vector *cls, const struct ops_vector *pos, void *y);
int cpu_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index, const int32_t *dst_index,
              bool add, void *y, int64_t ld_y);

#endif
