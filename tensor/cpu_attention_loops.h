/* cpu_attention_loops.h - attention of one head of one sequence at a time, on one core.
 *
 * Keys and values are packed into the second-level cache:
 *   keys    as [panel][D][PANEL]: keys side by side, so that q K^T is a product of rows with a panel;
 *   values  as [panel][keys][PANEL]: columns of D side by side;
 *   queries in blocks of CPU_BLOCK_ROWS, already scaled, whose scores stay in the first- and second-level cache.
 * Both products are the same loop: CPU_TILE_ROWS rows times a panel (cpu_tile.h). For one or two queries packing costs
 * more than it saves; cpu_decode_loops.h handles those. A sum does not depend on which rows share a block, so a row's
 * result does not depend on its neighbours.
 *
 * Who may call: cpu_kernels_X.c includes it, after its #pragma GCC target. Units, Memory, Errors: cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_ATTENTION_LOOPS_H
#define BLIPLINE_TENSOR_CPU_ATTENTION_LOOPS_H

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "tensor/cpu_kernels.h"
#include "tensor/cpu_simd.h"
#include "tensor/cpu_tile.h"

enum {
    FETCH_AHEAD = 16,    /* rows */
    INNER = 4096 / PANEL /* rows of a panel kept in the first-level cache while the tiles of a block pass over it */
};

CPU_INLINE int keys_seen(const struct cpu_head *h, int row)
{
    return h->causal ? h->n_keys_first + row : h->n_keys;
}

/* c[rows, columns] = a[rows, n] * panels; rows a multiple of CPU_TILE_ROWS; panel p holds [n_packed, PANEL]. */
CPU_INLINE void multiply_panels(int rows, const float *a, int64_t ld_a, const float *panels, int64_t n_packed,
                                int64_t columns, float *c, int64_t ld_c, int64_t n)
{
    for (int64_t column = 0; column < columns; column += PANEL) {
        const float *panel = panels + column * n_packed;
        int64_t left = columns - column;
        int nv = left >= PANEL ? AT_ONCE : (int)((left + LANES - 1) / LANES);

        for (int64_t k = 0; k < n; k += INNER)
            for (int r = 0; r < rows; r += CPU_TILE_ROWS)
                tile_any(CPU_TILE_ROWS, nv, a + r * ld_a + k, ld_a,
                         (struct tile_rows){.b = panel + k * PANEL, .ld = PANEL}, c + r * ld_c + column, ld_c,
                         n - k < INNER ? n - k : INNER, k > 0, false);
    }
}

/* Transposes LANES keys from `k` at LANES dimensions, padded with zeros. */
CPU_INLINE void pack_key_block(const void *k, int64_t ld_k, int n_keys, int n_dims, float *panel, const bool half)
{
    cpu_vec row[LANES];

    if (n_keys >= LANES && n_dims >= LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            row[i] = cpu_load_act(k, i * ld_k, half);
    } else {
        for (int i = 0; i < LANES; i++)
            row[i] = i < n_keys ? cpu_load_some(k, i * ld_k, n_dims, half) : cpu_set(0);
    }
    cpu_transpose(row);
    for (int d = 0; d < LANES && d < n_dims; d++)
        cpu_store(panel + d * PANEL, row[d]);
}

/* Rows are too far apart for the hardware prefetcher, so prefetch one block ahead. */
CPU_INLINE void fetch_row(const void *rows, int64_t i, int n, const bool half)
{
    for (int j = 0; j < n; j += half ? 32 : 16)
        __builtin_prefetch(cpu_at(rows, i + j, half));
}

CPU_INLINE void pack_keys(const struct cpu_head *h, int n_keys, float *keys, const bool half)
{
    for (int j = 0; j < n_keys; j += LANES) {
        float *panel = keys + (int64_t)(j / PANEL) * PANEL * h->head_dim + j % PANEL;

        for (int i = j + LANES; i < j + 2 * LANES && i < n_keys; i++)
            fetch_row(h->k, i * h->ld_k, h->head_dim, half);
        for (int d = 0; d < h->head_dim; d += LANES)
            pack_key_block(cpu_at(h->k, j * h->ld_k + d, half), h->ld_k, n_keys - j, h->head_dim - d,
                           panel + (int64_t)d * PANEL, half);
    }
}

