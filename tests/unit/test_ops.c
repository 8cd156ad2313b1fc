#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensor/cpu.h"
#include "tensor/ops.h"

/* Every entry of the CPU back end against the reference, on shapes that do not divide by anything. Outputs are NaN
 * before each call, rows are further apart than they are wide, and what lies between them must stay as it was. */

struct pair {
    struct ops *ref, *cpu;
    enum cpu_isa best; /* of this machine; what comes before it works here too */
};

static uint64_t rng_state;

static uint64_t rng(void)
{
    uint64_t z = (rng_state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int rng_below(int n)
{
    return (int)(rng() % (uint64_t)n);
}

/* Roughly normal, variance 1. */
static float rng_normal(void)
{
    double sum = 0;

    for (int i = 0; i < 12; i++)
        sum += (double)(rng() >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    struct err err;

    assert_non_null(p);
    assert_int_equal(ops_ref_new(&p->ref, &err), 0);
    assert_int_equal(ops_cpu_new(2, DTYPE_F32, &p->cpu, &err), 0);
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++)
        if (cpu_kernels_for((enum cpu_isa)isa, DTYPE_F32))
            p->best = (enum cpu_isa)isa;
    assert_ptr_equal(cpu_of(p->cpu)->kernels, cpu_kernels_for(p->best, DTYPE_F32));
    rng_state = (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)rng_state);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;

    ops_free(p->ref);
    ops_free(p->cpu);
    free(p);
    return 0;
}

static float *buffer(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof(*x) + 64) / 64 * 64);

    assert_non_null(x);
    return x;
}

static float *random_buffer(size_t n)
{
    float *x = buffer(n);

    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal();
    return x;
}

static float *nan_buffer(size_t n)
{
    float *x = buffer(n);

    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

/* Relative distance of the whole, and that the columns between rows are still NaN. */
static double distance(const float *out, const float *ref, int64_t rows, int64_t width, int64_t ld)
{
    double difference = 0, size = 0;

    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            double d = (double)out[r * ld + c] - ref[r * ld + c];

            difference += d * d;
            size += (double)ref[r * ld + c] * ref[r * ld + c];
        }
        for (int64_t c = width; c < ld && r + 1 < rows; c++)
            assert_true(isnan(out[r * ld + c]));
    }
    return sqrt(difference / (size > 0 ? size : 1));
}

#define CHECK_NEAR(out, ref, rows, width, ld, limit, ...)                                 \
    do {                                                                                  \
        double distance_ = distance(out, ref, rows, width, ld);                           \
        if (!(distance_ <= (limit))) {                                                    \
            fprintf(stderr, __VA_ARGS__);                                                 \
            fail_msg(": relative distance %.3g, limit %.3g", distance_, (double)(limit)); \
        }                                                                                 \
    } while (0)

static struct tensor random_tensor(enum dtype dtype, int64_t rows, int64_t columns, float size)
{
    int64_t n = rows * (columns ? columns : 1);
    struct tensor t = {.dtype = dtype, .n_dims = columns ? 2 : 1, .shape = {rows, columns}};
    float *values = buffer((size_t)n);

    for (int64_t i = 0; i < n; i++)
        values[i] = rng_normal() * size;
    t.data = malloc((size_t)n * dtype_size_bytes(dtype));
    assert_non_null(t.data);
    tensor_from_f32(t.data, dtype, values, (size_t)n);
    free(values);
    return t;
}

/* -- linear -- */

enum residual { RESIDUAL_NONE, RESIDUAL_OTHER, RESIDUAL_IN_PLACE };

struct linear_case {
    int64_t m, n, k;
    enum ops_act act;
    enum residual residual;
    bool bias;
    int pad; /* extra distance between rows */
    int n_parts;
    enum dtype dtype;
};

