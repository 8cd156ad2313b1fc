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

#include "tests/gpu/linear_rig.h"

/* Products of the CUDA back end beside the reference. */

/* -- in activations -- */

static const struct linear_case linear_cases[] = {
    {1, 1, 1, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, false, 0, 1, DTYPE_F32, false, 0, 0},
    {1, 7, 5, OPS_ACT_RELU, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_F32, false, 0, 0},
    {3, 1, 17, OPS_ACT_NONE, LINEAR_RESIDUAL_OTHER, true, 1, 1, DTYPE_F16, false, 0, 0},
    {2, 44, 60, OPS_ACT_GELU_ERF, LINEAR_RESIDUAL_IN_PLACE, true, 3, 1, DTYPE_BF16, false, 0, 0},
    {5, 40, 64, OPS_ACT_RELU, LINEAR_RESIDUAL_OTHER, false, 8, 1, DTYPE_BF16, false, 0, 0},
    {1, 192, 192, OPS_ACT_GELU_TANH, LINEAR_RESIDUAL_IN_PLACE, true, 64, 1, DTYPE_F16, false, 0, 0},
    {17, 45, 44, OPS_ACT_GELU_TANH, LINEAR_RESIDUAL_OTHER, false, 0, 1, DTYPE_F32, false, 0, 0},
    {64, 64, 64, OPS_ACT_NONE, LINEAR_RESIDUAL_IN_PLACE, false, 0, 1, DTYPE_F32, false, 0, 0},
    {31, 132, 33, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 0, 3, DTYPE_F32, false, 0, 0},
    {33, 576, 192, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 0, 3, DTYPE_F16, false, 0, 0},
    {65, 192, 768, OPS_ACT_NONE, LINEAR_RESIDUAL_IN_PLACE, true, 0, 1, DTYPE_F16, false, 0, 0},
    {66, 768, 192, OPS_ACT_GELU_ERF, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_F16, false, 0, 0},
    {67, 192, 192, OPS_ACT_NONE, LINEAR_RESIDUAL_OTHER, true, 192, 1, DTYPE_F16, false, 0, 0},
    {100, 33, 50, OPS_ACT_RELU, LINEAR_RESIDUAL_IN_PLACE, true, 7, 1, DTYPE_F32, false, 0, 0},
    {33, 1216, 192, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, false, 0, 1, DTYPE_F16, false, 0, 0},
    {64, 192, 588, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_F16, false, 0, 0},
    {9, 48, 64, OPS_ACT_GELU_ERF, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_BF16, false, 0, 1},
    {9, 48, 64, OPS_ACT_NONE, LINEAR_RESIDUAL_IN_PLACE, true, 16, 3, DTYPE_BF16, false, 0, 8},
    {13, 31, 64, OPS_ACT_GELU_TANH, LINEAR_RESIDUAL_NONE, false, 1, 1, DTYPE_BF16, false, 0, 3},
};

static void test_cuda_linear_equals_reference(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(linear_cases) / sizeof(*linear_cases); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++) {
            struct linear_case t = linear_cases[i];

            linear_case_check(g, g->cuda[type], &t);
            t.y_f32 = true;
            if (t.residual == LINEAR_RESIDUAL_IN_PLACE)
                t.residual = LINEAR_RESIDUAL_OTHER; /* its type is not y's */
            linear_case_check(g, g->cuda[type], &t);
        }
}

/* A library that does less for a product, and in the end none: what remains is done by kernels of ours. */
static void test_cuda_linear_does_what_the_library_does_not(void **state)
{
    static const unsigned refused[] = {EMULATOR_REFUSE_ACT, EMULATOR_REFUSE_ACT | EMULATOR_REFUSE_BIAS,
                                       EMULATOR_REFUSE_ALL, EMULATOR_REFUSE_OTHER_ROWS};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++) {
            struct ops *o = cuda_rig_open(dtypes[type], false, false, 0.3); /* its own: answers are remembered */

            cuda_rig_refuse_products(refused[i]);
            for (size_t j = 0; j < sizeof(linear_cases) / sizeof(*linear_cases); j++)
                linear_case_check(g, o, &linear_cases[j]);
            cuda_rig_refuse_products(0);
            ops_free(o);
        }
}

