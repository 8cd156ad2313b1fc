/* cpu_pool.h - a thread pool that runs the pieces of one call.
 *
 * The caller works too, and waits only for pieces that another thread has begun: a sleeping or preempted thread delays
 * no call. (OpenMP waits for every thread of a team, which on a busy machine costs a time slice per product.) Helper
 * threads spin for tens of microseconds after a call, because the next product of a decode step follows soon, and then
 * sleep. They block all signals.
 *
 * Who may call: one thread.
 * Memory: cpu_pool_free ends the threads.
 * Errors: -ENOMEM, -EAGAIN (no thread could be created). */
#ifndef BLIPLINE_TENSOR_CPU_POOL_H
#define BLIPLINE_TENSOR_CPU_POOL_H

#include "base/err.h"

#include <stdint.h>

enum { CPU_POOL_MAX_PIECES = 32768 };

struct cpu_pool;

/* Runs one piece, 0 .. n_pieces-1; `thread`, 0 .. n_threads-1, selects the scratch. */
typedef void cpu_pool_fn(void *arg, int64_t piece, int thread);

/* n_threads >= 1 includes the caller. */
int cpu_pool_new(int n_threads, struct cpu_pool **ret, struct err *err) CHECK_RESULT;
void cpu_pool_free(struct cpu_pool *p);
/* Runs each piece once, on any thread; returns when all are done. n_pieces <= CPU_POOL_MAX_PIECES. */
void cpu_pool_run(struct cpu_pool *p, int64_t n_pieces, cpu_pool_fn *fn, void *arg);

#endif
