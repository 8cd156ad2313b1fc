/* cpu_product_loops.h - a block of rows times some panels of a packed matrix, on one core.
 *
 * K is cut into even blocks of at most CPU_PRODUCT_DEPTH, so that a panel's block stays in the first-level cache while
 * all row tiles use it, and the block of rows stays in the second. The cut depends on K alone and blocks are added in
 * order, so a row's result does not depend on the number of rows or threads.
 *
 * Who may call: cpu_kernels_X.c includes it, after its #pragma GCC target. Units, Memory, Errors: cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_PRODUCT_LOOPS_H
#define BLIPLINE_TENSOR_CPU_PRODUCT_LOOPS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tensor/cpu_kernels.h"
#include "tensor/cpu_simd.h"
#include "tensor/cpu_tile.h"
#include "tensor/ops.h"

/* Where a tile's results go, and its bias and residual. */
struct product_tile {
    const float *bias;     /* PANEL values */
    const float *residual; /* NULL: none */
    float *y;
    int64_t ld_residual, ld_y;
    int act;
    int n_columns; /* columns of y in this panel: PANEL, except in the last */
};

CPU_INLINE cpu_vec product_act(cpu_vec x, const int act)
{
    if (act == OPS_ACT_GELU_ERF)
        return cpu_gelu_erf(x);
    if (act == OPS_ACT_GELU_TANH)
        return cpu_gelu_tanh(x);
    return act == OPS_ACT_RELU ? cpu_relu(x) : x;
}

/* x: [rows][PANEL], the sums with their bias. act is a constant. */
CPU_INLINE void product_finish_act(int rows, float *x, const struct product_tile *t, const int act)
{
    for (int i = 0; i < rows * PANEL; i += LANES)
        cpu_store(x + i, product_act(cpu_load(x + i), act));
    for (int i = 0; i < rows; i++) {
        const float *residual = t->residual ? t->residual + i * t->ld_residual : NULL, *from = x + i * PANEL;
        float *y = t->y + i * t->ld_y;

        if (t->n_columns == PANEL)
            for (int j = 0; j < PANEL; j += LANES)
                cpu_store(y + j, residual ? cpu_load(from + j) + cpu_load(residual + j) : cpu_load(from + j));
        else
            for (int j = 0; j < t->n_columns; j++)
                y[j] = residual ? from[j] + residual[j] : from[j];
    }
}

/* Not inlined: all tile sizes share one copy. */
CPU_KERNEL __attribute__((noinline)) void product_finish_rows(int rows, float *x, const struct product_tile *t)
{
    if (t->act == OPS_ACT_GELU_ERF)
        product_finish_act(rows, x, t, OPS_ACT_GELU_ERF);
    else if (t->act == OPS_ACT_GELU_TANH)
        product_finish_act(rows, x, t, OPS_ACT_GELU_TANH);
    else if (t->act == OPS_ACT_RELU)
        product_finish_act(rows, x, t, OPS_ACT_RELU);
    else
        product_finish_act(rows, x, t, OPS_ACT_NONE);
}

/* y = act(sum + bias) + residual; rows is a constant. */
CPU_INLINE void product_finish(const int rows, cpu_vec sum[CPU_TILE_ROWS][AT_ONCE], const struct product_tile *t)
{
    float x[CPU_TILE_ROWS * PANEL];
    const bool straight = t->act == OPS_ACT_NONE && t->n_columns == PANEL;

#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++) {
            cpu_vec v = sum[i][j] + cpu_load(t->bias + j * LANES);

            if (straight)
                cpu_store(t->y + i * t->ld_y + j * LANES,
                          t->residual ? v + cpu_load(t->residual + i * t->ld_residual + j * LANES) : v);
            else
                cpu_store(x + i * PANEL + j * LANES, v);
        }
    if (!straight)
        product_finish_rows(rows, x, t);
}

/* One tile of one block of K; `partial` holds the sums of the blocks before it, [rows][PANEL]. */
CPU_INLINE void product_tile(const int rows, const float *a, int64_t ld_a, const float *panel, int64_t depth,
                             float *partial, bool first, bool last, const struct product_tile *t)
{
    cpu_vec sum[CPU_TILE_ROWS][AT_ONCE];

#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        if (last) /* prefetch what the stores will need */
            for (int j = 0; j < PANEL; j += 16)
                __builtin_prefetch(t->y + i * t->ld_y + j, 1);
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++)
            sum[i][j] = cpu_set(0);
    }
    tile_sum(rows, AT_ONCE, a, ld_a, (struct tile_rows){.b = panel, .ld = PANEL}, depth, false, sum);
    if (!first)
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < AT_ONCE; j++)
                sum[i][j] += cpu_load(partial + i * PANEL + j * LANES);
    if (last) {
        product_finish(rows, sum, t);
        return;
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++)
            cpu_store(partial + i * PANEL + j * LANES, sum[i][j]);
}

