/* Products in recorded passes: norm -> product -> product, beside the same calls outside of a pass. */
#include "tests/gpu/cuda_rig.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "tests/gpu/linear_rig.h"
#include "tests/unit/ops_rig.h"

static void must(struct ops *o, int rc)
{
    if (rc < 0)
        fail_msg("%d: %s", rc, o->why.text);
}

static void *device_new(struct ops *o, size_t n_bytes)
{
    void *d = NULL;

    must(o, o->f->alloc(o, n_bytes, &d));
    return d;
}

/* The operands of the products are rounded to e4m3 by whoever makes them, where there is fp8. */
struct stack {
    struct ops *o;
    struct ops_vector *gamma;
    struct ops_weight *up, *down;
    void *d_x, *d_h, *d_wide;
};

enum { STACK_ROWS = 5, STACK_WIDTH = 64, STACK_WIDE = 96 };

static void stack_init(struct stack *k, struct ops *o)
{
    struct tensor gamma = ops_rig_tensor(DTYPE_F32, STACK_WIDTH, 0, 1);
    struct tensor up = ops_rig_tensor(o->act_dtype, STACK_WIDE, STACK_WIDTH, 0.1F);
    struct tensor down = ops_rig_tensor(o->act_dtype, STACK_WIDTH, STACK_WIDE, 0.1F);
    struct err err = {""};

    *k = (struct stack){.o = o};
    if (o->f->vector_new(o, &gamma, &k->gamma, &err) < 0 ||
        o->f->weight_new(o, &(struct ops_weight_part){.weight = &up}, 1, OPS_WEIGHT_FP8, &k->up, &err) < 0 ||
        o->f->weight_new(o, &(struct ops_weight_part){.weight = &down}, 1, OPS_WEIGHT_FP8, &k->down, &err) < 0)
        fail_msg("%s", err.text);
    k->d_x = device_new(o, STACK_ROWS * STACK_WIDTH * 4);
    k->d_h = device_new(o, STACK_ROWS * STACK_WIDTH * 4);
    k->d_wide = device_new(o, STACK_ROWS * STACK_WIDE * 4);
    free(gamma.data);
    free(up.data);
    free(down.data);
}

static void stack_release(struct stack *k)
{
    k->o->f->vector_free(k->o, k->gamma);
    k->o->f->weight_free(k->o, k->up);
    k->o->f->weight_free(k->o, k->down);
    cuda_rig_drop(k->o, k->d_x);
    cuda_rig_drop(k->o, k->d_h);
    cuda_rig_drop(k->o, k->d_wide);
}

static int stack_product(struct stack *k, const struct ops_weight *w, const void *d_x, int n_in, void *d_y, int n_out,
                         const void *d_residual)
{
    return k->o->f->linear(k->o, &(struct ops_linear_args){.weight = w,
                                                           .n_rows = STACK_ROWS,
                                                           .x = d_x,
                                                           .ld_x = n_in,
                                                           .y = d_y,
                                                           .ld_y = n_out,
                                                           .act = OPS_ACT_GELU_ERF,
                                                           .residual = d_residual,
                                                           .ld_residual = n_out});
}

/* Two layers of the same weights; x is their input and output. */
static int stack_run(struct stack *k)
{
    int rc = 0;

    for (int layer = 0; layer < 2 && rc == 0; layer++) {
        rc = k->o->f->norm(k->o, &(struct ops_norm_args){.n_rows = STACK_ROWS,
                                                         .width = STACK_WIDTH,
                                                         .x = k->d_x,
                                                         .ld_x = STACK_WIDTH,
                                                         .y = k->d_h,
                                                         .ld_y = STACK_WIDTH,
                                                         .gamma = k->gamma,
                                                         .eps = 1e-5F,
                                                         .consumer = k->up});
        if (rc == 0)
            rc = stack_product(k, k->up, k->d_h, STACK_WIDTH, k->d_wide, STACK_WIDE, NULL);
        if (rc == 0)
            rc = stack_product(k, k->down, k->d_wide, STACK_WIDE, k->d_x, STACK_WIDTH, k->d_x);
    }
    return rc;
}

static void check_stack(struct ops *o)
{
    const size_t n = STACK_ROWS * STACK_WIDTH;
    const enum dtype act_dtype = o->act_dtype;
    struct stack k;

    stack_init(&k, o);
    for (int run = 0; run < 6; run++) {
        float *x = ops_rig_random(o, n), *got = ops_rig_buffer(n), *want = ops_rig_buffer(n);

        must(o, o->f->upload(o, k.d_x, act_dtype, x, DTYPE_F32, n));
        must(o, ops_graph_begin(o, 3));
        must(o, stack_run(&k));
        must(o, ops_graph_end(o));
        must(o, o->f->download(o, got, DTYPE_F32, k.d_x, act_dtype, n));
        must(o, o->f->upload(o, k.d_x, act_dtype, x, DTYPE_F32, n));
        must(o, stack_run(&k));
        must(o, o->f->download(o, want, DTYPE_F32, k.d_x, act_dtype, n));
        OPS_RIG_NEAR(got, want, STACK_ROWS, STACK_WIDTH, STACK_WIDTH, 0.0, "%s%s, run %d", dtype_name(act_dtype),
                     o->fp8 ? " with fp8" : "", run);
        assert_true(ops_rig_distance(got, x, STACK_ROWS, STACK_WIDTH, STACK_WIDTH) > 0.01);
        free(x);
        free(got);
        free(want);
    }
    stack_release(&k);
}

static void test_products_in_passes_are_those_outside(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);

    for (int t = 0; t < CUDA_RIG_TYPES; t++)
        check_stack(g->cuda[t]);
}

static void test_products_in_fp8_too(void **state)
{
    struct ops *o;

    (void)cuda_rig_get(state);
    o = linear_rig_open_fp8();
    check_stack(o);
    ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_in_passes_are_those_outside),
        cmocka_unit_test(test_products_in_fp8_too),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
