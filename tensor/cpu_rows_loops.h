/* cpu_rows_loops.h - norms and the best logit of one row.
 *
 * Who may call: cpu_kernels_X.c includes it, after its #pragma GCC target. Units, Memory, Errors: cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_ROWS_LOOPS_H
#define BLIPLINE_TENSOR_CPU_ROWS_LOOPS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tensor/cpu_simd.h"

CPU_INLINE float sum_of(const float *x, int64_t n)
{
    cpu_vec sum[4] = {{0}};
    float tail = 0;
    int64_t i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++)
            sum[j] += cpu_load(x + i + j * LANES);
    for (; i + LANES <= n; i += LANES)
        sum[0] += cpu_load(x + i);
    for (; i < n; i++)
        tail += x[i];
    return cpu_sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

CPU_INLINE float sum_of_squares(const float *x, int64_t n, float mean)
{
    cpu_vec sum[4] = {{0}}, m = cpu_set(mean);
    float tail = 0;
    int64_t i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++) {
            cpu_vec d = cpu_load(x + i + j * LANES) - m;

            sum[j] += d * d;
        }
    for (; i + LANES <= n; i += LANES) {
        cpu_vec d = cpu_load(x + i) - m;

        sum[0] += d * d;
    }
    for (; i < n; i++)
        tail += (x[i] - mean) * (x[i] - mean);
    return cpu_sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

CPU_KERNEL void norm_row(const float *x, const float *gamma, const float *beta, float eps, int64_t width, float *y)
{
    float mean = beta ? sum_of(x, width) / (float)width : 0;
    float scale = 1 / sqrtf(sum_of_squares(x, width, mean) / (float)width + eps);
    cpu_vec m = cpu_set(mean), s = cpu_set(scale);
    int64_t i = 0;

    for (; i + LANES <= width; i += LANES) {
        cpu_vec v = (cpu_load(x + i) - m) * s * cpu_load(gamma + i);

        cpu_store(y + i, beta ? v + cpu_load(beta + i) : v);
    }
    for (; i < width; i++)
        y[i] = (x[i] - mean) * scale * gamma[i] + (beta ? beta[i] : 0);
}

/* As in ref.c, a NaN is never larger, but it makes the probability NaN. */
CPU_KERNEL void argmax_row(const float *x, int64_t n, int32_t *ret_id, float *ret_logprob)
{
    enum { BLOCK = 64 * LANES }; /* float sums stay short, double takes them over */
    cpu_vec largest = cpu_set(x[0]);
    int64_t i = 0, id = 0;
    double total = 0;
    float max;

    for (; i + LANES <= n; i += LANES)
        largest = cpu_max(cpu_load(x + i), largest);
    max = cpu_max_lanes(largest);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    while (id < n && !(x[id] == max))
        id++;
    for (i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK, j = i;
        cpu_vec sum = {0}, last = cpu_set(-HUGE_VALF);

        for (; j + LANES <= end; j += LANES)
            sum += cpu_exp_nonpositive(cpu_load(x + j) - cpu_set(max));
        memcpy(&last, x + j, (size_t)(end - j) * sizeof(float));
        if (j < end)
            sum += cpu_exp_nonpositive(last - cpu_set(max));
        total += cpu_sum_lanes(sum);
    }
    *ret_id = id < n ? (int32_t)id : 0;
    *ret_logprob = (float)-log(total);
}

#endif