/* A switch over constants, so that each number of rows is compiled with its own registers. */
CPU_INLINE void product_tile_any(int rows, const float *a, int64_t ld_a, const float *panel, int64_t depth,
                                 float *partial, bool first, bool last, const struct product_tile *t)
{
    switch (rows) {
    case 1:
        product_tile(1, a, ld_a, panel, depth, partial, first, last, t);
        break;
    case 2:
        product_tile(2, a, ld_a, panel, depth, partial, first, last, t);
        break;
    case 3:
        product_tile(3, a, ld_a, panel, depth, partial, first, last, t);
        break;
    case 4:
        product_tile(4, a, ld_a, panel, depth, partial, first, last, t);
        break;
    case 5:
        product_tile(5, a, ld_a, panel, depth, partial, first, last, t);
        break;
    default:
        product_tile(CPU_TILE_ROWS, a, ld_a, panel, depth, partial, first, last, t);
    }
}

/* Prefetches part i of n of the `bytes` from p into the second-level cache, so that a panel in memory causes no
 * stall. */
CPU_INLINE void product_fetch(const float *p, int64_t bytes, int64_t i, int64_t n)
{
    const char *end = (const char *)p + bytes * (i + 1) / n;

    for (const char *line = (const char *)p + bytes * i / n; line < end; line += 64)
        __builtin_prefetch(line, 0, 2);
}

/* All rows with one panel's block, in nearly even tiles: 8 rows are 4 + 4, as fast per row as 6. */
CPU_INLINE void product_panel(const struct cpu_product *p, const struct cpu_product_block *b, const float *a,
                              int64_t ld_a, int64_t panel, int64_t k, int64_t depth, float *partial)
{
    const int64_t column = panel * PANEL, left = p->n - column;
    const float *weight = p->panels + column * p->k + k * PANEL, *next = weight + PANEL * p->k;
    const int64_t n_tiles = (b->n_rows + CPU_TILE_ROWS - 1) / CPU_TILE_ROWS;
    const bool is_last = panel + 1 == b->first_panel + b->n_panels;
    int64_t row = 0;

    for (int64_t i = 0; i < n_tiles; i++) {
        const int rows = (int)((b->n_rows - row + n_tiles - i - 1) / (n_tiles - i));
        const int64_t y_row = b->first_row + row;
        const struct product_tile t = {
            .bias = p->bias + column,
            .residual = p->residual ? p->residual + y_row * p->ld_residual + column : NULL,
            .y = p->y + y_row * p->ld_y + column,
            .ld_residual = p->ld_residual,
            .ld_y = p->ld_y,
            .act = p->act,
            .n_columns = left < PANEL ? (int)left : PANEL,
        };

        if (p->from_memory && !is_last)
            product_fetch(next, depth * PANEL * (int64_t)sizeof(float), i, n_tiles);
        product_tile_any(rows, a + row * ld_a, ld_a, weight, depth, partial + row * PANEL, k == 0, k + depth == p->k,
                         &t);
        row += rows;
    }
}

CPU_KERNEL void product_block(const struct cpu_product *p, const struct cpu_product_block *b, float *scratch)
{
    const int64_t n_blocks = (p->k + CPU_PRODUCT_DEPTH - 1) / CPU_PRODUCT_DEPTH;
    const int64_t depth = (p->k + n_blocks - 1) / n_blocks;
    float *rows = scratch + b->n_rows * b->n_panels * PANEL; /* after the partial sums, [panel][row][PANEL] */

    for (int64_t k = 0; k < p->k; k += depth) {
        const int64_t n = p->k - k < depth ? p->k - k : depth;
        const float *a = p->x + b->first_row * p->ld_x + k;
        int64_t ld_a = p->ld_x;

        if (n_blocks > 1 && ld_a % 512 == 0) { /* such rows map to the same cache sets */
            for (int64_t i = 0; i < b->n_rows; i++)
                memcpy(rows + i * CPU_PRODUCT_LD, a + i * ld_a, (size_t)n * sizeof(float));
            a = rows;
            ld_a = CPU_PRODUCT_LD;
        }
        for (int64_t i = 0; i < b->n_panels; i++)
            product_panel(p, b, a, ld_a, b->first_panel + i, k, n, scratch + i * b->n_rows * PANEL);
    }
}

/* Transposes n_columns <= PANEL rows of w [N, K] into columns, padded with zeros. */
CPU_KERNEL void pack_panel(const float *w, int64_t ld, int n_columns, int64_t k, float *panel)
{
    for (int64_t i = 0; i < k; i += LANES)
        for (int j = 0; j < PANEL; j += LANES) {
            cpu_vec column[LANES];

            for (int c = 0; c < LANES; c++)
                column[c] = j + c < n_columns
                                ? cpu_load_some(w, (j + c) * ld + i, (int)(k - i < LANES ? k - i : LANES), false)
                                : cpu_set(0);
            cpu_transpose(column);
            for (int c = 0; c < LANES && i + c < k; c++)
                cpu_store(panel + (i + c) * PANEL + j, column[c]);
        }
}

#endif
