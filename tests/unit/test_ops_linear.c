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

#include "tensor/cpu_matmul_private.h"
#include "tests/unit/ops_rig.h"

/* Products of the CPU back end against the reference, on shapes that do not divide by anything. */

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
    bool y_f32;
};

static const struct linear_case linear_cases[] = {
    {1, 1, 1, OPS_ACT_NONE, RESIDUAL_NONE, false, 0, 1, DTYPE_F32, false},
    {1, 7, 5, OPS_ACT_RELU, RESIDUAL_NONE, true, 0, 1, DTYPE_F32, false},
    {3, 1, 17, OPS_ACT_NONE, RESIDUAL_OTHER, true, 1, 1, DTYPE_F16, false},
    {2, 44, 60, OPS_ACT_GELU_ERF, RESIDUAL_IN_PLACE, true, 3, 1, DTYPE_BF16, false},
    {1, 192, 192, OPS_ACT_GELU_TANH, RESIDUAL_IN_PLACE, true, 64, 1, DTYPE_F16, false},
    {17, 45, 44, OPS_ACT_GELU_TANH, RESIDUAL_OTHER, false, 0, 1, DTYPE_F32, false},
    {64, 64, 64, OPS_ACT_NONE, RESIDUAL_IN_PLACE, false, 0, 1, DTYPE_F32, false},
    {31, 132, 33, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 3, DTYPE_F32, false},
    {257, 576, 192, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 3, DTYPE_F16, false},
    {257, 192, 768, OPS_ACT_NONE, RESIDUAL_IN_PLACE, true, 0, 1, DTYPE_F16, false},
    {514, 768, 192, OPS_ACT_GELU_ERF, RESIDUAL_NONE, true, 0, 1, DTYPE_F16, false},
    {515, 192, 192, OPS_ACT_NONE, RESIDUAL_OTHER, true, 192, 1, DTYPE_F16, false},
    {700, 33, 50, OPS_ACT_RELU, RESIDUAL_IN_PLACE, true, 7, 1, DTYPE_F32, false},
    {33, 1216, 192, OPS_ACT_NONE, RESIDUAL_NONE, false, 0, 1, DTYPE_F16, false},
    {256, 192, 588, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 1, DTYPE_F16, false},
    {257, 4224, 1408, OPS_ACT_NONE, RESIDUAL_NONE, true, 0, 3, DTYPE_F16, false},
};

static void make_parts(const struct linear_case *t, enum dtype act, struct ops_weight_part *parts,
                       struct tensor *weight, struct tensor *bias)
{
    for (int i = 0; i < t->n_parts; i++) {
        assert_int_equal(t->n % t->n_parts, 0);
        weight[i] = ops_rig_tensor(t->dtype, t->n / t->n_parts, t->k, 1 / sqrtf((float)t->k));
        ops_rig_round(&weight[i], act);
        bias[i] = ops_rig_tensor(i == 1 ? DTYPE_F32 : t->dtype, t->n / t->n_parts, 0, 1);
        parts[i] = (struct ops_weight_part){&weight[i], t->bias ? &bias[i] : NULL};
    }
}

/* x and residual in f32; returns y in f32. */
static float *run_linear(struct ops *o, const struct linear_case *t, const struct ops_weight_part *parts,
                         const float *x, const float *residual)
{
    const int64_t ld_y = t->n + t->pad;
    const size_t n_y = (size_t)(t->m * ld_y);
    float *before = ops_rig_nan(n_y);
    void *act_x = ops_rig_act(o, x, (size_t)(t->m * (t->k + t->pad))), *act_residual = ops_rig_act(o, residual, n_y),
         *y;
    struct ops_weight *w;
    struct err err;

    if (t->residual == RESIDUAL_IN_PLACE)
        for (int64_t r = 0; r < t->m; r++)
            memcpy(before + r * ld_y, residual + r * ld_y, (size_t)t->n * sizeof(float));
    y = ops_rig_act(t->y_f32 ? &(const struct ops){.act_dtype = DTYPE_F32} : o, before, n_y);
    assert_int_equal(o->f->weight_new(o, parts, t->n_parts, 0, &w, &err), 0);
    assert_int_equal(
        o->f->linear(o, &(struct ops_linear_args){.weight = w,
                                                  .n_rows = t->m,
                                                  .x = act_x,
                                                  .ld_x = t->k + t->pad,
                                                  .y = y,
                                                  .ld_y = ld_y,
                                                  .y_f32 = t->y_f32,
                                                  .act = t->act,
                                                  .residual = t->residual == RESIDUAL_NONE    ? NULL
                                                              : t->residual == RESIDUAL_OTHER ? act_residual
                                                                                              : y,
                                                  .ld_residual = ld_y}),
        0);
    o->f->weight_free(o, w);
    free(before);
    free(act_x);
    free(act_residual);
    return ops_rig_back(t->y_f32 ? &(const struct ops){.act_dtype = DTYPE_F32} : o, y, n_y);
}

