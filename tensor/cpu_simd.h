/* cpu_simd.h - float vectors as wide as the instruction set has, for loops that are compiled once per set.
 *
 * gcc compiles a vector operation for the instruction set in force where a function is defined, not where it is
 * inlined, so include this header after `#pragma GCC target`.
 * Who may call: the loops of cpu_kernels.h, from any thread.
 * Units: none.
 * Memory: unaligned addresses are fine.
 * Errors: none. */
#ifndef BLIPLINE_TENSOR_CPU_SIMD_H
#define BLIPLINE_TENSOR_CPU_SIMD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "tensor/cpu_kernels.h"

#define CPU_INLINE static inline __attribute__((always_inline, unused))
#define CPU_KERNEL static __attribute__((unused)) /* referenced by the table */

#if defined(__AVX512F__)
enum { LANES = 16, LOG2_LANES = 4 };
#elif defined(__AVX2__)
enum { LANES = 8, LOG2_LANES = 3 };
#else
enum { LANES = 4, LOG2_LANES = 2 };
#endif
typedef float cpu_vec __attribute__((vector_size(LANES * 4)));
typedef int32_t cpu_ivec __attribute__((vector_size(LANES * 4)));

CPU_INLINE cpu_vec cpu_load(const float *p)
{
    cpu_vec v;

    memcpy(&v, p, sizeof(v));
    return v;
}

CPU_INLINE void cpu_store(float *p, cpu_vec v)
{
    memcpy(p, &v, sizeof(v));
}

/* Activations are f32 or bf16 (`half`). `half` is a compile-time constant wherever these are inlined. */
typedef uint32_t cpu_uvec __attribute__((vector_size(LANES * 4)));
typedef uint16_t cpu_hvec __attribute__((vector_size(LANES * 2)));

CPU_INLINE const void *cpu_at(const void *p, int64_t i, const bool half)
{
    return (const unsigned char *)p + i * (half ? 2 : 4);
}

CPU_INLINE void *cpu_at_out(void *p, int64_t i, const bool half)
{
    return (unsigned char *)p + i * (half ? 2 : 4);
}

CPU_INLINE cpu_vec cpu_load_act(const void *p, int64_t i, const bool half)
{
    cpu_hvec h;

    if (!half)
        return cpu_load((const float *)p + i);
    memcpy(&h, (const uint16_t *)p + i, sizeof(h));
    return (cpu_vec)(__builtin_convertvector(h, cpu_uvec) << 16);
}

/* bf16: rounded to nearest even, NaN stays NaN. */
CPU_INLINE void cpu_store_act(void *p, int64_t i, cpu_vec v, const bool half)
{
    cpu_uvec bits = (cpu_uvec)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    cpu_uvec is_nan = (cpu_uvec)((bits & 0x7fffffff) > 0x7f800000);
    cpu_hvec h;

    if (!half) {
        cpu_store((float *)p + i, v);
        return;
    }
    h = __builtin_convertvector((is_nan & (bits >> 16 | 0x40)) | (~is_nan & rounded), cpu_hvec);
    memcpy((uint16_t *)p + i, &h, sizeof(h));
}