static void test_cuda_linear_random_shapes_equal_reference(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    for (int i = 0; i < 150; i++) {
        const int n_parts = 1 + ops_rig_below(LINEAR_PARTS);
        struct linear_case t = {.m = 1 + ops_rig_below(90),
                                .n = n_parts * (1 + ops_rig_below(50)),
                                .k = 1 + ops_rig_below(150),
                                .act = (enum ops_act)ops_rig_below(4),
                                .residual = (enum linear_residual)ops_rig_below(3),
                                .bias = ops_rig_below(2),
                                .pad = ops_rig_below(2) * ops_rig_below(40),
                                .n_parts = n_parts,
                                .dtype = dtypes[ops_rig_below(3)],
                                .offset = ops_rig_below(2) * ops_rig_below(9)};

        t.y_f32 = t.residual != LINEAR_RESIDUAL_IN_PLACE && ops_rig_below(2);
        linear_case_check(g, g->cuda[i % CUDA_RIG_TYPES], &t);
    }
}

/* Biases that bf16 cannot hold: results in f32 get them as they are. */
static void test_cuda_linear_adds_the_whole_bias_to_f32(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    const struct linear_case t = {
        .m = 3, .n = 40, .k = 24, .bias = true, .n_parts = 1, .dtype = DTYPE_F32, .y_f32 = true};

    for (int type = 0; type < CUDA_RIG_TYPES; type++) {
        struct ops *o = g->cuda[type];
        struct linear_inputs *in = linear_inputs_new(o, &t);
        float *ref, *out;

        for (int64_t i = 0; i < t.n; i++)
            ((float *)in->bias[0].data)[i] = 100 * ops_rig_normal();
        ref = linear_case_reference(g->ref, &t, in);
        out = linear_case_run(o, &t, in);
        LINEAR_CASE_NEAR(o, out, ref, &t, 1e-6, "bias");
        linear_inputs_free(in);
        free(ref);
        free(out);
    }
}

/* More shapes than the cache of algorithms keeps. */
static void test_cuda_linear_many_shapes(void **state)
{
    enum { N = 8, K = 8, MOST = 4200, ROWS = 2 };
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F32];
    const struct linear_case t = {.m = ROWS, .n = N, .k = K, .bias = true, .n_parts = 1, .dtype = DTYPE_F32};
    struct linear_inputs *in = linear_inputs_new(o, &t);
    struct ops_weight *w = linear_weight(o, in->parts, 1, 0);
    float *nan = ops_rig_nan((size_t)(MOST + N) * ROWS), *ref = linear_case_reference(g->ref, &t, in), *out;
    void *x = cuda_rig_put(o, in->x, in->n_x), *y = cuda_rig_put(o, nan, (size_t)(MOST + N) * ROWS);

    for (int round = 0; round < 2; round++)
        for (int64_t pad = 0; pad < MOST; pad++) {
            struct ops_linear_args a = linear_case_args(&t, w, x, y, NULL);

            a.ld_y = N + pad;
            assert_int_equal(o->f->linear(o, &a), 0);
        }
    out = cuda_rig_take(o, y, (size_t)(MOST + N) * ROWS);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < N; c++)
            assert_true(fabsf(out[r * (N + MOST - 1) + c] - ref[r * N + c]) < 1e-5f);
    cuda_rig_drop(o, x);
    o->f->weight_free(o, w);
    linear_inputs_free(in);
    free(nan);
    free(ref);
    free(out);
}

/* linear.cu takes the tanh form for the erf form where y is bf16, because it is nearer than what bf16 rounds away; not
 * where y is fp16. */
