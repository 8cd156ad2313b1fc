#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/cuda_rig.h"
#include "tests/gpu/linear_rig.h"
#include "tests/unit/ops_rig.h"

/* What CUDA does row by row, against the reference: rows that are aligned and rows that are not. */

/* What the device holds of n values. */
static void round_to(const struct ops *o, float *x, size_t n)
{
    void *held = ops_rig_act(o, x, n);

    tensor_to_f32(x, o->act_dtype, held, n);
    free(held);
}

/* -- norm -- */

struct norm_case {
    int64_t rows, width, ld_x, ld_y;
    bool rms;
    float mean, size; /* of x */
    struct tensor gamma, beta;
    float *x;
};

static void run_norm(struct ops *o, const struct norm_case *t, const struct ops_weight *consumer, const void *x,
                     int64_t ld_x, void *y, int64_t ld_y)
{
    struct ops_vector *g, *b = NULL;
    struct err err;

    assert_int_equal(o->f->vector_new(o, &t->gamma, &g, &err), 0);
    if (!t->rms)
        assert_int_equal(o->f->vector_new(o, &t->beta, &b, &err), 0);
    assert_int_equal(o->f->norm(o, &(struct ops_norm_args){.n_rows = t->rows,
                                                           .width = t->width,
                                                           .x = x,
                                                           .ld_x = ld_x,
                                                           .y = y,
                                                           .ld_y = ld_y,
                                                           .gamma = g,
                                                           .beta = b,
                                                           .eps = 1e-6f,
                                                           .consumer = consumer}),
                     0);
    o->f->vector_free(o, g);
    o->f->vector_free(o, b);
}

static void norm_case_draw(struct norm_case *t, const struct ops *o)
{
    const size_t n = (size_t)(t->rows * t->ld_x);

    t->gamma = ops_rig_tensor(DTYPE_F32, t->width, 0, 1);
    t->beta = ops_rig_tensor(DTYPE_BF16, t->width, 0, 1);
    t->x = ops_rig_random(o, n);
    for (size_t i = 0; i < n; i++)
        t->x[i] = (int64_t)i % t->ld_x < t->width ? t->x[i] * t->size + t->mean : NAN;
    round_to(o, t->x, n);
}

static void norm_case_clear(struct norm_case *t)
{
    free(t->gamma.data);
    free(t->beta.data);
    free(t->x);
}

static void check_norm(const struct cuda_rig *rig, struct ops *o, struct norm_case t)
{
    const size_t n_x = (size_t)(t.rows * t.ld_x), n_y = (size_t)(t.rows * t.ld_y);
    /* a few numbers may happen to lie close together, then their mean takes most digits */
    const double digits = o->act_dtype == DTYPE_F32 ? 1 + fabsf(t.mean) / t.size : 1;
    const double limit = t.width < 16 && o->act_dtype == DTYPE_F32 ? 3e-5 : cuda_rig_limit(o) * digits;

    norm_case_draw(&t, rig->ref);
    round_to(o, t.x, n_x);
    for (int in_place = 0; in_place < 2; in_place++) {
        const int64_t ld_y = in_place ? t.ld_x : t.ld_y;
        float *ref = ops_rig_nan(in_place ? n_x : n_y), *nan = ops_rig_nan(n_y), *out;
        void *x = cuda_rig_put(o, t.x, n_x), *y = in_place ? x : cuda_rig_put(o, nan, n_y);

        run_norm(rig->ref, &t, NULL, t.x, t.ld_x, ref, ld_y);
        run_norm(o, &t, NULL, x, t.ld_x, y, ld_y);
        out = cuda_rig_take(o, y, in_place ? n_x : n_y);
        OPS_RIG_NEAR(out, ref, t.rows, t.width, ld_y, limit, "norm %s %lld x %lld rms %d mean %g in place %d",
                     dtype_name(o->act_dtype), (long long)t.rows, (long long)t.width, t.rms, (double)t.mean, in_place);
        if (!in_place)
            cuda_rig_drop(o, x);
        free(ref);
        free(nan);
        free(out);
    }
    norm_case_clear(&t);
}