static void check_linear(const struct ops_rig *g, int type, const struct linear_case *t)
{
    struct tensor weight[3], bias[3];
    struct ops_weight_part parts[3];
    struct ops *o = g->cpu[type];
    float *x, *residual, *ref, *out;

    if (!o)
        return;
    x = ops_rig_random(o, (size_t)(t->m * (t->k + t->pad)));
    residual = ops_rig_random(o, (size_t)(t->m * (t->n + t->pad)));
    make_parts(t, o->act_dtype, parts, weight, bias);
    ref = run_linear(g->ref, t, parts, x, residual);
    out = run_linear(o, t, parts, x, residual);
    OPS_RIG_NEAR(out, ref, t->m, t->n, t->n + t->pad, type == OPS_RIG_F32 || t->y_f32 ? 1e-6 : 4e-3,
                 "linear %s %lld x %lld x %lld act %d residual %d pad %d f32 %d", dtype_name(o->act_dtype),
                 (long long)t->m, (long long)t->n, (long long)t->k, (int)t->act, (int)t->residual, t->pad, t->y_f32);
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
    struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(linear_cases) / sizeof(*linear_cases); i++)
        for (int type = 0; type < OPS_RIG_TYPES; type++)
            for (enum cpu_isa isa = CPU_ISA_BASE; isa <= (type == OPS_RIG_F32 ? g->best : CPU_ISA_BASE); isa++) {
                struct linear_case t = linear_cases[i];
                const bool is_large = t.m * t.n * t.k > 200000000; /* the reference takes its time */

                if (type == OPS_RIG_F32 && isa < g->best && is_large)
                    continue;
                if (type == OPS_RIG_F32)
                    ops_rig_reopen(g, isa, 2);
                check_linear(g, type, &t);
                if (is_large)
                    continue;
                t.y_f32 = true;
                t.residual = RESIDUAL_NONE;
                check_linear(g, type, &t);
            }
}

static void test_ops_linear_random_shapes_equal_reference(void **state)
{
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    struct ops_rig *g = *state;

    for (int i = 0; i < 150; i++) {
        struct linear_case t = {.m = 1 + ops_rig_below(90),
                                .n = 1 + ops_rig_below(150),
                                .k = 1 + ops_rig_below(150),
                                .act = (enum ops_act)ops_rig_below(4),
                                .residual = (enum residual)ops_rig_below(3),
                                .bias = ops_rig_below(2),
                                .pad = ops_rig_below(2) * ops_rig_below(40),
                                .n_parts = 1,
                                .dtype = dtypes[ops_rig_below(3)]};

        t.y_f32 = t.residual == RESIDUAL_NONE && ops_rig_below(2);
        if (i % 30 == 0)
            ops_rig_reopen(g, CPU_ISA_BASE + (enum cpu_isa)(i / 30) % g->best, 2);
        check_linear(g, i % OPS_RIG_TYPES, &t);
    }
}

/* A checkpoint's bf16 goes in as it is; f32 and f16 are rounded to nearest even. */
static void test_ops_linear_in_bf16_rounds_weights_to_nearest_even(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16};
    const struct linear_case t = {.m = 9, .n = 45, .k = 700, .n_parts = 1, .y_f32 = true};
    const struct ops_rig *g = *state;
    struct ops *o = g->cpu[OPS_RIG_BF16];
    float *x, *zero;

    if (!o)
        skip();
    x = ops_rig_random(o, (size_t)(t.m * t.k));
    zero = ops_rig_buffer((size_t)(t.m * t.n));
    memset(zero, 0, (size_t)(t.m * t.n) * sizeof(*zero));
    for (int i = 0; i < 2; i++) {
        struct tensor w = ops_rig_tensor(dtypes[i], t.n, t.k, 1), rounded = ops_rig_tensor(DTYPE_BF16, t.n, t.k, 1);
        float *values = ops_rig_buffer((size_t)(t.n * t.k)), *out, *want;

        tensor_to_f32(values, w.dtype, w.data, (size_t)(t.n * t.k));
        tensor_from_f32(rounded.data, DTYPE_BF16, values, (size_t)(t.n * t.k));
        out = run_linear(o, &t, &(struct ops_weight_part){&w, NULL}, x, zero);
        want = run_linear(o, &t, &(struct ops_weight_part){&rounded, NULL}, x, zero);
        assert_memory_equal(out, want, (size_t)(t.m * t.n) * sizeof(float));
        free(w.data);
        free(rounded.data);
        free(values);
        free(out);
        free(want);
    }
    free(x);
    free(zero);
}