static void test_cuda_linear_gelu_forms(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_BF16];
    struct linear_case t = {
        .m = 64, .n = 512, .k = 64, .act = OPS_ACT_GELU_ERF, .bias = true, .n_parts = 1, .dtype = DTYPE_F32};
    struct linear_inputs *in = linear_inputs_new(o, &t);
    float *ref = linear_case_reference(g->ref, &t, in), *erf_bf16 = linear_case_run(o, &t, in),
          *erf_f16 = linear_case_run(g->cuda[CUDA_RIG_F16], &t, in), *erf_f32, *tanh_f32;
    double forms, rounded, most = 0;

    t.y_f32 = true;
    erf_f32 = linear_case_run(o, &t, in);
    t.act = OPS_ACT_GELU_TANH;
    tanh_f32 = linear_case_run(o, &t, in);
    forms = linear_case_distance(&t, tanh_f32, ref);
    rounded = linear_case_distance(&t, erf_bf16, ref);
    for (int64_t i = 0; i < t.m * t.n; i++)
        most = fmax(most, fabs((double)tanh_f32[i] - ref[i]));
    printf("gelu: the forms differ by %.2g of the norm, at most by %.2g; in bf16 %.2g of the norm\n", forms, most,
           rounded);
    assert_true(linear_case_distance(&t, erf_f32, ref) < 4e-6);
    assert_true(forms > 1e-5 && forms < 5e-4 && most < 5e-4);
    assert_true(rounded < 2.5e-3);
    for (int64_t i = 0; i < t.m * t.n; i++)
        assert_true(fabsf(erf_bf16[i] - ref[i]) <= 6e-4f + fabsf(ref[i]) * 0x1p-7f);
    for (int64_t i = 0; i < t.m * t.n; i++)
        assert_true(fabsf(erf_f16[i] - ref[i]) <= 2e-4f + fabsf(ref[i]) * 0x1p-10f);
    linear_inputs_free(in);
    free(ref);
    free(erf_bf16);
    free(erf_f16);
    free(erf_f32);
    free(tanh_f32);
}

static void test_cuda_linear_tf32_is_rounded(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    const struct linear_case t = {.m = 64, .n = 128, .k = 256, .bias = true, .n_parts = 1, .dtype = DTYPE_F32};
    struct ops *o = cuda_rig_open(DTYPE_F32, false, true, 0.3);
    struct linear_inputs *in = linear_inputs_new(o, &t);
    float *ref = linear_case_reference(g->ref, &t, in), *out = linear_case_run(o, &t, in),
          *full = linear_case_run(g->cuda[CUDA_RIG_F32], &t, in);

    LINEAR_CASE_NEAR(o, out, ref, &t, 2e-3, "tf32");
    assert_true(linear_case_distance(&t, out, ref) > 1e-5);
    LINEAR_CASE_NEAR(o, full, ref, &t, 2e-6, "fp32 without tf32");
    linear_inputs_free(in);
    ops_free(o);
    free(ref);
    free(out);
    free(full);
}

static int run_pass(struct ops *o, uint64_t key, const struct ops_linear_args *a, const struct ops_linear_args *b)
{
    int rc = ops_graph_begin(o, key), end;

    if (rc == 0)
        rc = o->f->linear(o, a);
    if (rc == 0)
        rc = o->f->linear(o, b);
    end = ops_graph_end(o);
    return rc < 0 ? rc : end;
}

/* One pass, replayed on other values: a product in place after one with an activation. Returns how often the pass had
 * to be run again, since it could not be recorded. */
static int check_pass(const struct cuda_rig *g, struct ops *o, const struct linear_case *t)
{
    enum { REPLAYS = 4 };
    struct linear_inputs *in = linear_inputs_new(o, t);
    struct ops_weight *w = linear_weight(o, in->parts, t->n_parts, t->flags);
    float *nan = ops_rig_nan(in->n_y);
    void *x = cuda_rig_put(o, in->x, in->n_x), *y = cuda_rig_put(o, nan, in->n_y);
    struct linear_case first = *t, second = *t;
    struct ops_linear_args a, b;
    int n_again = 0;

    second.act = OPS_ACT_NONE;
    second.residual = LINEAR_RESIDUAL_IN_PLACE;
    a = linear_case_args(&first, w, x, y, NULL);
    b = linear_case_args(&second, w, x, y, NULL);
    for (int i = 0; i < REPLAYS; i++) {
        float *values = ops_rig_random(o, in->n_x), *ref, *out = ops_rig_nan(in->n_y);

        free(in->x);
        in->x = values;
        assert_int_equal(o->f->upload(o, x, o->act_dtype, values, DTYPE_F32, in->n_x), 0);
        int rc = run_pass(o, 0x11ea0 + (uint64_t)t->m, &a, &b);

        if (rc == -EAGAIN) {
            n_again++;
            rc = run_pass(o, 0x11ea0 + (uint64_t)t->m, &a, &b);
        }
        assert_int_equal(rc, 0);
        assert_int_equal(o->f->download(o, out, DTYPE_F32, y, o->act_dtype, in->n_y), 0);
        ref = linear_case_reference(g->ref, &first, in);
        memcpy(in->residual, ref, in->n_y * sizeof(float));
        free(ref);
        ref = linear_case_reference(g->ref, &second, in);
        LINEAR_CASE_NEAR(o, out, ref, t, t->flags ? 5e-2 : linear_case_limit(o, t), "pass");
        free(ref);
        free(out);
    }
    o->f->weight_free(o, w);
    cuda_rig_drop(o, x);
    cuda_rig_drop(o, y);
    linear_inputs_free(in);
    free(nan);
    return n_again;
}

