/* cpu_decode_loops.h - attention of single new tokens, one head at a time, on one core.
 *
 * With so few queries packing costs more than it saves, so keys and values are read in place. The rows of a group (the
 * beams of an image) share a prefix, whose keys and values are read once for all of them: a block of keys meets each
 * query while it is in the first-level cache, and the values are the columns of one tile with the rows' scores. The
 * tails differ and are read row by row. The order of a row's sums does not depend on its group, so its result does not
 * depend on its neighbours.
 *
 * Who may call: cpu_kernels_X.c includes it, after its #pragma GCC target. Units, Memory, Errors: cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_DECODE_LOOPS_H
#define BLIPLINE_TENSOR_CPU_DECODE_LOOPS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "tensor/cpu_attention_loops.h"
#include "tensor/cpu_kernels.h"
#include "tensor/cpu_simd.h"

/* Scores of LANES keys: partial sums of each, transposed and added. n_keys may be smaller; head_dim >= LANES. If
 * head_dim is not a multiple of LANES, the last vector overlaps the one before, and `query` has zeros there. */
CPU_INLINE cpu_vec score_block(const float *query, const struct tile_rows keys, int first, int n_keys, int head_dim,
                               const bool half)
{
    int whole = head_dim / LANES * LANES;
    cpu_vec part[LANES] = {{0}};

    for (int i = 0; i < LANES && i < n_keys - first; i++) {
        const void *row = cpu_at(keys.b, (keys.index ? (int64_t)keys.index[first + i] : first + i) * keys.ld, half);

        for (int d = 0; d < whole; d += LANES)
            part[i] = cpu_madd(cpu_load(query + d), cpu_load_act(row, d, half), part[i]);
        if (whole < head_dim)
            part[i] = cpu_madd(cpu_load(query + whole), cpu_load_act(row, head_dim - LANES, half), part[i]);
    }
    cpu_transpose(part);
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            part[i] += part[i + n];
    return part[0];
}

CPU_INLINE void load_query(const struct cpu_group *g, int row, float *query, const bool half)
{
    int whole = g->head_dim / LANES * LANES, rest = g->head_dim - whole;
    int64_t q = row * g->ld_q;

    for (int d = 0; d < whole; d++)
        query[d] = cpu_get_act(g->q, q + d, half) * g->scale;
    for (int i = 0; i < LANES; i++)
        query[whole + i] =
            rest && i >= LANES - rest ? cpu_get_act(g->q, q + g->head_dim - LANES + i, half) * g->scale : 0;
}

CPU_INLINE struct tile_rows prefix_of(const struct cpu_group *g, const void *rows, int64_t ld, const bool half)
{
    return (struct tile_rows){.b = cpu_at(rows, g->prefix_start * ld, half), .ld = ld};
}

CPU_INLINE int tail_of(const struct cpu_group *g, int row)
{
    return g->tail_len ? g->tail_len[row] : 0;
}

/* Prefetches the values of these keys, which are read after all scores, and the keys of the next block. */
CPU_INLINE void fetch_block(const struct cpu_group *g, const int32_t *index, int64_t start, int first, int n_keys,
                            const bool half)
{
    for (int j = first; j < first + LANES && j < n_keys; j++) {
        if (j + LANES < n_keys)
            fetch_row(g->k, (index ? (int64_t)index[j + LANES] : start + j + LANES) * g->ld_k, g->head_dim, half);
        fetch_row(g->v, (index ? (int64_t)index[j] : start + j) * g->ld_v, g->head_dim, half);
    }
}

CPU_INLINE void score_tail(const struct cpu_group *g, int row, const struct cpu_workspace *w, const bool half)
{
    const int n_keys = tail_of(g, row);
    const struct tile_rows tail = {.b = g->k, .ld = g->ld_k, .index = g->tail + g->tail_start[row]};

    for (int j = 0; j < n_keys; j += LANES) {
        fetch_block(g, tail.index, 0, j, n_keys, half);
        cpu_store(w->score + row * w->ld_score + g->prefix_len + j,
                  score_block(w->query + row * w->ld_out, tail, j, n_keys, g->head_dim, half));
    }
}

CPU_INLINE void score_group(const struct cpu_group *g, const struct cpu_workspace *w, const bool half)
{
    const struct tile_rows prefix = prefix_of(g, g->k, g->ld_k, half);

    for (int r = 0; r < g->n_rows; r++)
        for (int j = 0; j < LANES && j < tail_of(g, r); j++)
            fetch_row(g->k, g->tail[g->tail_start[r] + j] * g->ld_k, g->head_dim, half);
    for (int j = 0; j < g->prefix_len; j += LANES) {
        fetch_block(g, NULL, g->prefix_start, j, g->prefix_len, half);
        for (int r = 0; r < g->n_rows; r++)
            cpu_store(w->score + r * w->ld_score + j,
                      score_block(w->query + r * w->ld_out, prefix, j, g->prefix_len, g->head_dim, half));
    }
    for (int r = 0; r < g->n_rows; r++)
        if (tail_of(g, r))
            score_tail(g, r, w, half);
}

CPU_INLINE void sum_prefix(const int rows, const struct cpu_group *g, const struct cpu_workspace *w, int d, int nv,
                           int to, const bool half)
{
    tile_any(rows, nv, w->score, w->ld_score, prefix_of(g, cpu_at(g->v, d, half), g->ld_v, half), w->out + to,
             w->ld_out, g->prefix_len, false, half);
}