static void test_cuda_norm_equals_reference_and_may_be_in_place(void **state)
{
    /* one thread a row to eight warps, and wider than registers hold */
    static const int64_t shapes[][2] = {{1, 1},    {3, 7},     {5, 16},   {2, 44},    {9, 61},
                                        {33, 192}, {300, 192}, {5, 768},  {7, 1408},  {3, 2048},
                                        {9, 2560}, {3, 4096},  {2, 8192}, {2, 16384}, {1, 20000}};
    static const int64_t pads[][2] = {{0, 0}, {8, 16}, {1, 2}};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            for (int pad = 0; pad < 3; pad++) {
                struct norm_case t = {.rows = shapes[i][0],
                                      .width = shapes[i][1],
                                      .ld_x = shapes[i][1] + pads[pad][0],
                                      .ld_y = shapes[i][1] + pads[pad][1],
                                      .rms = (i + (size_t)pad) % 2,
                                      .size = 1};

                check_norm(g, g->cuda[type], t);
                t.rms = !t.rms;
                t.mean = t.width >= 16 && type == CUDA_RIG_F32 ? 30 : 0;
                t.size = 0.5f;
                check_norm(g, g->cuda[type], t);
            }
}

/* The unit matrix, whose rows are exact in e4m3: a product with it shows what was multiplied. */
static struct ops_weight *unit_weight(struct ops *o, int64_t width)
{
    struct tensor t = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {width, width}};
    struct ops_weight *w;
    struct err err;
    float *values = calloc((size_t)(width * width), sizeof(*values));

    assert_non_null(values);
    for (int64_t i = 0; i < width; i++)
        values[i * width + i] = 1;
    t.data = values;
    assert_int_equal(o->f->weight_new(o, &(struct ops_weight_part){.weight = &t}, 1, OPS_WEIGHT_FP8, &w, &err), 0);
    free(values);
    return w;
}

/* Each value within half a step of e4m3 at the row's scale, and bf16's. */
static void check_rounded(const float *out, const float *ref, int64_t rows, int64_t width)
{
    for (int64_t r = 0; r < rows; r++) {
        float max = 0;

        for (int64_t c = 0; c < width; c++)
            max = fmaxf(max, fabsf(ref[r * width + c]));
        for (int64_t c = 0; c < width; c++) {
            const float want = ref[r * width + c], is = out[r * width + c];

            assert_true(fabsf(is - want) <= 0.067f * fabsf(want) + max / 448 / 1000);
        }
    }
}

static void product(struct ops *o, const struct ops_weight *w, int64_t rows, int64_t width, const void *x, void *y)
{
    assert_int_equal(
        o->f->linear(
            o, &(struct ops_linear_args){.weight = w, .n_rows = rows, .x = x, .ld_x = width, .y = y, .ld_y = width}),
        0);
}

static void check_norm_to_fp8(const struct cuda_rig *rig, struct ops *o, int64_t rows, int64_t width, bool rms)
{
    struct norm_case t = {.rows = rows, .width = width, .ld_x = width, .ld_y = width, .rms = rms, .size = 1};
    const size_t n = (size_t)(rows * width);
    float *ref = ops_rig_nan(n), *nan = ops_rig_nan(n), *out;
    struct ops_weight *w = unit_weight(o, width);
    void *x, *y = cuda_rig_put(o, nan, n), *z = cuda_rig_put(o, nan, n);

    norm_case_draw(&t, o);
    for (int64_t c = 0; c < width; c++) /* a row of zeros, and rows of other sizes */
        t.x[c] = t.rms ? 0 : t.x[c];
    memset(t.beta.data, 0, (size_t)width * 2);
    for (int64_t c = 0; c < width; c++)
        ((float *)t.gamma.data)[c] *= c % 3 ? 1 : 1e-3f;
    x = cuda_rig_put(o, t.x, n);
    run_norm(rig->ref, &t, NULL, t.x, width, ref, width);
    run_norm(o, &t, w, x, width, y, width);
    product(o, w, rows, width, y, z);
    out = cuda_rig_take(o, z, n);
    check_rounded(out, ref, rows, width);
    free(out);
    /* what was left behind must not be taken for what another operator writes there */
    run_norm(o, &t, w, x, width, y, width);
    assert_int_equal(
        o->f->rows_copy(o,
                        &(struct ops_rows_args){
                            .n_rows = rows, .width = width, .src = x, .ld_src = width, .dst = y, .ld_dst = width}),
        0);
    z = cuda_rig_put(o, nan, n);
    product(o, w, rows, width, y, z);
    out = cuda_rig_take(o, z, n);
    check_rounded(out, t.x, rows, width);
    free(out);
    cuda_rig_drop(o, x);
    cuda_rig_drop(o, y);
    o->f->weight_free(o, w);
    norm_case_clear(&t);
    free(ref);
    free(nan);
}