static const struct linear_case linear_cases[] = {
    {1, 1, 1, OPS_ACT_NONE, RESIDUAL_NONE, false, 0, 1, DTYPE_F32},
    {1, 7, 5, OPS_ACT_RELU, RESIDUAL_NONE, true, 0, 1, DTYPE_F32},
    {3, 1, 17, OPS_ACT_NONE, RESIDUAL_OTHER, true, 1, 1, DTYPE_F16},
    {2, 44, 60, OPS_ACT_GELU_ERF, RESIDUAL_IN_PLACE, true, 3, 1, DTYPE_BF16},
    {1, 192, 192, OPS_ACT_GELU_TANH, RESIDUAL_IN_PLACE, true, 64, 1, DTYPE_F16},
    {17, 45, 44, OPS_ACT_GELU_TANH, RESIDUAL_OTHER, false, 0, 1, DTYPE_F32},
    {64, 64, 64, OPS_ACT_NONE, RESIDUAL_IN_PLACE, false, 0, 1, DTYPE_F32},
    {31, 132, 33, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 3, DTYPE_F32},
    {257, 576, 192, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 3, DTYPE_F16},
    {257, 192, 768, OPS_ACT_NONE, RESIDUAL_IN_PLACE, true, 0, 1, DTYPE_F16},
    {514, 768, 192, OPS_ACT_GELU_ERF, RESIDUAL_NONE, true, 0, 1, DTYPE_F16},
    {515, 192, 192, OPS_ACT_NONE, RESIDUAL_OTHER, true, 192, 1, DTYPE_F16},
    {700, 33, 50, OPS_ACT_RELU, RESIDUAL_IN_PLACE, true, 7, 1, DTYPE_F32},
    {33, 1216, 192, OPS_ACT_NONE, RESIDUAL_NONE, false, 0, 1, DTYPE_F16},
    {256, 192, 588, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 1, DTYPE_F16},
    {257, 4224, 1408, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 3, DTYPE_F16},
};

static void make_parts(const struct linear_case *t, struct ops_weight_part *parts, struct tensor *weight,
                       struct tensor *bias)
{
    for (int i = 0; i < t->n_parts; i++) {
        assert_int_equal(t->n % t->n_parts, 0);
        weight[i] = random_tensor(t->dtype, t->n / t->n_parts, t->k, 1 / sqrtf((float)t->k));
        bias[i] = random_tensor(i == 1 ? DTYPE_F32 : t->dtype, t->n / t->n_parts, 0, 1);
        parts[i] = (struct ops_weight_part){&weight[i], t->bias ? &bias[i] : NULL};
    }
}

static void run_linear(struct ops *o, const struct linear_case *t, const struct ops_weight_part *parts, const float *x,
                       const float *residual, float *y)
{
    struct ops_weight *w;
    struct err err;

    assert_int_equal(o->f->weight_new(o, parts, t->n_parts, &w, &err), 0);
    if (t->residual == RESIDUAL_IN_PLACE)
        for (int64_t r = 0; r < t->m; r++)
            memcpy(y + r * (t->n + t->pad), residual + r * (t->n + t->pad), (size_t)t->n * sizeof(float));
    assert_int_equal(o->f->linear(o, &(struct ops_linear_args){.weight = w,
                                                               .n_rows = t->m,
                                                               .x = x,
                                                               .ld_x = t->k + t->pad,
                                                               .y = y,
                                                               .ld_y = t->n + t->pad,
                                                               .act = t->act,
                                                               .residual = t->residual == RESIDUAL_NONE    ? NULL
                                                                           : t->residual == RESIDUAL_OTHER ? residual
                                                                                                           : y,
                                                               .ld_residual = t->n + t->pad}),
                     0);
    o->f->weight_free(o, w);
}

static void check_linear(const struct pair *p, const struct linear_case *t)
{
    struct tensor weight[3], bias[3];
    struct ops_weight_part parts[3];
    size_t n_y = (size_t)(t->m * (t->n + t->pad));
    float *x = random_buffer((size_t)(t->m * (t->k + t->pad))), *residual = random_buffer(n_y);
    float *ref = nan_buffer(n_y), *out = nan_buffer(n_y);

    make_parts(t, parts, weight, bias);
    run_linear(p->ref, t, parts, x, residual, ref);
    run_linear(p->cpu, t, parts, x, residual, out);
    CHECK_NEAR(out, ref, t->m, t->n, t->n + t->pad, 1e-6, "linear %lld x %lld x %lld act %d residual %d pad %d",
               (long long)t->m, (long long)t->n, (long long)t->k, (int)t->act, (int)t->residual, t->pad);
    for (int i = 0; i < t->n_parts; i++) {
        free(weight[i].data);
        free(bias[i].data);
    }
    free(x);
    free(residual);
    free(ref);
    free(out);
}

static void test_ops_linear_equals_reference(void **state)
{
    for (size_t i = 0; i < sizeof(linear_cases) / sizeof(*linear_cases); i++)
        check_linear(*state, &linear_cases[i]);
}

