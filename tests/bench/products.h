/* products.h - how fast this machine multiplies: the ceiling that stages are measured against.
 *
 * A stage's ceiling is the sum over its distinct products of count x bench_product_ns, attention's two included
 * (bench_attention_products_ns): packed weights, the products that the CPU operators use, the same threads, nothing
 * fused.
 *
 * Who may call: benchmarks, one thread.
 * Units:  nanoseconds of wall time, the best of repeated runs that last about 50 ms together; shapes in elements.
 * Memory: allocated and freed inside. Errors: prints and ends the program. */
#ifndef BLIPLINE_BENCH_PRODUCTS_H
#define BLIPLINE_BENCH_PRODUCTS_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/ops.h"
#include "tensor/tensor.h"

/* [m, k] times the transpose of packed [n, k]; f32, or all of it in F32 or BF16. */
double bench_product_ns(int n_threads, int64_t m, int64_t n, int64_t k);
double bench_product_dtype_ns(enum dtype dtype, int n_threads, int64_t m, int64_t n, int64_t k);
/* Both products of every head: [q, D] x [D, kv] and [q, kv] x [kv, D], each head on one thread, the threads evenly
 * busy. */
double bench_attention_products_ns(int n_threads, int64_t n_seqs, int n_heads, int head_dim, int64_t q, int64_t kv);
/* Runs f(context) until it has taken 50 ms and three times at least; the shortest. */
double bench_best_ns(void (*f)(void *context), void *context);

/* One product, to be run in turn with others. Owned by the caller until bench_product_free. */
struct bench_product;
struct bench_product *bench_product_new(enum dtype dtype, int n_threads, int64_t m, int64_t n, int64_t k);
/* In f32 by oneDNN with packed weights, whether or not the operators use it here; with a bias, and what else is
 * fused. */
struct bench_product *bench_onednn_new(int n_threads, int64_t m, int64_t n, int64_t k, enum ops_act act, bool add_to_y);
void bench_product_run(void *product);
void bench_product_free(struct bench_product *p);

/* What is compared runs in turn, fifteen times at least, so that a machine whose speed changes is slow for all
 * alike. */
enum { BENCH_TURNS = 4 };
struct bench_turn {
    void (*run)(void *context);
    void *context;
    double ns; /* the median, set by bench_in_turn */
};
void bench_in_turn(struct bench_turn *turns, int n);

#endif