/* A file's tensors begin at any byte. */
static void test_ops_linear_takes_weights_that_are_not_aligned(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    const struct linear_case t = {.m = 5, .n = 33, .k = 70, .n_parts = 1, .y_f32 = true};
    const struct ops_rig *g = *state;

    for (int type = 0; type < OPS_RIG_TYPES; type++) {
        struct tensor w = ops_rig_tensor(dtypes[type], t.n, t.k, 1), odd = w;
        const size_t bytes = (size_t)(t.n * t.k) * dtype_size_bytes(w.dtype);
        unsigned char *copy = malloc(bytes + 1);
        float *x = ops_rig_random(g->ref, (size_t)(t.m * t.k)), *zero = ops_rig_nan((size_t)(t.m * t.n)), *out, *want;

        assert_non_null(copy);
        memcpy(copy + 1, w.data, bytes);
        odd.data = copy + 1;
        if (g->cpu[type]) {
            out = run_linear(g->cpu[type], &t, &(struct ops_weight_part){&odd, NULL}, x, zero);
            want = run_linear(g->cpu[type], &t, &(struct ops_weight_part){&w, NULL}, x, zero);
            assert_memory_equal(out, want, (size_t)(t.m * t.n) * sizeof(float));
            free(out);
            free(want);
        }
        free(w.data);
        free(copy);
        free(x);
        free(zero);
    }
}

static void check_linear_invariant(struct ops *o, int64_t n, int64_t k, bool y_f32)
{
    enum { ROWS = 600 };
    static const int sizes[] = {1, 2, 3, 5, 7, 8, 13, 16, 31, 32, 33, 64, 65, 100, 129, 257, 514};
    const int64_t element = (int64_t)dtype_size_bytes(o->act_dtype), y_element = y_f32 ? 4 : element;
    struct tensor weight = ops_rig_tensor(DTYPE_F32, n, k, 1), bias = ops_rig_tensor(DTYPE_F32, n, 0, 1);
    struct ops_weight_part part = {&weight, &bias};
    float *floats = ops_rig_random(o, (size_t)(ROWS * k));
    unsigned char *x = ops_rig_act(o, floats, (size_t)(ROWS * k));
    unsigned char *all = (unsigned char *)ops_rig_nan((size_t)(ROWS * n));
    unsigned char *some = (unsigned char *)ops_rig_nan((size_t)(ROWS * n));
    struct ops_linear_args a = {
        .n_rows = ROWS, .x = x, .ld_x = k, .y = all, .ld_y = n, .y_f32 = y_f32, .act = OPS_ACT_GELU_ERF};
    struct ops_weight *w;
    struct err err;

    assert_int_equal(o->f->weight_new(o, &part, 1, 0, &w, &err), 0);
    a.weight = w;
    assert_int_equal(o->f->linear(o, &a), 0);
    a.y = some;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        int first = ops_rig_below(ROWS - sizes[i]);

        a.n_rows = sizes[i];
        a.x = x + first * k * element;
        assert_int_equal(o->f->linear(o, &a), 0);
        if (memcmp(some, all + first * n * y_element, (size_t)(sizes[i] * n * y_element)) != 0)
            fail_msg("%s [%lld, %lld]: %d rows give other results than %d", dtype_name(o->act_dtype), (long long)n,
                     (long long)k, sizes[i], ROWS);
    }
    o->f->weight_free(o, w);
    free(weight.data);
    free(bias.data);
    free(floats);
    free(x);
    free(all);
    free(some);
}

static void test_ops_linear_rows_do_not_depend_on_the_batch(void **state)
{
    static const int64_t shapes[][2] = {{192, 192}, {576, 192}, {768, 192}, {192, 768}, {1216, 192}, {192, 588},
                                        {45, 44},   {7, 5},     {50, 2048}, {33, 2049}, {1408, 1408}};
    struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        for (enum cpu_isa isa = CPU_ISA_BASE; isa <= g->best; isa++) {
            if (isa == CPU_ISA_BASE && shapes[i][0] * shapes[i][1] > 1000000)
                continue; /* it takes its time */
            ops_rig_reopen(g, isa, 2);
            check_linear_invariant(g->cpu[OPS_RIG_F32], shapes[i][0], shapes[i][1], false);
        }
        for (int y_f32 = 0; y_f32 < 2 && g->cpu[OPS_RIG_BF16]; y_f32++)
            check_linear_invariant(g->cpu[OPS_RIG_BF16], shapes[i][0], shapes[i][1], y_f32);
    }
}

