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

/* The product's arrays, and who multiplies them. */
struct product {
    struct ops *ops;
    struct cpu_matmul *matmul;
    struct ops_linear_args linear;
    struct cpu_matmul_args args;
};

static void check(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench: %s\n", err->text);
    exit(EXIT_FAILURE);
}

static void run_product(void *context)
{
    struct product *p = context;

    check(p->ops->f->linear(p->ops, &p->linear), &(struct err){.text = "a product failed"});
}

static void run_onednn(void *context)
{
    struct product *p = context;

    check(cpu_matmul_run(p->matmul, &p->args), &(struct err){.text = "oneDNN failed"});
}

double bench_product_dtype_ns(enum dtype dtype, int n_threads, int64_t m, int64_t n, int64_t k)
{
    void *x = values(dtype, m * k), *w = values(dtype, n * k), *y = values(dtype, m * n);
    const struct tensor weight = {.dtype = dtype, .n_dims = 2, .shape = {n, k}, .data = w};
    struct product p = {.linear = {.n_rows = m, .x = x, .ld_x = k, .y = y, .ld_y = n}};
    struct ops_weight *packed;
    struct err err;
    double ns;

    check(ops_cpu_new(n_threads, dtype, CPU_ISA_AUTO, &p.ops, &err), &err);
    check(p.ops->f->weight_new(p.ops, &(struct ops_weight_part){&weight, NULL}, 1, 0, &packed, &err), &err);
    p.linear.weight = packed;
    ns = bench_best_ns(run_product, &p);
    p.ops->f->weight_free(p.ops, packed);
    ops_free(p.ops);
    free(x);
    free(w);
    free(y);
    return ns;
}

double bench_onednn_ns(int n_threads, int64_t m, int64_t n, int64_t k, enum ops_act act, bool add_to_y)
{
    float *x = values(DTYPE_F32, m * k), *w = values(DTYPE_F32, n * k), *y = values(DTYPE_F32, m * n);
    struct product p = {.args = {.n_rows = m,
                                 .x = x,
                                 .ld_x = k,
                                 .y = y,
                                 .ld_y = n,
                                 .act = act,
                                 .add_to_y = add_to_y,
                                 .n_threads = n_threads}};
    struct err err;
    double ns;

    check(cpu_matmul_new(DTYPE_F32, &p.matmul, &err), &err);
    check(cpu_packed_new(p.matmul, n, k, w, w, n_threads, &p.args.weight, &err), &err);
    ns = bench_best_ns(run_onednn, &p);
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
