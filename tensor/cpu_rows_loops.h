/* cpu_rows_loops.h - norms, gates, and reductions over a row of logits for sampling.
 *
 * Who may call: cpu_kernels_X.c includes it, after its #pragma GCC target. Units, Memory, Errors: cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_ROWS_LOOPS_H
#define BLIPLINE_TENSOR_CPU_ROWS_LOOPS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tensor/cpu_simd.h"
#include "tensor/ops.h"

CPU_INLINE float sum_of(const void *x, int64_t n, const bool half)
{
    cpu_vec sum[4] = {{0}};
    float tail = 0;
    int64_t i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++)
            sum[j] += cpu_load_act(x, i + j * LANES, half);
    for (; i + LANES <= n; i += LANES)
        sum[0] += cpu_load_act(x, i, half);
    for (; i < n; i++)
        tail += cpu_get_act(x, i, half);
    return cpu_sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

CPU_INLINE float sum_of_squares(const void *x, int64_t n, float mean, const bool half)
{
    cpu_vec sum[4] = {{0}}, m = cpu_set(mean);
    float tail = 0;
    int64_t i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++) {
            cpu_vec d = cpu_load_act(x, i + j * LANES, half) - m;

            sum[j] += d * d;
        }
    for (; i + LANES <= n; i += LANES) {
        cpu_vec d = cpu_load_act(x, i, half) - m;

        sum[0] += d * d;
    }
    for (; i < n; i++) {
        float d = cpu_get_act(x, i, half) - mean;

        tail += d * d;
    }
    return cpu_sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

CPU_INLINE void norm_row(const void *x, const float *gamma, const float *beta, float eps, int64_t width, void *y,
                         const bool half)
{
    float mean = beta ? sum_of(x, width, half) / (float)width : 0;
    float variance = sum_of_squares(x, width, mean, half) / (float)width;
    float scale = 1 / sqrtf(variance + eps) + variance * 0; /* NaN, not 0, if the sum overflowed */
    cpu_vec m = cpu_set(mean), s = cpu_set(scale);
    int64_t i = 0;

    for (; i + LANES <= width; i += LANES) {
        cpu_vec v = (cpu_load_act(x, i, half) - m) * s * cpu_load(gamma + i);

        cpu_store_act(y, i, beta ? v + cpu_load(beta + i) : v, half);
    }
    for (; i < width; i++)
        cpu_put_act(y, i, (cpu_get_act(x, i, half) - mean) * scale * gamma[i] + (beta ? beta[i] : 0), half);
}

CPU_KERNEL void norm_row_f32(const void *x, const float *gamma, const float *beta, float eps, int64_t width, void *y)
{
    norm_row(x, gamma, beta, eps, width, y, false);
}

CPU_KERNEL void norm_row_bf16(const void *x, const float *gamma, const float *beta, float eps, int64_t width, void *y)
{
    norm_row(x, gamma, beta, eps, width, y, true);
}

CPU_INLINE cpu_vec gate_vector(cpu_vec x, cpu_vec up, const int act)
{
    if (act == OPS_ACT_GELU_TANH)
        x = cpu_gelu_tanh(x);
    else if (act == OPS_ACT_GELU_ERF)
        x = cpu_gelu_erf(x);
    else if (act == OPS_ACT_RELU)
        x = cpu_relu(x);
    return x * up;
}

CPU_INLINE void gate_with(const void *x, const void *up, const int act, int64_t n, void *y, const bool half)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        cpu_store_act(y, i, gate_vector(cpu_load_act(x, i, half), cpu_load_act(up, i, half), act), half);
    if (i < n) {
        cpu_vec last =
            gate_vector(cpu_load_some(x, i, (int)(n - i), half), cpu_load_some(up, i, (int)(n - i), half), act);
        float lane[LANES];

        cpu_store(lane, last);
        for (int64_t j = i; j < n; j++)
            cpu_put_act(y, j, lane[j - i], half);
    }
}

CPU_INLINE void gate_row(const void *x, const void *up, int act, int64_t n, void *y, const bool half)
{
    if (act == OPS_ACT_GELU_TANH)
        gate_with(x, up, OPS_ACT_GELU_TANH, n, y, half);
    else if (act == OPS_ACT_GELU_ERF)
        gate_with(x, up, OPS_ACT_GELU_ERF, n, y, half);
    else if (act == OPS_ACT_RELU)
        gate_with(x, up, OPS_ACT_RELU, n, y, half);
    else
        gate_with(x, up, OPS_ACT_NONE, n, y, half);
}

CPU_KERNEL void gate_row_f32(const void *x, const void *up, int act, int64_t n, void *y)
{
    gate_row(x, up, act, n, y, false);
}

CPU_KERNEL void gate_row_bf16(const void *x, const void *up, int act, int64_t n, void *y)
{
    gate_row(x, up, act, n, y, true);
}

CPU_KERNEL int64_t lane_maxima(const float *x, int64_t n, float *maxima, bool *ret_all_finite)
{
    const int64_t chunk = CPU_MAXIMA_VECTORS * LANES;
    cpu_ivec bad = {0};
    int64_t n_maxima = 0;
    bool all_finite = true;

    for (int64_t first = 0; first < n; first += chunk, n_maxima += LANES) {
        int64_t end = n - first < chunk ? n : first + chunk, i = first;
        cpu_vec largest = cpu_set(-HUGE_VALF);

        for (; i + LANES <= end; i += LANES) {
            const cpu_vec v = cpu_load(x + i);

            largest = cpu_max(v, largest);
            bad |= ((cpu_ivec)v & 0x7f800000) == 0x7f800000;
        }
        cpu_store(maxima + n_maxima, largest);
        for (int lane = 0; i < end; i++, lane++) {
            all_finite &= isfinite(x[i]) != 0;
            if (x[i] > maxima[n_maxima + lane])
                maxima[n_maxima + lane] = x[i];
        }
    }
    for (int i = 0; i < LANES; i++)
        all_finite &= bad[i] == 0;
    *ret_all_finite = all_finite;
    return n_maxima;
}

CPU_KERNEL double sum_exp(const float *x, int64_t n, float max)
{
    enum { BLOCK = 64 * LANES }; /* short float sums are added up in double */
    double total = 0;

    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK, j = i;
        cpu_vec sum = {0}, last = cpu_set(-HUGE_VALF);

        for (; j + LANES <= end; j += LANES)
            sum += cpu_exp_nonpositive(cpu_load(x + j) - cpu_set(max));
        memcpy(&last, x + j, (size_t)(end - j) * sizeof(float));
        if (j < end)
            sum += cpu_exp_nonpositive(last - cpu_set(max));
        total += (double)cpu_sum_lanes(sum);
    }
    return total;
}

CPU_KERNEL void exp_row(const float *x, int64_t n, float max, float *y)
{
    float lane[LANES];
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        cpu_store(y + i, cpu_exp_nonpositive(cpu_load(x + i) - cpu_set(max)));
    if (i < n) {
        cpu_store(lane, cpu_exp_nonpositive(cpu_load_some(x, i, (int)(n - i), false) - cpu_set(max)));
        memcpy(y + i, lane, (size_t)(n - i) * sizeof(float));
    }
}

#endif