static void test_cuda_norm_rounds_for_a_product_in_fp8(void **state)
{
    static const int64_t shapes[][2] = {{1, 16}, {5, 192}, {17, 768}, {9, 1408}, {3, 2560}};
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o;

    o = linear_rig_open_fp8();
    for (size_t i = 0; i < (cuda_rig_is_emulated() ? 3 : sizeof(shapes) / sizeof(*shapes)); i++)
        for (int rms = 0; rms < 2; rms++)
            check_norm_to_fp8(g, o, shapes[i][0], shapes[i][1], rms);
    ops_free(o);
}

/* -- gate -- */

static double tail_limit(const struct ops *o)
{
    return o->act_dtype == DTYPE_F32 ? 3e-5 : o->act_dtype == DTYPE_F16 ? 1e-3 : 8e-3;
}

/* y apart from x, then in x. */
static void check_gate(const struct cuda_rig *g, struct ops *o, int64_t rows, int64_t width, int pad, enum ops_act act)
{
    const int64_t ld_x = 2 * width + pad, ld_y = width + 2 * pad;
    const size_t n_x = (size_t)(rows * ld_x), n_y = (size_t)(rows * ld_y);
    float *x = ops_rig_random(o, n_x), *ref = ops_rig_nan(n_y), *nan = ops_rig_nan(n_y), *out, *in_place;
    struct ops_gate_args a = {.n_rows = rows, .width = width, .act = act, .ld_x = ld_x, .x = x, .y = ref, .ld_y = ld_y};
    /* f16 has no more digits below this */
    const float least = o->act_dtype == DTYPE_F16 ? 0x1p-24f : 1e-13f;
    void *d_x;

    for (size_t i = 0; i < n_x; i++)
        x[i] *= i % 5 < 4 ? 2 : 8; /* into the tails of the activation */
    assert_int_equal(g->ref->f->gate(g->ref, &a), 0);
    a.x = d_x = cuda_rig_put(o, x, n_x);
    a.y = cuda_rig_put(o, nan, n_y);
    assert_int_equal(o->f->gate(o, &a), 0);
    out = cuda_rig_take(o, a.y, n_y);
    /* a few values may all lie in a tail, or where f16 has few digits: each is held by its own limit below */
    OPS_RIG_NEAR(out, ref, rows, width, ld_y, rows * width < 64 ? 1 : cuda_rig_limit(o), "gate %s %lld x %lld act %d",
                 dtype_name(o->act_dtype), (long long)rows, (long long)width, (int)act);
    for (size_t i = 0; i < n_y; i++) /* far out on the left too, where 1 + tanh would cancel */
        if (!isnan(ref[i]))
            assert_true(fabsf(out[i] - ref[i]) <= (float)tail_limit(o) * fabsf(ref[i]) + least);
    a.y = d_x;
    a.ld_y = ld_x;
    assert_int_equal(o->f->gate(o, &a), 0);
    in_place = cuda_rig_take(o, d_x, n_x);
    for (int64_t r = 0; r < rows; r++) {
        assert_memory_equal(in_place + r * ld_x, out + r * ld_y, (size_t)width * sizeof(float));
        assert_memory_equal(in_place + r * ld_x + width, x + r * ld_x + width, (size_t)(ld_x - width) * sizeof(float));
    }
    free(x);
    free(ref);
    free(nan);
    free(out);
    free(in_place);
}

static void test_cuda_gate_equals_reference_and_may_be_in_place(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {2, 16}, {9, 61}, {33, 296}, {5, 5120}};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int act = OPS_ACT_NONE; act <= OPS_ACT_GELU_TANH; act++)
            for (int type = 0; type < CUDA_RIG_TYPES; type++)
                for (int pad = 0; pad <= 8; pad += pad ? 5 : 3)
                    check_gate(g, g->cuda[type], shapes[i][0], shapes[i][1], pad, (enum ops_act)act);
}

/* -- rows -- */

