/* cpu_kernels.h - the inner loops that are compiled for each instruction set.
 *
 * The loops are written once, in cpu_product_loops.h, cpu_rows_loops.h, cpu_attention_loops.h and cpu_decode_loops.h;
 * each cpu_kernels_X.c compiles them for X and fills one table. oneDNN selects its own kernels.
 * Who may call: tensor/cpu*.c, from any thread.
 * Units:  f32 or bf16 activations, everything else f32, row-major, `ld_*` in elements.
 * Memory: the caller owns all buffers.
 * Errors: none. */
#ifndef BLIPLINE_TENSOR_CPU_KERNELS_H
#define BLIPLINE_TENSOR_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CPU_LANES = 16,                   /* floats in the widest vector; padding is a multiple of it */
    CPU_TILE_ROWS = 6,                /* of a product in registers */
    CPU_PANEL = 64,                   /* the most columns packed side by side; see cpu_kernels.panel */
    CPU_PRODUCT_DEPTH = 256,          /* the most steps of K in one block */
    CPU_PRODUCT_LD = 256 + CPU_LANES, /* between rows of x in scratch: an odd number of cache lines */
    CPU_BLOCK_ROWS = 4 * CPU_TILE_ROWS,
    CPU_MAXIMA_VECTORS = 32,
    CPU_DIRECT_ROWS = 2 /* sequences with at most this many queries are not packed */
};

/* y = act(x W^T + bias) + residual, all f32. */
struct cpu_product {
    const float *x, *panels; /* panels: [panel][K][columns] */
    const float *bias;       /* padded to whole panels */
    const float *residual;   /* NULL: none */
    float *y;
    int64_t ld_x, ld_residual, ld_y;
    int64_t n, k;
    int act;          /* enum ops_act */
    bool from_memory; /* the panels are too many for the second-level cache: fetch the next one ahead */
};

/* The part that one thread computes in one call. */
struct cpu_product_block {
    int64_t first_row, n_rows, first_panel, n_panels;
};

/* Scratch of one thread; sizes in floats. */
struct cpu_workspace {
    float *keys, *values, *query, *score, *out;
    int64_t ld_score, ld_out;
};

/* One head of one sequence; pointers are to this head's columns. */
struct cpu_head {
    const void *q, *k, *v;
    void *out;
    const float *bias; /* row of the first query in the sequence */
    int64_t ld_q, ld_k, ld_v, ld_out, ld_bias;
    int n_keys, n_keys_first; /* all keys; those that the first query sees */
    int head_dim;
    bool causal;
    float scale;
};

/* One head of new tokens that share a prefix; pointers are to this head's columns, k and v to row 0 of the cache. */
struct cpu_group {
    const void *q, *k, *v;
    void *out;
    const float *bias; /* the bias for distance 0; earlier keys have theirs before it */
    int64_t ld_q, ld_k, ld_v, ld_out;
    int n_rows; /* 1 .. CPU_TILE_ROWS */
    int64_t prefix_start;
    int prefix_len;
    const int32_t *tail, *tail_start, *tail_len; /* as in ops.h; tail_len NULL: no tails */
    int head_dim;
    float scale;
};

struct cpu_kernels {
    void (*norm)(const void *x, const float *gamma, const float *beta, float eps, int64_t width, void *y);
    /* y[i] = act(x[i]) * up[i]; y may be x. act: enum ops_act. */
    void (*gate)(const void *x, const void *up, int act, int64_t n, void *y);
    /* f32 in any case: logits. One maximum for each lane of each chunk of CPU_MAXIMA_VECTORS vectors:
     * maxima[chunk * lanes + lane], of those that are not NaN. Returns the number of maxima. */
    int64_t (*lane_maxima)(const float *x, int64_t n, float *maxima, bool *ret_all_finite);
    double (*sum_exp)(const float *x, int64_t n, float max);     /* of e^(x - max) */
    void (*exp)(const float *x, int64_t n, float max, float *y); /* y = e^(x - max), x <= max; y may be x */
    /* Computes query rows first .. first+n-1 of the sequence. */
    void (*attend_packed)(const struct cpu_head *h, int first, int n, const struct cpu_workspace *w);
    void (*attend_group)(const struct cpu_group *g, const struct cpu_workspace *w);
    /* scratch: n_rows * (n_panels * panel + CPU_PRODUCT_LD) floats. */
    void (*product)(const struct cpu_product *p, const struct cpu_product_block *b, float *scratch);
    /* Packs n_columns <= panel rows of W, each with K values, into [K][panel]. */
    void (*pack_panel)(const float *w, int64_t ld, int n_columns, int64_t k, float *panel);
    int lanes, panel;
};

/* [0] for f32 activations, [1] for bf16. */
extern const struct cpu_kernels cpu_kernels_base[2], cpu_kernels_avx2[2], cpu_kernels_avx512[2];

static inline int64_t cpu_round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

#endif
