#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/gpu/linear_rig.h"

/* Products of ViT-g's size, which only a GPU computes in reasonable time, beside plain ones in f32 on the same GPU. */

enum { VIT_ROWS = 8192, VIT_WIDTH = 1408, VIT_INNER = 6144, VIT_RUNS = 20 };

/* y in f32, and the seconds of one product. */
static float *run_vit(struct ops *o, const struct ops_weight_part *part, unsigned flags, enum ops_act act,
                      const float *x, double *ret_seconds)
{
    const size_t n_y = (size_t)VIT_ROWS * VIT_INNER;
    struct ops_weight *w = linear_weight(o, part, 1, flags);
    void *d_x = cuda_rig_put(o, x, (size_t)VIT_ROWS * VIT_WIDTH), *y;
    struct timespec from, to;
    struct ops_linear_args a;

    assert_int_equal(o->f->alloc(o, n_y * dtype_size_bytes(o->act_dtype), &y), 0);
    a = (struct ops_linear_args){
        .weight = w, .n_rows = VIT_ROWS, .x = d_x, .ld_x = VIT_WIDTH, .y = y, .ld_y = VIT_INNER, .act = act};
    assert_int_equal(o->f->linear(o, &a), 0);
    assert_int_equal(o->f->sync(o), 0);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < VIT_RUNS; i++)
        assert_int_equal(o->f->linear(o, &a), 0);
    assert_int_equal(o->f->sync(o), 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    *ret_seconds = ((double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9) / VIT_RUNS;
    cuda_rig_drop(o, d_x);
    o->f->weight_free(o, w);
    return cuda_rig_take(o, y, n_y);
}

static void check_vit(const struct cuda_rig *g, struct ops *o, unsigned flags, double limit)
{
    const double flops = 2.0 * VIT_ROWS * VIT_WIDTH * VIT_INNER;
    struct tensor w = ops_rig_tensor(DTYPE_BF16, VIT_INNER, VIT_WIDTH, 1 / sqrtf(VIT_WIDTH));
    struct tensor bias = ops_rig_tensor(DTYPE_BF16, VIT_INNER, 0, 1);
    const struct ops_weight_part part = {&w, &bias};
    float *x = ops_rig_random(o, (size_t)VIT_ROWS * VIT_WIDTH), *ref, *out;
    double seconds;

    ref = run_vit(g->cuda[CUDA_RIG_F32], &part, 0, OPS_ACT_GELU_ERF, x, &seconds);
    out = run_vit(o, &part, flags, OPS_ACT_GELU_ERF, x, &seconds);
    printf("%s%s %d x %d x %d with gelu: %.0f TFLOP/s\n", dtype_name(o->act_dtype), flags ? " (e4m3)" : "", VIT_ROWS,
           VIT_INNER, VIT_WIDTH, flops / seconds * 1e-12);
    OPS_RIG_NEAR(out, ref, VIT_ROWS, VIT_INNER, VIT_INNER, limit, "ViT %s flags %u", dtype_name(o->act_dtype), flags);
    /* Products of ours, for what the library refuses, are slower by far. */
    assert_true(flops / seconds > 20e12);
    free(w.data);
    free(bias.data);
    free(x);
    free(ref);
    free(out);
}

static void test_cuda_linear_of_vit_g(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);

    if (cuda_rig_is_emulated())
        skip();
    check_vit(g, g->cuda[CUDA_RIG_BF16], 0, cuda_rig_limit(g->cuda[CUDA_RIG_BF16]));
}

static void test_cuda_linear_of_vit_g_in_fp8(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o;

    if (cuda_rig_is_emulated())
        skip();
    o = linear_rig_open_fp8();
    check_vit(g, o, OPS_WEIGHT_FP8, 5e-2);
    ops_free(o);
}

/* While a matrix becomes e4m3, little more than what stays is taken. */
static void test_cuda_weight_fp8_takes_little_more_than_its_size(void **state)
{
    enum { N = 8192, K = 8192, MORE = 48 << 20 };
    struct tensor t;
    struct ops_weight_part part = {&t, NULL};
    struct ops *o;
    size_t free_bytes, total_bytes;
    void *most;

    (void)cuda_rig_get(state);
    if (cuda_rig_is_emulated())
        skip();
    o = linear_rig_open_fp8();
    t = ops_rig_tensor(DTYPE_BF16, N, K, 1);
    o->f->weight_free(o, linear_weight(o, &part, 1, OPS_WEIGHT_FP8)); /* buffers of loading are there now */
    assert_int_equal(o->f->memory(o, &free_bytes, &total_bytes), 0);
    assert_int_equal(o->f->alloc(o, free_bytes - (size_t)N * K - MORE, &most), 0);
    o->f->weight_free(o, linear_weight(o, &part, 1, OPS_WEIGHT_FP8));
    o->f->release(o, most);
    free(t.data);
    ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_linear_of_vit_g),
        cmocka_unit_test(test_cuda_linear_of_vit_g_in_fp8),
        cmocka_unit_test(test_cuda_weight_fp8_takes_little_more_than_its_size),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