/* The same matrix, rows and level on any number of threads. */
static void test_ops_linear_rows_do_not_depend_on_the_threads(void **state)
{
    static const struct linear_case cases[] = {
        {.m = 64, .n = 576, .k = 192, .n_parts = 1, .dtype = DTYPE_F32, .bias = true},
        {.m = 257, .n = 192, .k = 768, .n_parts = 1, .dtype = DTYPE_F32, .bias = true, .residual = RESIDUAL_IN_PLACE},
        {.m = 100, .n = 308, .k = 1409, .n_parts = 1, .dtype = DTYPE_F32, .act = OPS_ACT_GELU_ERF},
        {.m = 3, .n = 1001, .k = 700, .n_parts = 1, .dtype = DTYPE_F32, .act = OPS_ACT_RELU}};
    struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (enum cpu_isa isa = CPU_ISA_BASE; isa <= g->best; isa++) {
            const struct linear_case *t = &cases[i];
            const size_t n_y = (size_t)(t->m * t->n);
            struct tensor weight, bias;
            struct ops_weight_part part;
            float *x = ops_rig_random(g->ref, (size_t)(t->m * t->k)), *residual = ops_rig_random(g->ref, n_y);
            float *one, *more;

            make_parts(t, DTYPE_F32, &part, &weight, &bias);
            ops_rig_reopen(g, isa, 1);
            one = run_linear(g->cpu[OPS_RIG_F32], t, &part, x, residual);
            for (int n_threads = 2; n_threads <= 7; n_threads += 5) {
                ops_rig_reopen(g, isa, n_threads);
                more = run_linear(g->cpu[OPS_RIG_F32], t, &part, x, residual);
                assert_memory_equal(one, more, n_y * sizeof(float));
                free(more);
            }
            free(weight.data);
            free(bias.data);
            free(x);
            free(residual);
            free(one);
        }
}

static void test_ops_matmul_cache_is_bounded(void **state)
{
    enum { N = 20, K = 12, MOST = CPU_MATMUL_CACHE + 70 };
    const struct ops_rig *g = *state;
    float *x = ops_rig_random(g->ref, MOST * K), *w = ops_rig_random(g->ref, N * K), *y = ops_rig_buffer(MOST * N),
          *first = ops_rig_buffer(N);
    struct cpu_matmul *m;
    struct cpu_packed *packed;
    struct err err;

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
            assert_int_equal(m->n_entries, round || rows > CPU_MATMUL_CACHE ? CPU_MATMUL_CACHE : rows);
        }
    cpu_packed_free(packed);
    cpu_matmul_free(m);
    free(x);
    free(w);
    free(y);
    free(first);
}

static long anonymous_kib(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    assert_int_equal(fclose(f), 0);
    assert_true(kib > 0);
    return kib;
}

/* Whatever type the checkpoint is in, only the packed matrices stay. */
static void test_ops_weights_take_no_more_than_their_packed_size(void **state)
{
    enum { MATRICES = 12, N = 1000, K = 1024 };
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    const struct ops_rig *g = *state;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they keep what is freed */
#endif
    for (int i = 0; i < 4; i++) {
        struct ops *o = g->cpu[i % 2];
        struct tensor t = ops_rig_tensor(dtypes[i / 2], N, K, 1);
        const struct ops_weight_part part = {&t, NULL};
        struct ops_weight *w[MATRICES] = {NULL};
        struct err err;
        long before;

        if (o) {
            assert_int_equal(o->f->weight_new(o, &part, 1, 0, &w[0], &err), 0); /* oneDNN compiles on first use */
            before = anonymous_kib();
            for (int j = 1; j < MATRICES; j++)
                assert_int_equal(o->f->weight_new(o, &part, 1, 0, &w[j], &err), 0);
            assert_true((double)(anonymous_kib() - before) * 1024 <=
                        1.1 * (MATRICES - 1) * N * K * (double)dtype_size_bytes(o->act_dtype));
            for (int j = 0; j < MATRICES; j++)
                o->f->weight_free(o, w[j]);
        }
        free(t.data);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, ops_rig_setup, ops_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ops_linear_equals_reference),
        TEST(test_ops_linear_random_shapes_equal_reference),
        TEST(test_ops_linear_in_bf16_rounds_weights_to_nearest_even),
        TEST(test_ops_linear_takes_weights_that_are_not_aligned),
        TEST(test_ops_linear_rows_do_not_depend_on_the_batch),
        TEST(test_ops_linear_rows_do_not_depend_on_the_threads),
        TEST(test_ops_weights_take_no_more_than_their_packed_size),
        TEST(test_ops_matmul_cache_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