CPU_INLINE void pack_values(const struct cpu_head *h, int n_keys, float *values, const bool half)
{
    for (int d = 0; d < h->head_dim; d += PANEL) {
        float *panel = values + (int64_t)d * n_keys;
        int width = h->head_dim - d < PANEL ? h->head_dim - d : PANEL, j = 0;

        for (; width == PANEL && j < n_keys; j++) {
            if (j + FETCH_AHEAD < n_keys)
                fetch_row(h->v, (j + FETCH_AHEAD) * h->ld_v + d, width, half);
            for (int i = 0; i < PANEL; i += LANES)
                cpu_store(panel + (int64_t)j * PANEL + i, cpu_load_act(h->v, j * h->ld_v + d + i, half));
        }
        for (; j < n_keys; j++)
            for (int i = 0; i < PANEL; i += LANES)
                cpu_store(panel + (int64_t)j * PANEL + i, cpu_load_some(h->v, j * h->ld_v + d + i, width - i, half));
    }
}

/* score[0..n) -> e^(score + bias - max), zeros up to n_padded; returns 1 / sum. */
CPU_INLINE float softmax(float *score, const float *bias, int n, int64_t n_padded)
{
    int whole = (int)cpu_round_up(n, LANES);
    cpu_vec largest, sum = {0};

    if (bias)
        for (int j = 0; j < n; j++)
            score[j] += bias[j];
    for (int j = n; j < whole; j++)
        score[j] = -HUGE_VALF;
    largest = cpu_load(score);
    for (int j = LANES; j < whole; j += LANES)
        largest = cpu_max(cpu_load(score + j), largest);
    largest = cpu_set(cpu_max_lanes(largest));
    for (int j = 0; j < whole; j += LANES) {
        cpu_vec e = cpu_exp_nonpositive(cpu_load(score + j) - largest);

        sum += e;
        cpu_store(score + j, e);
    }
    if (n_padded > whole)
        memset(score + whole, 0, (size_t)(n_padded - whole) * sizeof(float));
    return 1 / cpu_sum_lanes(sum);
}

/* Loads rows first .. first+n-1, scaled and zero-padded to n_padded; prefetches the next block and the output rows. */
CPU_INLINE void load_queries(const struct cpu_head *h, int first, int n, int n_padded, int end, float *query,
                             const bool half)
{
    for (int i = 0; i < n; i++) {
        int64_t q = (first + i) * h->ld_q;

        if (first + CPU_BLOCK_ROWS + i < end)
            fetch_row(h->q, q + CPU_BLOCK_ROWS * h->ld_q, h->head_dim, half);
        fetch_row(h->out, (first + i) * h->ld_out, h->head_dim, half);
        for (int d = 0; d < h->head_dim; d++)
            query[i * h->head_dim + d] = cpu_get_act(h->q, q + d, half) * h->scale;
    }
    memset(query + (int64_t)n * h->head_dim, 0, (size_t)(n_padded - n) * h->head_dim * sizeof(float));
}

CPU_INLINE void attend_packed(const struct cpu_head *h, int first, int n, const struct cpu_workspace *w,
                              const bool half)
{
    int n_packed = keys_seen(h, first + n - 1); /* none of these rows sees later keys */

    pack_keys(h, n_packed, w->keys, half);
    pack_values(h, n_packed, w->values, half);
    for (int r = first; r < first + n; r += CPU_BLOCK_ROWS) {
        int rows = first + n - r < CPU_BLOCK_ROWS ? first + n - r : CPU_BLOCK_ROWS;
        int padded = (int)cpu_round_up(rows, CPU_TILE_ROWS), n_keys = keys_seen(h, r + rows - 1);
        float inverse[CPU_BLOCK_ROWS];

        load_queries(h, r, rows, padded, first + n, w->query, half);
        multiply_panels(padded, w->query, h->head_dim, w->keys, h->head_dim, n_keys, w->score, w->ld_score,
                        h->head_dim);
        for (int i = 0; i < rows; i++)
            inverse[i] = softmax(w->score + i * w->ld_score, h->bias ? h->bias + (r + i) * h->ld_bias : NULL,
                                 keys_seen(h, r + i), cpu_round_up(n_keys, LANES));
        multiply_panels(padded, w->score, w->ld_score, w->values, n_packed, h->head_dim, w->out, w->ld_out, n_keys);
        for (int i = 0; i < rows; i++)
            for (int d = 0; d < h->head_dim; d++)
                cpu_put_act(h->out, (r + i) * h->ld_out + d, w->out[i * w->ld_out + d] * inverse[i], half);
    }
}

CPU_KERNEL void attend_packed_f32(const struct cpu_head *h, int first, int n, const struct cpu_workspace *w)
{
    attend_packed(h, first, n, w, false);
}

CPU_KERNEL void attend_packed_bf16(const struct cpu_head *h, int first, int n, const struct cpu_workspace *w)
{
    attend_packed(h, first, n, w, true);
}

#endif