static void check_rows_copy(struct ops *o, int rows, int64_t width, int64_t ld_x, int64_t ld_y, bool with_src,
                            bool with_dst)
{
    const size_t n_x = (size_t)(rows * ld_x), n_y = (size_t)(rows * ld_y);
    float *x = ops_rig_random(o, n_x), *nan = ops_rig_nan(n_y), *y;
    struct ops_rows_args a = {.n_rows = rows, .width = width, .ld_src = ld_x, .ld_dst = ld_y};
    int32_t *from = calloc((size_t)rows, sizeof(*from)), *to = calloc((size_t)rows, sizeof(*to));
    void *d_x = cuda_rig_put(o, x, n_x);

    assert_true(from && to);
    for (int i = 0; i < rows; i++) {
        from[i] = ops_rig_below(rows);
        to[i] = rows - 1 - i;
    }
    a.src = d_x;
    a.src_index = with_src ? from : NULL;
    a.dst_index = with_dst ? to : NULL;
    a.dst = cuda_rig_put(o, nan, n_y);
    assert_int_equal(o->f->rows_copy(o, &a), 0);
    y = cuda_rig_take(o, a.dst, n_y);
    for (int64_t i = 0; i < rows; i++) {
        const float *row = y + (with_dst ? to[i] : i) * ld_y;

        assert_memory_equal(row, x + (with_src ? from[i] : i) * ld_x, (size_t)width * sizeof(float));
        for (int64_t c = width; c < ld_y; c++)
            assert_true(isnan(row[c]));
    }
    cuda_rig_drop(o, d_x);
    free(from);
    free(to);
    free(x);
    free(nan);
    free(y);
}

static void test_cuda_rows_copy_follows_both_indices(void **state)
{
    /* rows, width, ld of source and destination: units of 2, 4 and 16 bytes */
    static const int shapes[][4] = {{1, 1, 1, 1},  {50, 37, 40, 39},      {50, 6, 8, 10},        {33, 64, 72, 64},
                                    {7, 8, 16, 8}, {9, 1408, 1408, 1416}, {3, 5000, 5000, 5000}, {70000, 4, 4, 5}};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            for (int which = 0; which < 4; which++)
                check_rows_copy(g->cuda[type], shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], which & 1,
                                which & 2);
}

/* -- pixels -- */

static void check_patchify(const struct cuda_rig *g, int n_images, int size, int patch)
{
    const size_t n = (size_t)n_images * (size_t)(size * size * 3);
    uint8_t *rgb = malloc(n);
    float *ref = ops_rig_nan(n), *nan = ops_rig_nan(n);
    struct ops_patchify_args a = {.n_images = n_images,
                                  .image_size = size,
                                  .patch_size = patch,
                                  .rgb = rgb,
                                  .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                  .std = {0.26862954f, 0.26130258f, 0.27577711f},
                                  .rescale = 1 / 255.0f};

    assert_non_null(rgb);
    for (int type = 0; type < CUDA_RIG_TYPES; type++) {
        struct ops *o = g->cuda[type];
        float *out;

        for (size_t j = 0; j < n; j++)
            rgb[j] = (uint8_t)ops_rig_below(256);
        a.y = ref;
        assert_int_equal(g->ref->f->patchify(g->ref, &a), 0);
        round_to(o, ref, n);
        a.y = cuda_rig_put(o, nan, n);
        assert_int_equal(o->f->patchify(o, &a), 0);
        memset(rgb, 0, n); /* it is the caller's again */
        out = cuda_rig_take(o, a.y, n);
        assert_memory_equal(out, ref, n * sizeof(*out));
        free(out);
    }
    free(rgb);
    free(ref);
    free(nan);
}

static void test_cuda_patchify_equals_reference(void **state)
{
    /* the last one's patches are larger than shared memory */
    static const int shapes[][3] = {{1, 1, 1},    {2, 6, 3},  {3, 28, 14},  {2, 224, 14},
                                    {1, 364, 14}, {1, 35, 5}, {2, 130, 130}};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        check_patchify(g, shapes[i][0], shapes[i][1], shapes[i][2]);
}

/* -- tokens and look-ups -- */

static void run_vit_embed(struct ops *o, const int *shape, const struct tensor *cls, const struct tensor *pos,
                          const void *patches, void *y)
{
    struct ops_vector *c, *e;
    struct err err;

    assert_int_equal(o->f->vector_new(o, cls, &c, &err), 0);
    assert_int_equal(o->f->vector_new(o, pos, &e, &err), 0);
    assert_int_equal(o->f->vit_embed(o, shape[0], shape[1], shape[2], patches, c, e, y), 0);
    o->f->vector_free(o, c);
    o->f->vector_free(o, e);
}