static void test_ops_linear_random_shapes_equal_reference(void **state)
{
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    for (int i = 0; i < 60; i++) {
        struct linear_case t = {.m = 1 + rng_below(90),
                                .n = 1 + rng_below(150),
                                .k = 1 + rng_below(150),
                                .act = (enum ops_act)rng_below(4),
                                .residual = (enum residual)rng_below(3),
                                .bias = rng_below(2),
                                .pad = rng_below(2) * rng_below(40),
                                .n_parts = 1,
                                .dtype = dtypes[rng_below(3)]};

        check_linear(*state, &t);
    }
}

/* oneDNN keeps AVX-512's sums in the same order for any number of rows and threads; it promises nothing elsewhere. */
static bool is_invariant_here(const struct pair *p)
{
    if (p->best == CPU_ISA_AVX512)
        return true;
    printf("skipped: this processor has no AVX-512, results may depend on the batch\n");
    return false;
}

static void check_linear_invariant(const struct pair *p, int64_t n, int64_t k)
{
    enum { ROWS = 600 };
    static const int sizes[] = {1, 2, 3, 5, 7, 8, 13, 16, 31, 32, 33, 64, 65, 100, 129, 257, 514};
    struct tensor weight = random_tensor(DTYPE_F32, n, k, 1), bias = random_tensor(DTYPE_F32, n, 0, 1);
    struct ops_weight_part part = {&weight, &bias};
    float *x = random_buffer((size_t)(ROWS * k)), *all = nan_buffer((size_t)(ROWS * n));
    float *some = nan_buffer((size_t)(ROWS * n));
    struct ops_linear_args a = {.n_rows = ROWS, .x = x, .ld_x = k, .y = all, .ld_y = n, .act = OPS_ACT_GELU_ERF};
    struct ops_weight *w;
    struct err err;

    assert_int_equal(p->cpu->f->weight_new(p->cpu, &part, 1, &w, &err), 0);
    a.weight = w;
    assert_int_equal(p->cpu->f->linear(p->cpu, &a), 0);
    a.y = some;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        int first = rng_below(ROWS - sizes[i]);

        a.n_rows = sizes[i];
        a.x = x + first * k;
        assert_int_equal(p->cpu->f->linear(p->cpu, &a), 0);
        assert_memory_equal(some, all + first * n, (size_t)(sizes[i] * n) * sizeof(float));
    }
    p->cpu->f->weight_free(p->cpu, w);
    free(weight.data);
    free(bias.data);
    free(x);
    free(all);
    free(some);
}

static void test_ops_linear_rows_do_not_depend_on_the_batch(void **state)
{
    static const int64_t shapes[][2] = {{192, 192}, {576, 192}, {768, 192}, {192, 768}, {1216, 192},
                                        {192, 588}, {45, 44},   {7, 5},     {50, 2048}, {1408, 1408}};

    if (!is_invariant_here(*state))
        skip();
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        check_linear_invariant(*state, shapes[i][0], shapes[i][1]);
}

static void test_ops_matmul_cache_is_bounded(void **state)
{
    enum { N = 20, K = 12, MOST = CPU_MATMUL_CACHE + 70 };
    float *x = random_buffer(MOST * K), *w = random_buffer(N * K), *y = buffer(MOST * N), *first = buffer(N);
    struct cpu_matmul *m;
    struct cpu_packed *packed;
    struct err err;

    (void)state;
    assert_int_equal(cpu_matmul_new(DTYPE_F32, &m, &err), 0);
    assert_int_equal(cpu_packed_new(m, N, K, w, NULL, 1, &packed, &err), 0);
    for (int round = 0; round < 2; round++)
        for (int rows = 1; rows <= MOST; rows++) {
            struct cpu_matmul_args a = {
                .weight = packed, .n_rows = rows, .x = x, .ld_x = K, .y = y, .ld_y = N, .n_threads = 1};

            assert_int_equal(cpu_matmul_run(m, &a), 0);
            if (round == 0 && rows == 1)
                memcpy(first, y, N * sizeof(float));
            for (int i = 0; i < N; i++)
                assert_true(fabsf(y[i] - first[i]) <= 1e-5f);
            assert_int_equal(cpu_matmul_n_cached(m), round || rows > CPU_MATMUL_CACHE ? CPU_MATMUL_CACHE : rows);
        }
    cpu_packed_free(packed);
    cpu_matmul_free(m);
    free(x);
    free(w);
    free(y);
    free(first);
}

/* -- norm -- */

