/* fma_peak.h - how many fused multiply-adds the cores do when nothing else holds them up: the limit of any product in f32.
 *
 * Who may call: benchmarks. Units: 10^9 floating-point operations a second, all threads together; a multiply-add is two.
 * Memory: none. Errors: none; without AVX2 and FMA there is no answer, 0. */
#ifndef BLIPLINE_BENCH_FMA_PEAK_H
#define BLIPLINE_BENCH_FMA_PEAK_H

/* The best of some runs of a few milliseconds, each thread busy at the same time. */
double bench_fma_peak_gflops(int n_threads);

#endif
