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

/* Products of the CUDA back end in e4m3 beside the reference on values that are quantised alike. */

static float e4m3(float x)
{
    const float magnitude = fminf(fabsf(x), 448);
    int exponent;
    float step;

    (void)frexpf(magnitude, &exponent);
    exponent = exponent - 1 < -6 ? -6 : exponent - 1;
    step = ldexpf(1, exponent - 3);
    return copysignf(fminf(rintf(magnitude / step) * step, 448), x);
}

/* Each row as the codes and the scale that it becomes are worth. */
static void quantise_row(float *x, int64_t n)
{
    float most = 0;

    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    for (int64_t i = 0; i < n && most > 0; i++)
        x[i] = e4m3(x[i] * (448 / most)) * (most / 448);
}

static void quantise_inputs(const struct linear_case *t, struct linear_inputs *in)
{
    for (int i = 0; i < t->n_parts; i++) {
        struct tensor *w = &in->weight[i];
        const int64_t n = w->shape[0] * t->k;
        float *values = ops_rig_buffer((size_t)n);

        tensor_to_f32(values, w->dtype, w->data, (size_t)n);
        for (int64_t r = 0; r < w->shape[0]; r++)
            quantise_row(values + r * t->k, t->k);
        free(w->data);
        w->dtype = DTYPE_F32;
        w->data = values;
    }
    for (int64_t r = 0; r < t->m; r++)
        quantise_row(in->x + r * linear_case_ld_x(t), t->k);
}

