#include "tests/bench/products.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tensor/cpu_matmul.h"

static const int64_t measure_ns = 50 * 1000 * 1000;

double bench_best_ns(void (*f)(void *context), void *context)
{
    int64_t best = INT64_MAX, spent = 0;

    f(context); /* makes primitives, touches memory */
    for (int i = 0; i < 3 || spent < measure_ns; i++) {
        int64_t start = clock_mono_ns(), ns;

        f(context);
        ns = clock_mono_ns() - start;
        best = ns < best ? ns : best;
        spent += ns;
    }
    return (double)best;
}

struct product {
    struct cpu_matmul *matmul;
    struct cpu_matmul_args args;
};

static void run_product(void *context)
{
    struct product *p = context;

    if (cpu_matmul_run(p->matmul, &p->args) < 0) {
        fprintf(stderr, "bench: oneDNN failed\n");
        exit(EXIT_FAILURE);
    }
}

static void *values(enum dtype dtype, int64_t n)
{
    const size_t bytes = (size_t)n * dtype_size_bytes(dtype);
    unsigned char *x = aligned_alloc(64, (bytes + 64) / 64 * 64);

    if (!x) {
        fprintf(stderr, "bench: out of memory\n");
        exit(EXIT_FAILURE);
    }
    for (int64_t i = 0; i < n; i++) {
        const float value = (float)(i % 17) * 0.1f - 0.8f;

        tensor_from_f32(x + (size_t)i * dtype_size_bytes(dtype), dtype, &value, 1);
    }
    return x;
}

double bench_product_dtype_ns(enum dtype dtype, int n_threads, int64_t m, int64_t n, int64_t k)
{
    void *x = values(dtype, m * k), *w = values(dtype, n * k), *y = values(dtype, m * n);
    struct product p = {.args = {.n_rows = m, .x = x, .ld_x = k, .y = y, .ld_y = n, .n_threads = n_threads}};
    struct err err;
    double ns;

    if (cpu_matmul_new(dtype, &p.matmul, &err) < 0 ||
        cpu_packed_new(p.matmul, n, k, w, NULL, n_threads, &p.args.weight, &err) < 0) {
        fprintf(stderr, "bench: %s\n", err.text);
        exit(EXIT_FAILURE);
    }
    ns = bench_best_ns(run_product, &p);
    cpu_packed_free(p.args.weight);
    cpu_matmul_free(p.matmul);
    free(x);
    free(w);
    free(y);
    return ns;
}

double bench_product_ns(int n_threads, int64_t m, int64_t n, int64_t k)
{
    return bench_product_dtype_ns(DTYPE_F32, n_threads, m, n, k);
}

double bench_attention_products_ns(int n_threads, int64_t n_seqs, int n_heads, int head_dim, int64_t q, int64_t kv)
{
    double one_head = bench_product_ns(1, q, kv, head_dim) + bench_product_ns(1, q, head_dim, kv);

    return one_head * (double)n_seqs * n_heads / n_threads;
}
