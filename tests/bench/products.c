#include "tests/bench/products.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tensor/cpu_matmul.h"
#include "tensor/ops.h"

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

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void bench_in_turn(struct bench_turn *turns, int n)
{
    enum { LEAST = 15, MOST = 200 };
    const int64_t pause_ns = 10 * 1000 * 1000; /* the threads of the last one stop spinning */
    static double ns[BENCH_TURNS][MOST];
    int64_t spent = 0;
    int rounds = 0;

    for (int i = 0; i < n; i++)
        turns[i].run(turns[i].context);
    for (; rounds < LEAST || (rounds < MOST && spent < n * measure_ns); rounds++)
        for (int i = 0; i < n; i++) {
            int64_t start;

            for (start = clock_mono_ns();
                 clock_mono_ns() < start + pause_ns;) /* asleep it would share a core with them */
                ;
            turns[i].run(turns[i].context); /* wakes its threads */
            start = clock_mono_ns();
            turns[i].run(turns[i].context);
            ns[i][rounds] = (double)(clock_mono_ns() - start);
            spent += (int64_t)ns[i][rounds];
        }
    for (int i = 0; i < n; i++) {
        qsort(ns[i], (size_t)rounds, sizeof(double), compare);
        turns[i].ns = ns[i][rounds / 2];
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

struct bench_product {
    struct ops *ops;
    struct cpu_matmul *matmul;
    struct ops_linear_args linear;
    struct cpu_matmul_args args;
    struct ops_weight *weight;
    void *x, *w, *y;
};

static void check(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench: %s\n", err->text);
    exit(EXIT_FAILURE);
}

static struct bench_product *product_new(enum dtype dtype, int64_t m, int64_t n, int64_t k)
{
    struct bench_product *p = calloc(1, sizeof(*p));

    check(p ? 0 : -1, &(struct err){.text = "out of memory"});
    p->x = values(dtype, m * k);
    p->w = values(dtype, n * k);
    p->y = values(dtype, m * n);
    return p;
}

struct bench_product *bench_product_new(enum dtype dtype, int n_threads, int64_t m, int64_t n, int64_t k)
{
    struct bench_product *p = product_new(dtype, m, n, k);
    const struct tensor weight = {.dtype = dtype, .n_dims = 2, .shape = {n, k}, .data = p->w};
    struct err err;

    check(ops_cpu_new(n_threads, dtype, CPU_ISA_AUTO, &p->ops, &err), &err);
    check(p->ops->f->weight_new(p->ops, &(struct ops_weight_part){&weight, NULL}, 1, 0, &p->weight, &err), &err);
    p->linear = (struct ops_linear_args){.weight = p->weight, .n_rows = m, .x = p->x, .ld_x = k, .y = p->y, .ld_y = n};
    return p;
}

struct bench_product *bench_onednn_new(int n_threads, int64_t m, int64_t n, int64_t k, enum ops_act act, bool add_to_y)
{
    struct bench_product *p = product_new(DTYPE_F32, m, n, k);
    struct err err;

    p->args = (struct cpu_matmul_args){.n_rows = m,
                                       .x = p->x,
                                       .ld_x = k,
                                       .y = p->y,
                                       .ld_y = n,
                                       .act = act,
                                       .add_to_y = add_to_y,
                                       .n_threads = n_threads};
    check(cpu_matmul_new(DTYPE_F32, &p->matmul, &err), &err);
    check(cpu_packed_new(p->matmul, n, k, p->w, p->w, n_threads, &p->args.weight, &err), &err);
    return p;
}

void bench_product_run(void *product)
{
    struct bench_product *p = product;

    check(p->matmul ? cpu_matmul_run(p->matmul, &p->args) : p->ops->f->linear(p->ops, &p->linear),
          &(struct err){.text = "a product failed"});
}

void bench_product_free(struct bench_product *p)
{
    if (p->matmul) {
        cpu_packed_free(p->args.weight);
        cpu_matmul_free(p->matmul);
    } else {
        p->ops->f->weight_free(p->ops, p->weight);
        ops_free(p->ops);
    }
    free(p->x);
    free(p->w);
    free(p->y);
    free(p);
}

double bench_product_dtype_ns(enum dtype dtype, int n_threads, int64_t m, int64_t n, int64_t k)
{
    struct bench_product *p = bench_product_new(dtype, n_threads, m, n, k);
    const double ns = bench_best_ns(bench_product_run, p);

    bench_product_free(p);
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