static void test_cuda_linear_in_passes(void **state)
{
    static const struct linear_case cases[] = {
        {33, 48, 64, OPS_ACT_GELU_ERF, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_F32, false, 0, 0},
        {7, 33, 29, OPS_ACT_RELU, LINEAR_RESIDUAL_NONE, false, 0, 1, DTYPE_F32, false, 0, 0},
    };
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            assert_int_equal(check_pass(g, g->cuda[type], &cases[i]), 0);
}

/* The library may fail in a capture where it does not outside of one. */
static void test_cuda_linear_that_cannot_be_captured_runs_as_it_comes(void **state)
{
    static const struct linear_case t = {9,     48, 64, OPS_ACT_RELU, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_F32,
                                         false, 0,  0};
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = cuda_rig_open(DTYPE_BF16, false, false, 0.3);

    cuda_rig_refuse_products(EMULATOR_REFUSE_CAPTURED);
    assert_int_equal(check_pass(g, o, &t), 1);
    cuda_rig_refuse_products(0);
    ops_free(o);
}

static void test_cuda_linear_fp8_in_passes(void **state)
{
    static const struct linear_case t = {12, 48, 64,        OPS_ACT_RELU, LINEAR_RESIDUAL_NONE, true,
                                         0,  1,  DTYPE_F32, false,        OPS_WEIGHT_FP8,       0};
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = linear_rig_open_fp8();

    assert_int_equal(check_pass(g, o, &t), 0);
    ops_free(o);
}

/* -- memory -- */

static void test_cuda_weight_that_does_not_fit_says_its_size(void **state)
{
    enum { N = 2048, K = 1024 }; /* 4 MiB in bf16 */
    struct ops *o;
    struct tensor t = ops_rig_tensor(DTYPE_BF16, N, K, 1);
    const struct ops_weight_part part = {&t, NULL};
    struct ops_weight *w = NULL;
    size_t free_bytes, free_after, total_bytes;
    struct err err = {""};
    void *most;

    (void)cuda_rig_get(state);
    o = cuda_rig_open(DTYPE_BF16, false, false, 0.02);
    assert_int_equal(o->f->memory(o, &free_bytes, &total_bytes), 0);
    assert_int_equal(o->f->alloc(o, free_bytes - (2 << 20), &most), 0);
    assert_int_equal(o->f->memory(o, &free_bytes, &total_bytes), 0);
    assert_int_equal(o->f->weight_new(o, &part, 1, 0, &w, &err), -ENOMEM);
    assert_null(w);
    assert_non_null(strstr(err.text, "[2048, 1024]"));
    assert_non_null(strstr(err.text, "4.0 MiB"));
    assert_int_equal(o->f->memory(o, &free_after, &total_bytes), 0);
    assert_int_equal(free_after, free_bytes);
    o->f->release(o, most);
    assert_int_equal(o->f->weight_new(o, &part, 1, 0, &w, &err), 0);
    o->f->weight_free(o, w);
    ops_free(o);
    free(t.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_linear_equals_reference),
        cmocka_unit_test_teardown(test_cuda_linear_does_what_the_library_does_not, cuda_rig_refuse_nothing),
        cmocka_unit_test(test_cuda_linear_random_shapes_equal_reference),
        cmocka_unit_test(test_cuda_linear_adds_the_whole_bias_to_f32),
        cmocka_unit_test(test_cuda_linear_many_shapes),
        cmocka_unit_test(test_cuda_linear_gelu_forms),
        cmocka_unit_test(test_cuda_linear_tf32_is_rounded),
        cmocka_unit_test(test_cuda_linear_in_passes),
        cmocka_unit_test_teardown(test_cuda_linear_that_cannot_be_captured_runs_as_it_comes, cuda_rig_refuse_nothing),
        cmocka_unit_test(test_cuda_linear_fp8_in_passes),
        cmocka_unit_test(test_cuda_weight_that_does_not_fit_says_its_size),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
