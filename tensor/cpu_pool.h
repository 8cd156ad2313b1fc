/* cpu_pool.h - threads that share out the pieces of one call.
 *
 * The caller works too, and waits only for pieces that another thread has begun: a thread that sleeps, or that the
 * kernel has given to another process, holds nobody up. (OpenMP's teams wait for every member, which on a busy machine
 * costs a time slice for each product.) Helpers stay awake for some tens of microseconds after a call, since the next
 * one of a decode step is that near, and then sleep. They take no signals.
 *
 * Who may call: one thread.
 * Memory: cpu_pool_free ends the threads.
 * Errors: -ENOMEM, -EAGAIN (no thread to be had). */
#ifndef BLIPLINE_TENSOR_CPU_POOL_H
#define BLIPLINE_TENSOR_CPU_POOL_H

#include "base/err.h"

#include <stdint.h>

enum { CPU_POOL_MAX_PIECES = 32768 };

struct cpu_pool;

/* One piece, 0 .. n_pieces-1; `thread` 0 .. n_threads-1 says whose scratch to use. */
typedef void cpu_pool_fn(void *arg, int64_t piece, int thread);

/* n_threads >= 1, the caller among them. */
int cpu_pool_new(int n_threads, struct cpu_pool **ret, struct err *err) CHECK_RESULT;
void cpu_pool_free(struct cpu_pool *p);
/* All pieces, each once, by any of the threads; returns when all are done. n_pieces: at most CPU_POOL_MAX_PIECES. */
void cpu_pool_run(struct cpu_pool *p, int64_t n_pieces, cpu_pool_fn *fn, void *arg);

#endif