static void check_norm(const struct pair *p, int64_t rows, int64_t width, int pad, bool rms, float mean, float size)
{
    int64_t ld = width + pad;
    struct tensor gamma = random_tensor(DTYPE_F32, width, 0, 1), beta = random_tensor(DTYPE_BF16, width, 0, 1);
    float *x = random_buffer((size_t)(rows * ld)), *ref = nan_buffer((size_t)(rows * ld));
    struct ops *both[] = {p->ref, p->cpu};

    for (int64_t i = 0; i < rows * ld; i++)
        x[i] = i % ld < width ? x[i] * size + mean : NAN;
    for (int i = 0; i < 2 + (int)p->best; i++) {
        struct ops *o = both[i > 0];
        float *out = i == 0 ? ref : nan_buffer((size_t)(rows * ld));
        struct ops_vector *g, *b = NULL;
        struct err err;

        cpu_of(p->cpu)->kernels = cpu_kernels_for(i > 0 ? (enum cpu_isa)(i - 1) : p->best, DTYPE_F32);
        assert_int_equal(o->f->vector_new(o, &gamma, &g, &err), 0);
        if (!rms)
            assert_int_equal(o->f->vector_new(o, &beta, &b, &err), 0);
        if (i > 0 && i % 2) /* in place */
            memcpy(out, x, (size_t)(rows * ld) * sizeof(float));
        assert_int_equal(o->f->norm(o, &(struct ops_norm_args){.n_rows = rows,
                                                               .width = width,
                                                               .x = i > 0 && i % 2 ? out : x,
                                                               .ld_x = ld,
                                                               .y = out,
                                                               .ld_y = ld,
                                                               .gamma = g,
                                                               .beta = b,
                                                               .eps = 1e-6f}),
                         0);
        /* a few numbers may happen to lie close together, then their mean takes most digits */
        CHECK_NEAR(out, ref, rows, width, ld, (width < 16 ? 3e-5 : 4e-7) * (1 + fabsf(mean) / size),
                   "norm %lld x %lld, isa %d", (long long)rows, (long long)width, i - 1);
        o->f->vector_free(o, g);
        o->f->vector_free(o, b);
        if (i > 0)
            free(out);
    }
    free(gamma.data);
    free(beta.data);
    free(x);
    free(ref);
}

static void test_ops_norm_equals_reference_and_may_be_in_place(void **state)
{
    static const int64_t shapes[][2] = {{1, 2}, {3, 7}, {5, 16}, {2, 44}, {9, 61}, {33, 192}, {700, 192}, {5, 1408}};

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int rms = 0; rms < 2; rms++) {
            check_norm(*state, shapes[i][0], shapes[i][1], (int)i % 3, rms, 0, 1);
            if (shapes[i][1] >= 16) /* two numbers near 30 may differ by a few ulp only */
                check_norm(*state, shapes[i][0], shapes[i][1], 0, rms, 30, 0.5f);
        }
}

/* -- attention -- */

enum { MAX_SEQS = 40 };

struct attention_case {
    int n_seqs, n_heads, head_dim;
    int min_q, max_q, min_kv, max_kv; /* lengths are drawn from these */
    bool causal, bias;
};

struct attention_data {
    struct ops_attention_args args;
    int32_t q_start[MAX_SEQS], q_len[MAX_SEQS], kv_start[MAX_SEQS], kv_len[MAX_SEQS];
    int64_t n_q, n_kv;
    float *q, *k, *v, *bias;
};

