#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/ops.h"
#include "tests/bench/products.h"

/* Operators of the CPU back end beside the bare products of the same shapes.
 * bench_ops [THREADS] [SECTION], SECTION: demo, decode, large. */

static struct ops *ops;
static int n_threads;

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "bench_ops: %s failed: %d\n", what, rc);
        exit(EXIT_FAILURE);
    }
}

static float *values(int64_t n)
{
    void *p;

    check(ops->f->alloc(ops, (size_t)n * sizeof(float), &p), "alloc");
    for (int64_t i = 0; i < n; i++)
        ((float *)p)[i] = sinf((float)(i % 1000));
    return p;
}

static void line(const char *what, const char *shape, double ns, double flop, double product_ns)
{
    printf("%-10s %-26s %10.1f us %8.1f GFLOP/s", what, shape, ns / 1e3, flop / ns);
    if (product_ns > 0)
        printf("  products %10.1f us, share %3.0f %%", product_ns / 1e3, 100 * product_ns / ns);
    printf("\n");
}

static void run_linear(void *context)
{
    check(ops->f->linear(ops, context), "linear");
}

static void run_norm(void *context)
{
    check(ops->f->norm(ops, context), "norm");
}

static void run_attention(void *context)
{
    check(ops->f->attention(ops, context), "attention");
}

static double linear(const char *what, int64_t m, int64_t n, int64_t k, enum ops_act act, bool residual)
{
    float *x = values(m * k), *y = values(m * n), *w = values(n * k), *b = values(n);
    struct tensor weight = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {n, k}, .data = w};
    struct tensor bias = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {n}, .data = b};
    struct ops_weight *packed;
    struct err err;
    char shape[64];
    double ns;

    check(ops->f->weight_new(ops, &(struct ops_weight_part){&weight, &bias}, 1, &packed, &err), "weight");
    struct ops_linear_args a = {
        .weight = packed, .n_rows = m, .x = x, .ld_x = k, .y = y, .ld_y = n, .act = act, .ld_residual = n};
    a.residual = residual ? y : NULL;
    ns = bench_best_ns(run_linear, &a);
    (void)snprintf(shape, sizeof(shape), "%lld x %lld x %lld%s", (long long)m, (long long)n, (long long)k,
                   act == OPS_ACT_GELU_ERF ? " gelu"
                   : act == OPS_ACT_RELU   ? " relu"
                   : residual              ? " +res"
                                           : "");
    line(what, shape, ns, 2.0 * m * n * k, bench_product_ns(n_threads, m, n, k));
    ops->f->weight_free(ops, packed);
    ops->f->release(ops, x);
    ops->f->release(ops, y);
    ops->f->release(ops, w);
    ops->f->release(ops, b);
    return ns;
}

static double norm(int64_t rows, int64_t width)
{
    float *x = values(rows * width), *y = values(rows * width), *g = values(width);
    struct tensor t = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {width}, .data = g};
    struct ops_norm_args a = {
        .n_rows = rows, .width = width, .x = x, .ld_x = width, .y = y, .ld_y = width, .eps = 1e-6f};
    struct ops_vector *v;
    struct err err;
    char shape[64];
    double ns;

    check(ops->f->vector_new(ops, &t, &v, &err), "vector");
    a.gamma = a.beta = v;
    ns = bench_best_ns(run_norm, &a);
    (void)snprintf(shape, sizeof(shape), "%lld x %lld", (long long)rows, (long long)width);
    printf("%-10s %-26s %10.1f us %8.1f GB/s\n", "norm", shape, ns / 1e3, 8.0 * (double)rows * (double)width / ns);
    ops->f->vector_free(ops, v);
    ops->f->release(ops, x);
    ops->f->release(ops, y);
    ops->f->release(ops, g);
    return ns;
}