/* Sums columns d .. d + LANES * nv - 1 of the values into w->out from column `to`. */
CPU_INLINE void sum_values(const struct cpu_group *g, const struct cpu_workspace *w, int d, int nv, int to,
                           const bool half)
{
    switch (g->n_rows) {
    case 1:
        sum_prefix(1, g, w, d, nv, to, half);
        break;
    case 2:
        sum_prefix(2, g, w, d, nv, to, half);
        break;
    case 3:
        sum_prefix(3, g, w, d, nv, to, half);
        break;
    case 4:
        sum_prefix(4, g, w, d, nv, to, half);
        break;
    case 5:
        sum_prefix(5, g, w, d, nv, to, half);
        break;
    default:
        sum_prefix(CPU_TILE_ROWS, g, w, d, nv, to, half);
    }
    for (int r = 0; r < g->n_rows; r++)
        if (tail_of(g, r))
            tile_any(1, nv, w->score + r * w->ld_score + g->prefix_len, 0,
                     (struct tile_rows){.b = cpu_at(g->v, d, half), .ld = g->ld_v, .index = g->tail + g->tail_start[r]},
                     w->out + to + r * w->ld_out, 0, tail_of(g, r), true, half);
}

/* Not inlined: it has a tile for each number of rows and attend_group would hold it twice. */
CPU_KERNEL __attribute__((noinline)) void sum_values_f32(const struct cpu_group *g, const struct cpu_workspace *w,
                                                         int d, int nv, int to)
{
    sum_values(g, w, d, nv, to, false);
}

CPU_KERNEL __attribute__((noinline)) void sum_values_bf16(const struct cpu_group *g, const struct cpu_workspace *w,
                                                          int d, int nv, int to)
{
    sum_values(g, w, d, nv, to, true);
}

/* head_dim >= CPU_LANES. */
CPU_INLINE void attend_group(const struct cpu_group *g, const struct cpu_workspace *w, const bool half)
{
    int whole = g->head_dim / LANES * LANES, rest = g->head_dim - whole;
    float inverse[CPU_TILE_ROWS];

    for (int r = 0; r < g->n_rows; r++)
        load_query(g, r, w->query + r * w->ld_out, half);
    score_group(g, w, half);
    for (int r = 0; r < g->n_rows; r++) {
        int n_keys = g->prefix_len + tail_of(g, r);

        inverse[r] = softmax(w->score + r * w->ld_score, g->bias ? g->bias - (n_keys - 1) : NULL, n_keys, 0);
    }
    (half ? sum_values_bf16 : sum_values_f32)(g, w, 0, whole / LANES, 0);
    if (rest) /* the last vector overlaps the one before, so it is stored separately */
        (half ? sum_values_bf16 : sum_values_f32)(g, w, g->head_dim - LANES, 1, whole);
    for (int r = 0; r < g->n_rows; r++) {
        const float *sum = w->out + r * w->ld_out;

        for (int d = 0; d < whole; d += LANES)
            cpu_store_act(g->out, r * g->ld_out + d, cpu_load(sum + d) * cpu_set(inverse[r]), half);
        for (int d = whole; d < g->head_dim; d++)
            cpu_put_act(g->out, r * g->ld_out + d, sum[d + LANES - rest] * inverse[r], half);
    }
}

CPU_INLINE int64_t row_of_key(const struct cpu_group *g, int row, int key)
{
    return key < g->prefix_len ? g->prefix_start + key : g->tail[g->tail_start[row] + key - g->prefix_len];
}

/* Any head_dim, slowly: only tests have heads narrower than a vector. */
CPU_INLINE void attend_narrow(const struct cpu_group *g, const struct cpu_workspace *w, const bool half)
{
    for (int r = 0; r < g->n_rows; r++) {
        int n_keys = g->prefix_len + tail_of(g, r);
        float inverse;

        for (int j = 0; j < n_keys; j++) {
            int64_t k = row_of_key(g, r, j) * g->ld_k;
            float dot = 0;

            for (int d = 0; d < g->head_dim; d++)
                dot += cpu_get_act(g->q, r * g->ld_q + d, half) * cpu_get_act(g->k, k + d, half);
            w->score[j] = dot * g->scale;
        }
        inverse = softmax(w->score, g->bias ? g->bias - (n_keys - 1) : NULL, n_keys, 0);
        for (int d = 0; d < g->head_dim; d++) {
            float sum = 0;

            for (int j = 0; j < n_keys; j++)
                sum += w->score[j] * cpu_get_act(g->v, row_of_key(g, r, j) * g->ld_v + d, half);
            cpu_put_act(g->out, r * g->ld_out + d, sum * inverse, half);
        }
    }
}

CPU_KERNEL void attend_group_f32(const struct cpu_group *g, const struct cpu_workspace *w)
{
    if (g->head_dim >= CPU_LANES)
        attend_group(g, w, false);
    else
        attend_narrow(g, w, false);
}

CPU_KERNEL void attend_group_bf16(const struct cpu_group *g, const struct cpu_workspace *w)
{
    if (g->head_dim >= CPU_LANES)
        attend_group(g, w, true);
    else
        attend_narrow(g, w, true);
}

#endif
