/* cpu_kernels.h - the inner loops that are compiled for each instruction set.
 *
 * The loops are written once, in cpu_rows_loops.h and cpu_attention_loops.h; each cpu_kernels_X.c compiles them for X and
 * fills one table. oneDNN's products are not here, it has its own way to do the same.
 * Who may call: tensor/cpu*.c, any of its threads.
 * Units:  f32, row-major, `ld_*` in elements.
 * Memory: everything is the caller's. Errors: none. */
#ifndef BLIPLINE_TENSOR_CPU_KERNELS_H
#define BLIPLINE_TENSOR_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

enum cpu_isa { CPU_ISA_BASE, CPU_ISA_AVX2, CPU_ISA_AVX512, CPU_ISA_COUNT };

enum {
    CPU_LANES = 16,    /* floats of the widest vector; paddings are multiples of it */
    CPU_TILE_ROWS = 6, /* of a product in registers */
    CPU_PANEL = 64,    /* columns packed side by side */
    CPU_BLOCK_ROWS = 4 * CPU_TILE_ROWS,
    CPU_DIRECT_ROWS = 2 /* so few queries are answered without packing */
};

/* Scratch of one thread, in floats. */
struct cpu_workspace {
    float *keys, *values, *query, *score, *out;
    int64_t ld_score, ld_out;
};

/* One head of one sequence; rows at this head's columns. */
struct cpu_head {
    const float *q, *k, *v, *bias; /* bias: row of the first query in the sequence */
    float *out;
    int64_t ld_q, ld_k, ld_v, ld_out, ld_bias;
    int n_keys, n_keys_first; /* all, and those the first query of the sequence sees */
    int head_dim;
    bool causal;
    float scale;
};

struct cpu_kernels {
    void (*norm)(const float *x, const float *gamma, const float *beta, float eps, int64_t width, float *y);
    void (*argmax)(const float *x, int64_t n, int32_t *ret_id, float *ret_logprob);
    /* Query rows first .. first+n-1 of the sequence. */
    void (*attend_packed)(const struct cpu_head *h, int first, int n, const struct cpu_workspace *w);
    /* One row; head_dim >= CPU_LANES. */
    void (*attend_direct)(const struct cpu_head *h, int row, const struct cpu_workspace *w);
};

extern const struct cpu_kernels cpu_kernels_base, cpu_kernels_avx2, cpu_kernels_avx512;

static inline int64_t cpu_round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

#endif