static double attention(int n_seqs, int heads, int d, int q, int kv, bool causal)
{
    int64_t width = (int64_t)heads * d, ld = q == kv ? 3 * width : width;
    float *x = values(n_seqs * q * ld), *k = q == kv ? x + width : values(2 * n_seqs * kv * ld);
    float *v = q == kv ? x + 2 * width : k + n_seqs * kv * ld, *out = values(n_seqs * q * width);
    int32_t *lengths = calloc(4 * (size_t)n_seqs, sizeof(*lengths));
    struct ops_attention_args a = {.n_seqs = n_seqs,
                                   .n_heads = heads,
                                   .head_dim = d,
                                   .scale = 1 / sqrtf((float)d),
                                   .causal = causal,
                                   .q = x,
                                   .k = k,
                                   .v = v,
                                   .ld_q = ld,
                                   .ld_k = ld,
                                   .ld_v = ld,
                                   .out = out,
                                   .ld_out = width};
    char shape[64];
    double ns;

    check(lengths ? 0 : -1, "calloc");
    for (int s = 0; s < n_seqs; s++) {
        lengths[s] = s * q;
        lengths[n_seqs + s] = q;
        lengths[2 * n_seqs + s] = s * kv;
        lengths[3 * n_seqs + s] = kv;
    }
    a.q_start = lengths;
    a.q_len = lengths + n_seqs;
    a.kv_start = lengths + 2 * (int64_t)n_seqs;
    a.kv_len = lengths + 3 * (int64_t)n_seqs;
    ns = bench_best_ns(run_attention, &a);
    (void)snprintf(shape, sizeof(shape), "%d x %d x (%d, %d, %d)%s", n_seqs, heads, q, kv, d, causal ? " causal" : "");
    line("attention", shape, ns, 4.0 * n_seqs * heads * d * q * kv,
         bench_attention_products_ns(n_threads, n_seqs, heads, d, q, kv));
    ops->f->release(ops, x);
    if (q != kv)
        ops->f->release(ops, k);
    ops->f->release(ops, out);
    free(lengths);
    return ns;
}

/* A ViT forward from its operators: where the time goes. */
static void vit(int64_t batch, int64_t tokens, int64_t width, int heads, int64_t mlp)
{
    int64_t rows = batch * tokens;
    double products, attend, other;

    printf("\nViT width %lld, batch %lld\n", (long long)width, (long long)batch);
    products = linear("qkv", rows, 3 * width, width, OPS_ACT_NONE, false);
    products += linear("projection", rows, width, width, OPS_ACT_NONE, true);
    products += linear("fc1", rows, mlp, width, OPS_ACT_GELU_ERF, false);
    products += linear("fc2", rows, width, mlp, OPS_ACT_NONE, true);
    attend = attention((int)batch, heads, (int)(width / heads), (int)tokens, (int)tokens, false);
    other = 2 * norm(rows, width);
    printf("layer: linear %.1f %%, attention %.1f %%, norms %.1f %%\n", 100 * products / (products + attend + other),
           100 * attend / (products + attend + other), 100 * other / (products + attend + other));
}

static void decode(int rows)
{
    printf("\ndecode step of the demo OPT, %d sequences\n", rows);
    (void)linear("qkv", rows, 576, 192, OPS_ACT_NONE, false);
    (void)linear("out", rows, 192, 192, OPS_ACT_NONE, true);
    (void)linear("fc1", rows, 768, 192, OPS_ACT_RELU, false);
    (void)linear("fc2", rows, 192, 768, OPS_ACT_NONE, true);
    (void)linear("logits", rows, 1216, 192, OPS_ACT_NONE, false);
    (void)attention(rows, 3, 64, 1, 33, true);
    (void)norm(rows, 192);
}

static bool wanted(const char *name, const char *section)
{
    return !*section || strcmp(name, section) == 0;
}

int main(int argc, char **argv)
{
    static const int batches[] = {1, 8, 32}, decode_rows[] = {8, 32, 64};
    const char *section = argc > 2 ? argv[2] : "";
    struct err err;

    n_threads = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (n_threads < 1 || ops_cpu_new(n_threads, DTYPE_F32, &ops, &err) < 0) {
        fprintf(stderr, "usage: bench_ops [THREADS] [demo|decode|large]\n");
        return EXIT_FAILURE;
    }
    printf("threads %d; share: time of the bare products over the operator's\n", n_threads);
    if (wanted("demo", section))
        for (int i = 0; i < 3; i++)
            vit(batches[i], 257, 192, 3, 768);
    if (wanted("demo", section))
        (void)attention(32, 3, 64, 16, 257, false);
    if (wanted("decode", section))
        for (int i = 0; i < 3; i++)
            decode(decode_rows[i]);
    if (wanted("large", section))
        vit(2, 257, 1408, 16, 6144);
    ops_free(ops);
    return EXIT_SUCCESS;
}