CPU_INLINE float cpu_get_act(const void *p, int64_t i, const bool half)
{
    uint32_t bits;
    float x;

    if (!half)
        return ((const float *)p)[i];
    bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

CPU_INLINE void cpu_put_act(void *p, int64_t i, float x, const bool half)
{
    uint32_t bits;

    if (!half) {
        ((float *)p)[i] = x;
        return;
    }
    memcpy(&bits, &x, sizeof(bits));
    ((uint16_t *)p)[i] =
        (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

CPU_INLINE cpu_vec cpu_set(float x)
{
    return x - (cpu_vec){0}; /* gcc compiles this to one broadcast, a list to sixteen inserts */
}

/* a * b + c, fused if the instruction set can. Left alone, gcc 14 fuses it in one copy of a loop and not in another,
 * and then a row's bits depend on the number of rows. */
CPU_INLINE cpu_vec cpu_madd(cpu_vec a, cpu_vec b, cpu_vec c)
{
#if defined(__AVX512F__)
    return (cpu_vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (cpu_vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (cpu_vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

CPU_INLINE cpu_vec cpu_select(cpu_ivec mask, cpu_vec yes, cpu_vec no)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    return (cpu_vec)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
#else
    return (cpu_vec)((mask & (cpu_ivec)yes) | (~mask & (cpu_ivec)no));
#endif
}

/* a > b ? a : b, and a < b ? a : b; returns b if either is NaN. */
CPU_INLINE cpu_vec cpu_max(cpu_vec a, cpu_vec b)
{
#if defined(__AVX512F__)
    return (cpu_vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (cpu_vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return cpu_select(a > b, a, b);
#endif
}

CPU_INLINE cpu_vec cpu_min(cpu_vec a, cpu_vec b)
{
#if defined(__AVX512F__)
    return (cpu_vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (cpu_vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return cpu_select(a < b, a, b);
#endif
}

CPU_INLINE cpu_vec cpu_abs(cpu_vec x)
{
    return (cpu_vec)((cpu_ivec)x & 0x7fffffff);
}

/* Loads the first n of LANES values, padded with zeros. */
CPU_INLINE cpu_vec cpu_load_some(const void *p, int64_t i, int n, const bool half)
{
    float lane[LANES] = {0};

    if (n >= LANES)
        return cpu_load_act(p, i, half);
    for (int j = 0; j < n; j++)
        lane[j] = cpu_get_act(p, i + j, half);
    return cpu_load(lane);
}

/* The order of additions is part of the result, so it is fixed here. */
CPU_INLINE float cpu_sum_lanes(cpu_vec v)
{
    float lane[LANES];

    memcpy(lane, &v, sizeof(v));
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lane[i] += lane[i + n];
    return lane[0];
}

CPU_INLINE float cpu_max_lanes(cpu_vec v)
{
    float lane[LANES];

    memcpy(lane, &v, sizeof(v));
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lane[i] = lane[i + n] > lane[i] ? lane[i + n] : lane[i];
    return lane[0];
}

/* e^x for x <= 0 (NaN stays NaN) within 1.5 ulp; results below the smallest normal number are 0. x = n ln 2 + r with
 * ln 2 in two parts, then a polynomial on |r| <= ln(2)/2. */
CPU_INLINE cpu_vec cpu_exp_nonpositive(cpu_vec x)
{
    const cpu_vec round = cpu_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    cpu_vec shifted = cpu_madd(x, cpu_set(1.44269504f), round);
    cpu_vec n = shifted - round;
    cpu_vec r = cpu_madd(n, cpu_set(-1.42860677e-6f), cpu_madd(n, cpu_set(-0.693145752f), x));
    cpu_vec p = cpu_set(1.9875691500e-4f);
    cpu_ivec exponent = ((cpu_ivec)shifted - (cpu_ivec)round + 127) << 23;

    p = cpu_madd(p, r, cpu_set(1.3981999507e-3f));
    p = cpu_madd(p, r, cpu_set(8.3334519073e-3f));
    p = cpu_madd(p, r, cpu_set(4.1665795894e-2f));
    p = cpu_madd(p, r, cpu_set(1.6666665459e-1f));
    p = cpu_madd(p, r, cpu_set(5.0000001201e-1f));
    p = cpu_madd(p * r, r, r) + cpu_set(1.0f);
    return (cpu_vec)(~(x < cpu_set(-87.3365f)) & (cpu_ivec)(p * (cpu_vec)exponent));
}

/* The activations of enum ops_act. NaN stays NaN. -inf, which each would turn into 0, becomes NaN, so that weights
 * that are not finite show in the result. */
CPU_INLINE cpu_vec cpu_relu(cpu_vec x)
{
    return cpu_select(x > cpu_set(0), x, x * cpu_set(0));
}

/* x / (1 + e^(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3) is 0.5 x (1 + tanh(u)) without its cancellation. */
CPU_INLINE cpu_vec cpu_gelu_tanh(cpu_vec x)
{
    cpu_vec u2 = x * cpu_madd(cpu_set(0.0713548163f) * x, x, cpu_set(1.59576912f));
    cpu_vec e = cpu_exp_nonpositive(-cpu_abs(u2));

    return x * cpu_select(u2 > cpu_set(0), cpu_set(1), e) / (cpu_set(1) + e);
}

/* x (1/2 + x r(x^2)): x r(x^2) is erf(x / sqrt 2) / 2 as a minimax quotient of two polynomials up to |x| = 5.5,
 * where erf rounds to 1. Within 1.9e-7 |x|: about two ulp except near 0. Below -5.5 the result is 0, for -inf NaN. */
CPU_INLINE cpu_vec cpu_gelu_erf(cpu_vec x)
{
    cpu_vec a = cpu_min(cpu_set(5.5f), cpu_max(cpu_set(-5.5f), x)), s = a * a;
    cpu_vec p = cpu_set(2.2749342e-8f), q = cpu_set(1.19749996e-6f);

    p = cpu_madd(p, s, cpu_set(6.35207425e-6f));
    q = cpu_madd(q, s, cpu_set(7.36467191e-5f));
    p = cpu_madd(p, s, cpu_set(1.68823724e-4f));
    q = cpu_madd(q, s, cpu_set(1.88443391e-3f));
    p = cpu_madd(p, s, cpu_set(4.67724865e-3f));
    q = cpu_madd(q, s, cpu_set(2.86457762e-2f));
    p = cpu_madd(p, s, cpu_set(3.38524915e-2f));
    q = cpu_madd(q, s, cpu_set(2.51521528e-1f));
    p = cpu_madd(p, s, cpu_set(3.98942232e-1f));
    q = cpu_madd(q, s, cpu_set(1));
    return x * cpu_max(cpu_set(0), cpu_madd(a, p / q, cpu_set(0.5f)));
}

/* Interleaves the lower (or upper) half of both: a[0] b[0] a[1] b[1] and so on. */
#if defined(__AVX512F__)
#define CPU_ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define CPU_ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__)
#define CPU_ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define CPU_ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define CPU_ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define CPU_ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* Transposes LANES x LANES: each round interleaves row i with row i + LANES / 2. */
CPU_INLINE void cpu_transpose(cpu_vec row[LANES])
{
#pragma GCC unroll 4
    for (int round = 0; round < LOG2_LANES; round++) {
        cpu_vec from[LANES];

#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            from[i] = row[i];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            row[2 * i] = CPU_ZIP_LOW(from[i], from[i + LANES / 2]);
            row[2 * i + 1] = CPU_ZIP_HIGH(from[i], from[i + LANES / 2]);
        }
    }
}

#endif