/* Sequences lie in memory in order, with gaps, and keys in rows that are wider than the heads. */
static void draw_attention(const struct attention_case *t, struct attention_data *d)
{
    int64_t width = (int64_t)t->n_heads * t->head_dim;

    *d = (struct attention_data){.n_q = 0};
    for (int s = 0; s < t->n_seqs; s++) {
        d->q_len[s] = t->min_q + rng_below(t->max_q - t->min_q + 1);
        d->kv_len[s] = t->min_kv + rng_below(t->max_kv - t->min_kv + 1);
        if (t->causal && d->kv_len[s] < d->q_len[s])
            d->kv_len[s] = d->q_len[s];
        d->q_start[s] = (int32_t)d->n_q + rng_below(2);
        d->kv_start[s] = (int32_t)d->n_kv + rng_below(3);
        d->n_q = d->q_start[s] + d->q_len[s];
        d->n_kv = d->kv_start[s] + d->kv_len[s];
    }
    d->args = (struct ops_attention_args){.n_seqs = t->n_seqs,
                                          .n_heads = t->n_heads,
                                          .head_dim = t->head_dim,
                                          .scale = 1 / sqrtf((float)t->head_dim),
                                          .causal = t->causal,
                                          .ld_q = width + 5,
                                          .ld_k = 2 * width,
                                          .ld_v = width + 1,
                                          .ld_out = width + 3,
                                          .q_start = d->q_start,
                                          .q_len = d->q_len,
                                          .kv_start = d->kv_start,
                                          .kv_len = d->kv_len};
    d->q = random_buffer((size_t)(d->n_q * d->args.ld_q));
    d->k = random_buffer((size_t)(d->n_kv * d->args.ld_k));
    d->v = random_buffer((size_t)(d->n_kv * d->args.ld_v));
    for (int64_t i = 0; i < d->n_q * d->args.ld_q; i++)
        d->q[i] *= 3; /* peaked enough that the largest score matters */
    d->args.q = d->q;
    d->args.k = d->k;
    d->args.v = d->v;
    if (t->bias) {
        d->args.bias_span = t->max_kv + t->max_q + rng_below(3);
        d->bias = random_buffer((size_t)(t->n_heads * (2 * d->args.bias_span - 1)));
        d->args.bias = d->bias;
    }
}

static void free_attention(struct attention_data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->bias);
}

/* Only rows of sequences are compared; rows between them must be untouched. */
static void check_attention(const struct pair *p, const struct attention_case *t)
{
    struct attention_data d;
    int64_t width = (int64_t)t->n_heads * t->head_dim;
    float *ref, *out;

    draw_attention(t, &d);
    ref = nan_buffer((size_t)(d.n_q * d.args.ld_out));
    d.args.out = ref;
    assert_int_equal(p->ref->f->attention(p->ref, &d.args), 0);
    for (int isa = 0; isa <= (int)p->best; isa++) {
        cpu_of(p->cpu)->kernels = cpu_kernels_for((enum cpu_isa)isa, DTYPE_F32);
        out = nan_buffer((size_t)(d.n_q * d.args.ld_out));
        d.args.out = out;
        assert_int_equal(p->cpu->f->attention(p->cpu, &d.args), 0);
        for (int s = 0; s < t->n_seqs; s++) {
            int64_t at = d.q_start[s] * d.args.ld_out;

            CHECK_NEAR(out + at, ref + at, d.q_len[s], width, d.args.ld_out, 2e-6,
                       "attention isa %d sequence %d of %d: q %d kv %d heads %d of %d causal %d bias %d", isa, s,
                       t->n_seqs, (int)d.q_len[s], (int)d.kv_len[s], t->n_heads, t->head_dim, t->causal, t->bias);
            if (s > 0 && d.q_start[s] > d.q_start[s - 1] + d.q_len[s - 1])
                assert_true(isnan(out[at - d.args.ld_out]));
        }
        free(out);
    }
    free(ref);
    free_attention(&d);
}

