/* fma_peak.h - fused multiply-adds that nothing holds up: the limit of any product in f32.
 *
 * Who may call: benchmarks. Units: floating-point operations, all threads together; a multiply-add is two.
 * Memory: none. Errors: none; without AVX2 and FMA a run does nothing, 0 operations. */
#ifndef BLIPLINE_BENCH_FMA_PEAK_H
#define BLIPLINE_BENCH_FMA_PEAK_H

/* What a run computes: some tenths of a millisecond. */
double bench_fma_flop(int n_threads);
/* int *n_threads: each busy at the same time. */
void bench_fma_run(void *n_threads);

#endif
