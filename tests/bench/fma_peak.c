#include "tests/bench/fma_peak.h"

#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Twelve sums, as a tile of a product has them: more than latency times the adders of any processor here. The empty asm
 * keeps them in registers and the compiler from knowing what they become. */
enum { STEPS = 50000, SUMS = 12 };

#if defined(__x86_64__)
#define FMA_LOOP(name, isa, type, set, fmadd)                                                    \
    __attribute__((target(isa))) static void name(void)                                          \
    {                                                                                            \
        type s0 = set(0.1f), s1 = s0, s2 = s0, s3 = s0, s4 = s0;                                 \
        type s5 = s0, s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0;                              \
        type s11 = s0, x = set(0.999f), y = set(1e-3f);                                          \
                                                                                                 \
        for (int i = 0; i < STEPS; i++) {                                                        \
            s0 = fmadd(s0, x, y);                                                                \
            s1 = fmadd(s1, x, y);                                                                \
            s2 = fmadd(s2, x, y);                                                                \
            s3 = fmadd(s3, x, y);                                                                \
            s4 = fmadd(s4, x, y);                                                                \
            s5 = fmadd(s5, x, y);                                                                \
            s6 = fmadd(s6, x, y);                                                                \
            s7 = fmadd(s7, x, y);                                                                \
            s8 = fmadd(s8, x, y);                                                                \
            s9 = fmadd(s9, x, y);                                                                \
            s10 = fmadd(s10, x, y);                                                              \
            s11 = fmadd(s11, x, y);                                                              \
            __asm__ volatile("" : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "+x"(s4), "+x"(s5));   \
            __asm__ volatile("" : "+x"(s6), "+x"(s7), "+x"(s8), "+x"(s9), "+x"(s10), "+x"(s11)); \
        }                                                                                        \
    }
FMA_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)
FMA_LOOP(fma_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps)
#endif

#if defined(__x86_64__)
static int lanes(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return 16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 0;
}
#endif

double bench_fma_flop(int n_threads)
{
#if defined(__x86_64__)
    return 2.0 * STEPS * SUMS * lanes() * n_threads;
#else
    (void)n_threads;
    return 0;
#endif
}

void bench_fma_run(void *n_threads)
{
#if defined(__x86_64__)
#pragma omp parallel num_threads(*(const int *)n_threads)
    {
        if (lanes() == 16)
            fma_avx512();
        else if (lanes() == 8)
            fma_avx2();
    }
#else
    (void)n_threads;
#endif
}
