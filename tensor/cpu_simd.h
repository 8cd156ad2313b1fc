/* cpu_simd.h - sixteen floats at a time, for loops that are compiled once for each instruction set.
 *
 * gcc splits the vectors where the registers are narrower. It does that early, by the instruction set that is in force at
 * a function's definition, so this header comes after `#pragma GCC target` in the file that uses it.
 * Who may call: the loops of cpu_kernels.h, from any thread. Units: none. Memory: unaligned addresses are fine. Errors: none. */
#ifndef BLIPLINE_TENSOR_CPU_SIMD_H
#define BLIPLINE_TENSOR_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#include "tensor/cpu_kernels.h"

#define CPU_INLINE static inline __attribute__((always_inline, unused))
#define CPU_KERNEL static __attribute__((unused)) /* goes into the table */

typedef float cpu_v16 __attribute__((vector_size(64)));
typedef int32_t cpu_i16 __attribute__((vector_size(64)));

CPU_INLINE cpu_v16 cpu_load(const float *p)
{
    cpu_v16 v;

    memcpy(&v, p, sizeof(v));
    return v;
}

CPU_INLINE void cpu_store(float *p, cpu_v16 v)
{
    memcpy(p, &v, sizeof(v));
}

CPU_INLINE cpu_v16 cpu_set(float x)
{
    return x - (cpu_v16){0}; /* gcc makes one broadcast of this, but sixteen inserts of a list */
}

CPU_INLINE cpu_v16 cpu_select(cpu_i16 mask, cpu_v16 yes, cpu_v16 no)
{
    return (cpu_v16)((mask & (cpu_i16)yes) | (~mask & (cpu_i16)no));
}

CPU_INLINE cpu_v16 cpu_max(cpu_v16 a, cpu_v16 b)
{
    return cpu_select(a > b, a, b);
}

/* The order of additions is part of the result, so it is fixed here. */
CPU_INLINE float cpu_sum_lanes(cpu_v16 v)
{
    float lane[CPU_LANES];

    memcpy(lane, &v, sizeof(v));
    for (int n = CPU_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lane[i] += lane[i + n];
    return lane[0];
}

CPU_INLINE float cpu_max_lanes(cpu_v16 v)
{
    float lane[CPU_LANES];

    memcpy(lane, &v, sizeof(v));
    for (int n = CPU_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lane[i] = lane[i + n] > lane[i] ? lane[i + n] : lane[i];
    return lane[0];
}

/* e^x for x <= 0 (or NaN, which stays NaN) within 1.5 ulp; below the smallest normal number it is 0.
 * x = n ln 2 + r with ln 2 in two parts, then a polynomial on |r| <= ln(2)/2. */
CPU_INLINE cpu_v16 cpu_exp_nonpositive(cpu_v16 x)
{
    const cpu_v16 round = cpu_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    cpu_v16 shifted = x * cpu_set(1.44269504f) + round;
    cpu_v16 n = shifted - round;
    cpu_v16 r = (x - n * cpu_set(0.693145752f)) - n * cpu_set(1.42860677e-6f);
    cpu_v16 p = cpu_set(1.9875691500e-4f);
    cpu_i16 exponent = ((cpu_i16)shifted - (cpu_i16)round + 127) << 23;

    p = p * r + cpu_set(1.3981999507e-3f);
    p = p * r + cpu_set(8.3334519073e-3f);
    p = p * r + cpu_set(4.1665795894e-2f);
    p = p * r + cpu_set(1.6666665459e-1f);
    p = p * r + cpu_set(5.0000001201e-1f);
    p = (p * r) * r + r + cpu_set(1.0f);
    return cpu_select(x < cpu_set(-87.3365f), cpu_set(0.0f), p * (cpu_v16)exponent);
}

/* Four rounds of interleaving row i with row i + 8 transpose a 16 x 16 block. */
CPU_INLINE void cpu_transpose(cpu_v16 row[CPU_LANES])
{
    const cpu_i16 low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    const cpu_i16 high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    cpu_v16 other[CPU_LANES];

#pragma GCC unroll 2
    for (int round = 0; round < 2; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < CPU_LANES / 2; i++) {
            other[2 * i] = __builtin_shuffle(row[i], row[i + 8], low);
            other[2 * i + 1] = __builtin_shuffle(row[i], row[i + 8], high);
        }
#pragma GCC unroll 8
        for (int i = 0; i < CPU_LANES / 2; i++) {
            row[2 * i] = __builtin_shuffle(other[i], other[i + 8], low);
            row[2 * i + 1] = __builtin_shuffle(other[i], other[i + 8], high);
        }
    }
}

#endif