static void test_cuda_vit_embed_equals_reference(void **state)
{
    static const int shapes[][3] = {{1, 2, 1}, {3, 5, 7}, {2, 257, 304}, {2, 17, 1408}};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++) {
            const int64_t tokens = shapes[i][1], width = shapes[i][2];
            const size_t n = (size_t)(shapes[i][0] * tokens * width);
            const size_t n_patches = (size_t)(shapes[i][0] * (tokens - 1) * width);
            struct ops *o = g->cuda[type];
            struct tensor cls = ops_rig_tensor(DTYPE_F16, width, 0, 1);
            struct tensor pos = ops_rig_tensor(DTYPE_F32, tokens, width, 1);
            float *patches = ops_rig_random(o, n_patches), *ref = ops_rig_nan(n), *nan = ops_rig_nan(n), *out;
            void *d = cuda_rig_put(o, patches, n_patches), *y = cuda_rig_put(o, nan, n);

            run_vit_embed(g->ref, shapes[i], &cls, &pos, patches, ref);
            run_vit_embed(o, shapes[i], &cls, &pos, d, y);
            out = cuda_rig_take(o, y, n);
            round_to(o, ref, n);
            assert_memory_equal(out, ref, n * sizeof(*out));
            cuda_rig_drop(o, d);
            free(cls.data);
            free(pos.data);
            free(patches);
            free(ref);
            free(nan);
            free(out);
        }
}

enum { EMBED_ROWS = 30, EMBED_TABLE = 11 };

/* Rows are set in one order, and others added to them in another. */
static void run_embed(struct ops *o, const struct tensor *t, const int32_t *index, const int32_t *to, void *y,
                      int64_t ld)
{
    struct ops_table *table;
    struct err err;

    assert_int_equal(o->f->table_new(o, t, &table, &err), 0);
    assert_int_equal(o->f->embed(o, table, EMBED_ROWS, index, to, false, y, ld), 0);
    assert_int_equal(o->f->embed(o, table, EMBED_ROWS, index, NULL, true, y, ld), 0);
    o->f->table_free(o, table);
}

static void check_embed(const struct cuda_rig *g, struct ops *o, enum dtype dtype, int64_t width, int64_t ld)
{
    struct tensor t = ops_rig_tensor(dtype, EMBED_TABLE, width, 1);
    const size_t n = (size_t)(EMBED_ROWS * ld);
    float *ref = ops_rig_nan(n), *nan = ops_rig_nan(n), *out;
    void *y = cuda_rig_put(o, nan, n);
    int32_t index[EMBED_ROWS], to[EMBED_ROWS];

    for (int i = 0; i < EMBED_ROWS; i++) {
        index[i] = ops_rig_below(EMBED_TABLE);
        to[i] = (i * 7 + 1) % EMBED_ROWS;
    }
    run_embed(g->ref, &t, index, to, ref, ld);
    run_embed(o, &t, index, to, y, ld);
    out = cuda_rig_take(o, y, n);
    OPS_RIG_NEAR(out, ref, EMBED_ROWS, width, ld, o->act_dtype == DTYPE_F32 ? 0 : cuda_rig_limit(o),
                 "embed %s width %lld", dtype_name(o->act_dtype), (long long)width);
    free(t.data);
    free(ref);
    free(nan);
    free(out);
}

static void test_cuda_embed_sets_and_adds_table_rows(void **state)
{
    static const int64_t shapes[][2] = {{1, 3}, {192, 200}, {300, 303}, {2560, 2560}};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            for (int from = 0; from < 3; from++)
                check_embed(g, g->cuda[type], dtypes[from], shapes[i][0], shapes[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_norm_equals_reference_and_may_be_in_place),
        cmocka_unit_test(test_cuda_norm_rounds_for_a_product_in_fp8),
        cmocka_unit_test(test_cuda_gate_equals_reference_and_may_be_in_place),
        cmocka_unit_test(test_cuda_rows_copy_follows_both_indices),
        cmocka_unit_test(test_cuda_patchify_equals_reference),
        cmocka_unit_test(test_cuda_vit_embed_equals_reference),
        cmocka_unit_test(test_cuda_embed_sets_and_adds_table_rows),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
