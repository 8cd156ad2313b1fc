/* cpu_tile.h - the inner loop of all products: a few rows times as many columns as registers hold.
 *
 * A panel is PANEL columns side by side, [n][PANEL], so that each step reads contiguous memory. The sums of a tile live
 * in registers: CPU_TILE_ROWS x AT_ONCE vectors are 24 of AVX-512's 32 and 12 of AVX2's 16, which leaves room for a row
 * of the panel and one value of a. Each sum is a chain of fused multiply-adds in the order of k, so a row's result does
 * not depend on its neighbours.
 *
 * Who may call: the loops of cpu_kernels.h. Units, Memory, Errors: cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_TILE_H
#define BLIPLINE_TENSOR_CPU_TILE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "tensor/cpu_kernels.h"
#include "tensor/cpu_simd.h"

enum {
#if defined(__AVX512F__)
    AT_ONCE = 4, /* vectors in a row of a tile */
#else
    AT_ONCE = 2,
#endif
    PANEL = AT_ONCE * LANES
};

/* The rows of b: consecutive, or those listed in `index`. */
struct tile_rows {
    const void *b;
    int64_t ld;
    const int32_t *index;
};

/* sum[rows][nv vectors] += a[rows, n] * b[n, nv vectors]; rows, nv, b.index != NULL and half (the type of b) are
 * constants at each call. */
CPU_INLINE void tile_sum(const int rows, const int nv, const float *a, int64_t ld_a, const struct tile_rows b,
                         int64_t n, const bool half, cpu_vec sum[CPU_TILE_ROWS][AT_ONCE])
{
    assert(rows <= CPU_TILE_ROWS && nv <= AT_ONCE);
    for (int64_t k = 0; k < n; k++) {
        const void *row = cpu_at(b.b, (b.index ? b.index[k] : k) * b.ld, half);
        cpu_vec column[AT_ONCE];

#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            column[j] = cpu_load_act(row, j * LANES, half);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            cpu_vec x = cpu_set(a[i * ld_a + k]);

#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                sum[i][j] = cpu_madd(x, column[j], sum[i][j]);
        }
    }
}

/* c[rows, nv vectors] (+)= a[rows, n] * b[n, nv vectors]. */
CPU_INLINE void tile(const int rows, const int nv, const float *a, int64_t ld_a, const struct tile_rows b, float *c,
                     int64_t ld_c, int64_t n, bool add, const bool half)
{
    cpu_vec sum[CPU_TILE_ROWS][AT_ONCE];

#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            sum[i][j] = add ? cpu_load(c + i * ld_c + j * LANES) : cpu_set(0);
    tile_sum(rows, nv, a, ld_a, b, n, half, sum);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            cpu_store(c + i * ld_c + j * LANES, sum[i][j]);
}

/* For any nv. */
CPU_INLINE void tile_any(const int rows, int nv, const float *a, int64_t ld_a, struct tile_rows b, float *c,
                         int64_t ld_c, int64_t n, bool add, const bool half)
{
    for (; nv >= AT_ONCE; nv -= AT_ONCE, b.b = cpu_at(b.b, AT_ONCE * LANES, half), c += AT_ONCE * LANES)
        tile(rows, AT_ONCE, a, ld_a, b, c, ld_c, n, add, half);
#if defined(__AVX512F__)
    if (nv == 3)
        tile(rows, 3, a, ld_a, b, c, ld_c, n, add, half);
    if (nv == 2)
        tile(rows, 2, a, ld_a, b, c, ld_c, n, add, half);
#endif
    if (nv == 1)
        tile(rows, 1, a, ld_a, b, c, ld_c, n, add, half);
}

#endif