static void test_ops_attention_equals_reference(void **state)
{
    static const struct attention_case cases[] = {
        {1, 1, 1, 1, 1, 1, 1, false, false},          {1, 3, 64, 257, 257, 257, 257, false, false},
        {3, 3, 64, 257, 257, 257, 257, false, false}, {1, 2, 88, 257, 257, 257, 257, false, false},
        {4, 12, 64, 32, 32, 257, 257, false, false},  {20, 3, 64, 1, 1, 1, 90, true, false},
        {3, 2, 80, 1, 1, 1500, 2100, true, false},    {7, 3, 44, 1, 3, 1, 40, true, true},
        {5, 4, 60, 1, 60, 1, 70, true, false},        {6, 2, 20, 1, 50, 1, 130, false, true},
        {9, 3, 13, 1, 30, 1, 30, true, true},         {2, 1, 200, 1, 40, 1, 40, true, false},
        {3, 2, 128, 1, 2, 1, 200, false, true},       {40, 1, 16, 1, 9, 1, 9, false, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        check_attention(*state, &cases[i]);
}

static void test_ops_attention_random_shapes_equal_reference(void **state)
{
    for (int i = 0; i < 80; i++) {
        struct attention_case t = {.n_seqs = 1 + rng_below(6),
                                   .n_heads = 1 + rng_below(4),
                                   .head_dim = 1 + rng_below(100),
                                   .min_q = 1,
                                   .max_q = 1 + rng_below(70),
                                   .min_kv = 1,
                                   .max_kv = 1 + rng_below(150),
                                   .causal = rng_below(2),
                                   .bias = rng_below(2)};

        check_attention(*state, &t);
    }
}

/* All sequences at once, then each alone. */
static void test_ops_attention_rows_do_not_depend_on_the_batch(void **state)
{
    static const struct attention_case cases[] = {{20, 3, 64, 1, 120, 1, 257, true, false},
                                                  {30, 2, 44, 1, 3, 1, 90, true, true},
                                                  {12, 3, 88, 40, 257, 40, 257, false, false}};
    const struct pair *p = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct attention_case *t = &cases[i];
        struct attention_data d;
        float *all, *alone;

        draw_attention(t, &d);
        all = nan_buffer((size_t)(d.n_q * d.args.ld_out));
        alone = nan_buffer((size_t)(d.n_q * d.args.ld_out));
        d.args.out = all;
        assert_int_equal(p->cpu->f->attention(p->cpu, &d.args), 0);
        d.args.out = alone;
        d.args.n_seqs = 1;
        for (int s = 0; s < t->n_seqs; s++) {
            assert_int_equal(p->cpu->f->attention(p->cpu, &d.args), 0);
            d.args.q_start++;
            d.args.q_len++;
            d.args.kv_start++;
            d.args.kv_len++;
        }
        assert_memory_equal(all, alone, (size_t)(d.n_q * d.args.ld_out) * sizeof(float));
        free(all);
        free(alone);
        free_attention(&d);
    }
}

/* -- rows, pixels, look-ups -- */

static void test_ops_rows_copy_follows_both_indices(void **state)
{
    enum { ROWS = 50, WIDTH = 37, LD_X = 40, LD_Y = 39 };
    const struct pair *p = *state;
    float *x = random_buffer(ROWS * LD_X);
    int32_t from[ROWS], to[ROWS];

    for (int i = 0; i < ROWS; i++) {
        from[i] = rng_below(ROWS);
        to[i] = (i * 7 + 3) % ROWS;
    }
    for (int which = 0; which < 4; which++) {
        float *y = nan_buffer(ROWS * LD_Y);
        struct ops_rows_args a = {.n_rows = ROWS,
                                  .width = WIDTH,
                                  .src = x,
                                  .ld_src = LD_X,
                                  .src_index = which & 1 ? from : NULL,
                                  .dst = y,
                                  .ld_dst = LD_Y,
                                  .dst_index = which & 2 ? to : NULL};
        struct ops *o = which == 3 && rng_below(2) ? p->ref : p->cpu;

        assert_int_equal(o->f->rows_copy(o, &a), 0);
        for (int i = 0; i < ROWS; i++)
            assert_memory_equal(y + (which & 2 ? to[i] : i) * LD_Y, x + (which & 1 ? from[i] : i) * LD_X,
                                WIDTH * sizeof(float));
        assert_true(isnan(y[WIDTH]));
        free(y);
    }
    free(x);
}

static void test_ops_patchify_equals_reference(void **state)
{
    static const int shapes[][3] = {{1, 1, 1}, {2, 6, 3}, {3, 28, 14}, {2, 224, 14}, {1, 35, 5}};
    const struct pair *p = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        size_t n = (size_t)shapes[i][0] * shapes[i][1] * shapes[i][1] * 3;
        uint8_t *rgb = malloc(n);
        float *ref = nan_buffer(n), *out = nan_buffer(n);
        struct ops_patchify_args a = {.n_images = shapes[i][0],
                                      .image_size = shapes[i][1],
                                      .patch_size = shapes[i][2],
                                      .rgb = rgb,
                                      .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                      .std = {0.26862954f, 0.26130258f, 0.27577711f},
                                      .rescale = 1 / 255.0f};

        assert_non_null(rgb);
        for (size_t j = 0; j < n; j++)
            rgb[j] = (uint8_t)rng();
        a.y = ref;
        assert_int_equal(p->ref->f->patchify(p->ref, &a), 0);
        a.y = out;
        assert_int_equal(p->cpu->f->patchify(p->cpu, &a), 0);
        assert_memory_equal(out, ref, n * sizeof(float));
        free(rgb);
        free(ref);
        free(out);
    }
}