static const struct linear_case fp8_cases[] = {
    {1, 16, 16, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, false, 0, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
    {3, 48, 32, OPS_ACT_RELU, LINEAR_RESIDUAL_NONE, true, 0, 3, DTYPE_F32, false, OPS_WEIGHT_FP8, 0},
    {17, 192, 768, OPS_ACT_NONE, LINEAR_RESIDUAL_IN_PLACE, true, 0, 1, DTYPE_F16, false, OPS_WEIGHT_FP8, 0},
    {33, 576, 192, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 64, 3, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
    {65, 768, 192, OPS_ACT_GELU_ERF, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
    {20, 96, 64, OPS_ACT_GELU_TANH, LINEAR_RESIDUAL_OTHER, true, 0, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
    {20, 96, 64, OPS_ACT_RELU, LINEAR_RESIDUAL_IN_PLACE, false, 5, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
    {19, 64, 80, OPS_ACT_NONE, LINEAR_RESIDUAL_OTHER, true, 3, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 1},
    {5, 16, 2064, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, false, 0, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
    {2, 16, 8208, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, false, 0, 1, DTYPE_BF16, false, OPS_WEIGHT_FP8, 0},
};

static void check_fp8(const struct cuda_rig *g, struct ops *o, const struct linear_case *t)
{
    struct linear_inputs *in = linear_inputs_new(o, t);
    float *ref = linear_case_reference(g->ref, t, in), *out = linear_case_run(o, t, in), *same;

    if (t->m * t->n >= 1000) { /* enough for a mean; it is fp8, and no worse */
        LINEAR_CASE_NEAR(o, out, ref, t, 5e-2, "fp8");
        assert_true(linear_case_distance(t, out, ref) > 5e-3);
    }
    quantise_inputs(t, in);
    same = linear_case_reference(g->ref, t, in);
    LINEAR_CASE_NEAR(o, out, same, t, t->y_f32 ? 1e-3 : 2 * cuda_rig_limit(o), "fp8, quantised alike");
    linear_inputs_free(in);
    free(ref);
    free(out);
    free(same);
}

static void test_cuda_linear_fp8_equals_quantised_reference(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = linear_rig_open_fp8();

    for (size_t i = 0; i < sizeof(fp8_cases) / sizeof(*fp8_cases); i++) {
        struct linear_case t = fp8_cases[i];

        check_fp8(g, o, &t);
        t.y_f32 = true;
        if (t.residual == LINEAR_RESIDUAL_IN_PLACE)
            t.residual = LINEAR_RESIDUAL_OTHER;
        check_fp8(g, o, &t);
    }
    ops_free(o);
}

/* A library that does less for a product, and in the end none: what remains is done by kernels of ours. */
static void test_cuda_linear_fp8_does_what_the_library_does_not(void **state)
{
    static const unsigned refused[] = {EMULATOR_REFUSE_ACT,        EMULATOR_REFUSE_ACT | EMULATOR_REFUSE_BIAS,
                                       EMULATOR_REFUSE_ROW_SCALES, EMULATOR_REFUSE_ALL,
                                       EMULATOR_REFUSE_OTHER_ROWS, EMULATOR_REFUSE_FAST_SUMS};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        struct ops *o = linear_rig_open_fp8(); /* its own: answers are remembered */

        cuda_rig_refuse_products(refused[i]);
        for (size_t j = 0; j < sizeof(fp8_cases) / sizeof(*fp8_cases); j++)
            check_fp8(g, o, &fp8_cases[j]);
        cuda_rig_refuse_products(0);
        ops_free(o);
    }
}

/* More sums than half of the cache holds: the last step has fewer rows than the others. */
static void test_cuda_linear_fp8_takes_sums_in_steps(void **state)
{
    const struct linear_case t = {1100, 6144, 16,         OPS_ACT_RELU, LINEAR_RESIDUAL_OTHER, true,
                                  0,    1,    DTYPE_BF16, false,        OPS_WEIGHT_FP8,        0};
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = linear_rig_open_fp8();

    cuda_rig_refuse_products(EMULATOR_REFUSE_ROW_SCALES);
    check_fp8(g, o, &t);
    cuda_rig_refuse_products(0);
    ops_free(o);
}

/* Rows of nothing but zeros, and values that e4m3 of another row's scale would lose. */
static void test_cuda_linear_fp8_rows_have_scales_of_their_own(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = linear_rig_open_fp8();
    const struct linear_case t = {
        .m = 6, .n = 32, .k = 48, .bias = true, .n_parts = 1, .dtype = DTYPE_F32, .flags = OPS_WEIGHT_FP8};
    struct linear_inputs *in = linear_inputs_new(o, &t);
    float *ref, *out, *w = in->weight[0].data;

    for (int64_t i = 0; i < t.k; i++) {
        in->x[i] = 0;
        in->x[t.k + i] *= 0x1p-20f;
        in->x[2 * t.k + i] *= 0x1p20f;
        w[i] = 0;
        w[t.k + i] *= 0x1p-20f;
        w[2 * t.k + i] *= 0x1p20f;
    }
    memset(in->bias[0].data, 0, (size_t)t.n * sizeof(float));
    out = linear_case_run(o, &t, in);
    quantise_inputs(&t, in);
    ref = linear_case_reference(g->ref, &t, in);
    for (int64_t i = 0; i < t.m * t.n; i++)
        if (i < t.n || i % t.n == 0)
            assert_true(out[i] == 0);
    for (int64_t r = 1; r < t.m; r++)
        for (int64_t c = 1; c < t.n; c++) {
            const float want = ref[r * t.n + c], scale = (r == 1   ? 0x1p-20f
                                                          : r == 2 ? 0x1p20f
                                                                   : 1) *
                                                         (c == 1   ? 0x1p-20f
                                                          : c == 2 ? 0x1p20f
                                                                   : 1);

            assert_true(fabsf(out[r * t.n + c] - want) <= 0x1p-7f * (fabsf(want) + 0.1f * scale));
        }
    linear_inputs_free(in);
    ops_free(o);
    free(ref);
    free(out);
}

/* Matrices without the flag, of sizes that e4m3 does not go with, or of operators without it, stay in bf16. */
static void test_cuda_linear_is_in_fp8_only_where_it_may_be(void **state)
{
    static const struct linear_case cases[] = {
        {5, 48, 32, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_BF16, true, 0, 0},
        {5, 40, 32, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_BF16, true, OPS_WEIGHT_FP8, 0},
        {5, 48, 40, OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true, 0, 1, DTYPE_BF16, true, OPS_WEIGHT_FP8, 0},
    };
    static const struct linear_case flagged = {5, 48, 32,         OPS_ACT_NONE, LINEAR_RESIDUAL_NONE, true,
                                               0, 1,  DTYPE_BF16, true,         OPS_WEIGHT_FP8,       0};
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = linear_rig_open_fp8();

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        linear_case_check(g, o, &cases[i]);
    for (int type = 0; type < CUDA_RIG_TYPES; type++)
        linear_case_check(g, g->cuda[type], &flagged);
    ops_free(o);
}

/* -- with what comes before -- */

/* norm and linear of one pass: y = linear(norm(x)). */
struct chain {
    struct linear_case t;
    struct ops_weight *w;
    struct ops_vector *gamma, *beta;
    void *x, *normed, *y;
    bool tells_consumer;
};

static void chain_run(struct ops *o, const struct chain *c)
{
    const struct linear_case *t = &c->t;
    const struct ops_norm_args norm = {.n_rows = t->m,
                                       .width = t->k,
                                       .x = c->x,
                                       .ld_x = t->k,
                                       .y = c->normed,
                                       .ld_y = t->k,
                                       .gamma = c->gamma,
                                       .beta = c->beta,
                                       .eps = 1e-6f,
                                       .consumer = c->tells_consumer ? c->w : NULL};
    const struct ops_linear_args linear = linear_case_args(t, c->w, c->normed, c->y, NULL);

    if (o->f->norm(o, &norm) < 0 || o->f->linear(o, &linear) < 0)
        fail_msg("%s", o->why.text);
}

static struct chain chain_new(struct ops *o, const struct linear_case *t, const struct linear_inputs *in,
                              const struct tensor *gamma, const struct tensor *beta, bool tells_consumer)
{
    struct chain c = {.t = *t, .tells_consumer = tells_consumer};
    float *nan = ops_rig_nan(in->n_x + in->n_y);
    struct err err;

    c.w = linear_weight(o, in->parts, t->n_parts, t->flags);
    assert_int_equal(o->f->vector_new(o, gamma, &c.gamma, &err), 0);
    assert_int_equal(o->f->vector_new(o, beta, &c.beta, &err), 0);
    c.x = cuda_rig_put(o, in->x, in->n_x);
    c.normed = cuda_rig_put(o, nan, in->n_x);
    c.y = cuda_rig_put(o, nan, in->n_y);
    free(nan);
    return c;
}

static float *chain_take(struct ops *o, struct chain *c, size_t n_y)
{
    o->f->weight_free(o, c->w);
    o->f->vector_free(o, c->gamma);
    o->f->vector_free(o, c->beta);
    cuda_rig_drop(o, c->x);
    cuda_rig_drop(o, c->normed);
    return cuda_rig_take(o, c->y, n_y);
}

static void test_cuda_linear_takes_what_norm_quantised(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = linear_rig_open_fp8();
    const struct linear_case t = {
        .m = 37, .n = 64, .k = 192, .bias = true, .n_parts = 1, .dtype = DTYPE_BF16, .flags = OPS_WEIGHT_FP8};
    struct linear_inputs *in = linear_inputs_new(o, &t), *other = linear_inputs_new(o, &t);
    struct tensor gamma = ops_rig_tensor(DTYPE_F32, t.k, 0, 1), beta = ops_rig_tensor(DTYPE_F32, t.k, 0, 1);
    struct chain on_host = chain_new(g->ref, &t, in, &gamma, &beta, false);
    struct chain told = chain_new(o, &t, in, &gamma, &beta, true), plain = chain_new(o, &t, in, &gamma, &beta, false);
    struct ops_linear_args again = linear_case_args(&t, told.w, told.normed, told.y, NULL);
    float *ref, *out, *same;

    chain_run(g->ref, &on_host);
    chain_run(o, &plain);
    same = chain_take(o, &plain, in->n_y);
    chain_run(o, &told);
    out = ops_rig_nan(in->n_y);
    assert_int_equal(o->f->download(o, out, DTYPE_F32, told.y, DTYPE_BF16, in->n_y), 0);
    ref = chain_take(g->ref, &on_host, in->n_y);
    LINEAR_CASE_NEAR(o, out, ref, &t, 5e-2, "norm's fp8");
    LINEAR_CASE_NEAR(o, out, same, &t, 2e-2, "norm's fp8 beside linear's");
    free(ref);
    free(out);
    free(same);
    /* What norm left has been used: other values in the same place are quantised anew. */
    assert_int_equal(o->f->upload(o, told.normed, DTYPE_BF16, other->x, DTYPE_F32, in->n_x), 0);
    assert_int_equal(o->f->linear(o, &again), 0);
    out = chain_take(o, &told, in->n_y);
    memcpy(in->x, other->x, in->n_x * sizeof(float));
    ref = linear_case_reference(g->ref, &t, in);
    LINEAR_CASE_NEAR(o, out, ref, &t, 5e-2, "after norm's fp8");
    free(ref);
    free(out);
    free(gamma.data);
    free(beta.data);
    linear_inputs_free(in);
    linear_inputs_free(other);
    ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_linear_fp8_equals_quantised_reference),
        cmocka_unit_test(test_cuda_linear_fp8_does_what_the_library_does_not),
        cmocka_unit_test(test_cuda_linear_fp8_takes_sums_in_steps),
        cmocka_unit_test(test_cuda_linear_fp8_rows_have_scales_of_their_own),
        cmocka_unit_test(test_cuda_linear_is_in_fp8_only_where_it_may_be),
        cmocka_unit_test(test_cuda_linear_takes_what_norm_quantised),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