static void test_ops_vit_embed_equals_reference(void **state)
{
    static const int shapes[][3] = {{1, 2, 1}, {3, 5, 7}, {2, 257, 192}};
    const struct pair *p = *state;
    struct ops *both[] = {p->ref, p->cpu};

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        int64_t b = shapes[i][0], tokens = shapes[i][1], width = shapes[i][2];
        size_t n = (size_t)(b * tokens * width);
        struct tensor cls = random_tensor(DTYPE_F16, width, 0, 1), pos = random_tensor(DTYPE_F32, tokens, width, 1);
        float *patches = random_buffer((size_t)(b * (tokens - 1) * width)), *y[2];

        for (int j = 0; j < 2; j++) {
            struct ops_vector *c, *e;
            struct err err;

            y[j] = nan_buffer(n);
            assert_int_equal(both[j]->f->vector_new(both[j], &cls, &c, &err), 0);
            assert_int_equal(both[j]->f->vector_new(both[j], &pos, &e, &err), 0);
            assert_int_equal(both[j]->f->vit_embed(both[j], b, tokens, width, patches, c, e, y[j]), 0);
            both[j]->f->vector_free(both[j], c);
            both[j]->f->vector_free(both[j], e);
        }
        assert_false(isnan(y[0][0]));
        assert_memory_equal(y[0], y[1], n * sizeof(float));
        free(cls.data);
        free(pos.data);
        free(patches);
        free(y[0]);
        free(y[1]);
    }
}

static void test_ops_embed_sets_and_adds_table_rows(void **state)
{
    enum { ROWS = 30, TABLE = 11 };
    static const int64_t widths[] = {1, 192, 300};
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    const struct pair *p = *state;
    struct ops *both[] = {p->ref, p->cpu};
    int32_t index[ROWS], to[ROWS];

    for (int i = 0; i < ROWS; i++) {
        index[i] = rng_below(TABLE);
        to[i] = (i * 7 + 1) % ROWS;
    }
    for (int i = 0; i < 3; i++) {
        int64_t ld = widths[i] + 2;
        struct tensor t = random_tensor(dtypes[i], TABLE, widths[i], 1);
        float *y[2];

        for (int j = 0; j < 2; j++) {
            struct ops_table *table;
            struct err err;

            y[j] = nan_buffer((size_t)(ROWS * ld));
            assert_int_equal(both[j]->f->table_new(both[j], &t, &table, &err), 0);
            assert_int_equal(both[j]->f->embed(both[j], table, ROWS, index, to, false, y[j], ld), 0);
            assert_int_equal(both[j]->f->embed(both[j], table, ROWS, index, NULL, true, y[j], ld), 0);
            both[j]->f->table_free(both[j], table);
        }
        CHECK_NEAR(y[1], y[0], ROWS, widths[i], ld, 0, "embed width %lld", (long long)widths[i]);
        free(t.data);
        free(y[0]);
        free(y[1]);
    }
}

/* -- logits -- */

static int choose_greedy(struct ops *o, int64_t n_rows, int64_t vocab, const float *x, int64_t ld, int32_t *ret_ids,
                         float *ret_logprobs)
{
    struct ops_choose_row rows[8];
    float values[8];

    assert_true(n_rows <= 8);
    for (int64_t r = 0; r < n_rows; r++)
        rows[r] = (struct ops_choose_row){.n_best = 1,
                                          .repetition_penalty = 1,
                                          .ret_ids = &ret_ids[r],
                                          .ret_values = &values[r],
                                          .ret_logprobs = &ret_logprobs[r]};
    return o->f->choose(
        o, &(struct ops_choose_args){.n_rows = n_rows, .vocab = vocab, .logits = x, .ld = ld, .rows = rows});
}

static void test_ops_choose_greedy_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 15, 16, 17, 1023, 1025, 1216, 50304};
    enum { ROWS = 5 };
    const struct pair *p = *state;

    for (size_t i = 0; i < sizeof(vocabs) / sizeof(*vocabs); i++) {
        int64_t n = vocabs[i], ld = n + 3;
        float *x = random_buffer((size_t)(ROWS * ld)), ref_logprob[ROWS], logprob[ROWS];
        int32_t ref_ids[ROWS], ids[ROWS];

        for (int64_t j = 0; j < ROWS * ld; j++)
            x[j] = j % ld < n ? x[j] * 4 : 1e9f; /* what lies behind the vocabulary must not win */
        x[n / 2] = x[n - 1] = x[n / 3] = 30;     /* ties: the first wins */
        if (n > 1)
            x[ld] = -HUGE_VALF;
        assert_int_equal(choose_greedy(p->ref, ROWS, n, x, ld, ref_ids, ref_logprob), 0);
        for (int isa = 0; isa <= (int)p->best; isa++) {
            cpu_of(p->cpu)->kernels = cpu_kernels_for((enum cpu_isa)isa, DTYPE_F32);
            memset(ids, 0xff, sizeof(ids));
            assert_int_equal(choose_greedy(p->cpu, ROWS, n, x, ld, ids, logprob), 0);
            assert_memory_equal(ids, ref_ids, sizeof(ids));
            assert_int_equal(ids[0], n / 3);
            for (int r = 0; r < ROWS; r++)
                assert_true(fabsf(logprob[r] - ref_logprob[r]) <= 1e-6f * (1 + fabsf(ref_logprob[r])));
        }
        free(x);
    }
}

static void test_ops_choose_shows_nan(void **state)
{
    const struct pair *p = *state;
    float x[40] = {1, 2, 3};
    int32_t id;
    float logprob;

    x[33] = NAN;
    assert_int_equal(choose_greedy(p->cpu, 1, 40, x, 40, &id, &logprob), 0);
    assert_int_equal(id, 2);
    assert_true(isnan(logprob));
    x[0] = NAN;
    assert_int_equal(choose_greedy(p->cpu, 1, 40, x, 40, &id, &logprob), 0);
    assert_int_equal(id, 2);
    assert_true(isnan(logprob));
}

static void test_ops_choose_refuses_a_row_without_a_finite_value(void **state)
{
    const struct pair *p = *state;
    float x[8] = {1, 2, -HUGE_VALF, 3, -HUGE_VALF, -HUGE_VALF, NAN, -HUGE_VALF};
    int32_t id[2] = {-7, -7};
    float logprob[2];

    assert_int_equal(choose_greedy(p->cpu, 2, 4, x, 4, id, logprob), -EDOM);
    assert_int_equal(choose_greedy(p->ref, 1, 4, x + 4, 4, id, logprob), -EDOM);
    assert_int_equal(id[0], 3);
}

static void test_ops_cpu_refuses_a_dtype_it_lacks(void **state)
{
    struct ops *o = NULL;
    struct err err = {.text = ""};

    (void)state;
    assert_int_equal(ops_cpu_new(1, DTYPE_F16, &o, &err), -ENOTSUP);
    assert_null(o);
    assert_non_null(strstr(err.text, "not in F16"));
}

static void test_ops_buffers_keep_what_is_uploaded(void **state)
{
    const struct pair *p = *state;
    struct ops *both[] = {p->ref, p->cpu};
    float *x = random_buffer(100), y[100];

    for (int i = 0; i < 2; i++) {
        void *d;

        assert_int_equal(both[i]->f->alloc(both[i], sizeof(y), &d), 0);
        assert_int_equal((uintptr_t)d % 64, 0);
        assert_int_equal(both[i]->f->upload_f32(both[i], d, x, 100), 0);
        memset(y, 0, sizeof(y));
        assert_int_equal(both[i]->f->download_f32(both[i], y, d, 100), 0);
        assert_memory_equal(x, y, sizeof(y));
        memset(y, 0, sizeof(y));
        assert_int_equal(both[i]->f->download_f32_from_f32(both[i], y, d, 100), 0);
        assert_memory_equal(x, y, sizeof(y));
        assert_int_equal(both[i]->f->sync(both[i]), 0);
        both[i]->f->release(both[i], d);
        both[i]->f->release(both[i], NULL);
    }
    free(x);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ops_linear_equals_reference),
        TEST(test_ops_linear_random_shapes_equal_reference),
        TEST(test_ops_linear_rows_do_not_depend_on_the_batch),
        TEST(test_ops_matmul_cache_is_bounded),
        TEST(test_ops_norm_equals_reference_and_may_be_in_place),
        TEST(test_ops_attention_equals_reference),
        TEST(test_ops_attention_random_shapes_equal_reference),
        TEST(test_ops_attention_rows_do_not_depend_on_the_batch),
        TEST(test_ops_rows_copy_follows_both_indices),
        TEST(test_ops_patchify_equals_reference),
        TEST(test_ops_vit_embed_equals_reference),
        TEST(test_ops_embed_sets_and_adds_table_rows),
        TEST(test_ops_choose_greedy_equals_reference),
        TEST(test_ops_choose_shows_nan),
        TEST(test_ops_choose_refuses_a_row_without_a_finite_value),
        TEST(test_ops_cpu_refuses_a_dtype_it_lacks),
        TEST(test_ops_buffers_keep_what_is_uploaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
