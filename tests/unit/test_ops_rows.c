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

#include "tests/unit/fixture.h"
#include "tests/unit/ops_rig.h"

/* What the CPU back end does row by row, against the reference. */

/* -- norm -- */

static void run_norm(struct ops *o, int64_t rows, int64_t width, int64_t ld, const struct tensor *gamma,
                     const struct tensor *beta, const void *x, void *y)
{
    struct ops_vector *g, *b = NULL;
    struct err err;

    assert_int_equal(o->f->vector_new(o, gamma, &g, &err), 0);
    if (beta)
        assert_int_equal(o->f->vector_new(o, beta, &b, &err), 0);
    assert_int_equal(o->f->norm(o, &(struct ops_norm_args){.n_rows = rows,
                                                           .width = width,
                                                           .x = x,
                                                           .ld_x = ld,
                                                           .y = y,
                                                           .ld_y = ld,
                                                           .gamma = g,
                                                           .beta = b,
                                                           .eps = 1e-6f}),
                     0);
    o->f->vector_free(o, g);
    o->f->vector_free(o, b);
}

static void check_norm(const struct ops_rig *rig, int type, int64_t rows, int64_t width, int pad, bool rms, float mean,
                       float size)
{
    const int64_t ld = width + pad;
    const size_t n = (size_t)(rows * ld);
    struct tensor gamma = ops_rig_tensor(DTYPE_F32, width, 0, 1), beta = ops_rig_tensor(DTYPE_BF16, width, 0, 1);
    struct ops *o = rig->cpu[type];
    float *drawn, *x, *ref = ops_rig_nan(n), *nan = ops_rig_nan(n);
    /* a few numbers may happen to lie close together, then their mean takes most digits */
    double limit = type == OPS_RIG_F32 ? (width < 16 ? 3e-5 : 4e-7) * (1 + fabsf(mean) / size) : 4e-3;

    x = ops_rig_random(rig->ref, n);
    for (size_t i = 0; i < n; i++)
        x[i] = (int64_t)i % ld < width ? x[i] * size + mean : NAN;
    drawn = x;
    x = ops_rig_back(o, ops_rig_act(o, drawn, n), n);
    free(drawn);
    run_norm(rig->ref, rows, width, ld, &gamma, rms ? NULL : &beta, x, ref);
    for (int isa = CPU_ISA_BASE; isa <= (int)rig->best; isa++)
        for (int in_place = 0; in_place < 2; in_place++) {
            void *from = ops_rig_act(o, x, n), *y = in_place ? from : ops_rig_act(o, nan, n);
            float *out;

            ops_rig_use(rig, type, (enum cpu_isa)isa);
            run_norm(o, rows, width, ld, &gamma, rms ? NULL : &beta, from, y);
            out = ops_rig_back(o, y, n);
            OPS_RIG_NEAR(out, ref, rows, width, ld, limit, "norm %s %lld x %lld, isa %d", dtype_name(o->act_dtype),
                         (long long)rows, (long long)width, isa);
            free(out);
            if (!in_place)
                free(from);
        }
    free(gamma.data);
    free(beta.data);
    free(x);
    free(ref);
    free(nan);
}

static void test_ops_norm_equals_reference_and_may_be_in_place(void **state)
{
    static const int64_t shapes[][2] = {{1, 2}, {3, 7}, {5, 16}, {2, 44}, {9, 61}, {33, 192}, {700, 192}, {5, 1408}};

    const struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int rms = 0; rms < 2; rms++)
            for (int type = 0; type < OPS_RIG_TYPES; type++) {
                if (!g->cpu[type])
                    continue;
                check_norm(g, type, shapes[i][0], shapes[i][1], (int)i % 3, rms, 0, 1);
                /* two numbers near 30 may differ by a few ulp only */
                if (shapes[i][1] >= 16 && type == OPS_RIG_F32)
                    check_norm(g, type, shapes[i][0], shapes[i][1], 0, rms, 30, 0.5f);
            }
}

/* -- gate -- */

/* y apart from x, then in x. */
static void check_gate(const struct ops_rig *g, int type, int64_t rows, int64_t width, enum ops_act act)
{
    const int64_t ld_x = 2 * width + 3, ld_y = width + 2;
    const size_t n_x = (size_t)(rows * ld_x), n_y = (size_t)(rows * ld_y);
    struct ops *o = g->cpu[type];
    float *x = ops_rig_random(o, n_x), *ref = ops_rig_nan(n_y), *nan = ops_rig_nan(n_y);
    struct ops_gate_args a = {.n_rows = rows, .width = width, .act = act, .ld_x = ld_x};

    for (size_t i = 0; i < n_x; i++)
        x[i] *= i % 5 < 4 ? 2 : 8; /* into the tails of the activation */
    a.x = x;
    a.y = ref;
    a.ld_y = ld_y;
    assert_int_equal(g->ref->f->gate(g->ref, &a), 0);
    for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++) {
        void *act_x = ops_rig_act(o, x, n_x);
        float *out, *in_place;

        ops_rig_use(g, type, (enum cpu_isa)isa);
        a.x = act_x;
        a.y = ops_rig_act(o, nan, n_y);
        a.ld_y = ld_y;
        assert_int_equal(o->f->gate(o, &a), 0);
        out = ops_rig_back(o, a.y, n_y);
        if (rows * width >= 64) /* fewer may all lie in a tail */
            OPS_RIG_NEAR(out, ref, rows, width, ld_y, type == OPS_RIG_F32 ? 1e-6 : 4e-3,
                         "gate %s %lld x %lld act %d isa %d", dtype_name(o->act_dtype), (long long)rows,
                         (long long)width, (int)act, isa);
        for (int64_t r = 0; r < rows; r++) /* far out on the left too, where 1 + tanh would cancel */
            for (int64_t i = 0; i < width; i++) {
                const float *from = x + r * ld_x + i, want = ref[r * ld_y + i];
                const float erf_limit = act == OPS_ACT_GELU_ERF ? 2.5e-7f * fabsf(from[0] * from[width]) : 0;

                assert_true(fabsf(out[r * ld_y + i] - want) <=
                            (type == OPS_RIG_F32 ? 3e-5f : 4e-3f) * fabsf(want) + erf_limit + 1e-13f);
            }
        a.y = act_x;
        a.ld_y = ld_x;
        assert_int_equal(o->f->gate(o, &a), 0);
        in_place = ops_rig_back(o, act_x, n_x);
        for (int64_t r = 0; r < rows; r++) {
            assert_memory_equal(in_place + r * ld_x, out + r * ld_y, (size_t)width * sizeof(float));
            assert_memory_equal(in_place + r * ld_x + width, x + r * ld_x + width, (size_t)width * sizeof(float));
        }
        free(out);
        free(in_place);
    }
    free(x);
    free(ref);
    free(nan);
}

static void test_ops_gate_equals_reference_and_may_be_in_place(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {2, 16}, {9, 61}, {33, 300}, {64, 5120}};
    const struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int act = OPS_ACT_NONE; act <= OPS_ACT_GELU_TANH; act++)
            for (int type = 0; type < OPS_RIG_TYPES; type++)
                if (g->cpu[type])
                    check_gate(g, type, shapes[i][0], shapes[i][1], (enum ops_act)act);
}

/* A gate of ones leaves the activation alone. The erf form is right to some parts of |x| (as with erf itself: where it
 * is near -1 nothing else is left of it), the others to some of the result, which may be 0 where e^x is below the
 * smallest normal number. */
static void test_ops_activations_are_right_everywhere(void **state)
{
    enum { N = 40001 };
    static const double limit[] = {
        [OPS_ACT_NONE] = 0, [OPS_ACT_RELU] = 0, [OPS_ACT_GELU_ERF] = 2.5e-7, [OPS_ACT_GELU_TANH] = 2e-5};
    const struct ops_rig *g = *state;
    struct ops *o = g->cpu[OPS_RIG_F32];
    float *x = calloc(2 * N, sizeof(*x)), *y = calloc(N, sizeof(*y));

    assert_true(x && y);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) / (N / 2) * (i % 2 ? 15 : 1); /* dense about 0, and far into both tails */
        x[N + i] = 1;
    }
    for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++)
        for (int act = OPS_ACT_NONE; act <= OPS_ACT_GELU_TANH; act++) {
            ops_rig_use(g, OPS_RIG_F32, (enum cpu_isa)isa);
            assert_int_equal(
                o->f->gate(o,
                           &(struct ops_gate_args){
                               .n_rows = 1, .width = N, .act = act, .x = x, .ld_x = 2 * N, .y = y, .ld_y = N}),
                0);
            for (int i = 0; i < N; i++) {
                double v = x[i], u = sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
                double want = act == OPS_ACT_NONE       ? v
                              : act == OPS_ACT_RELU     ? fmax(v, 0)
                              : act == OPS_ACT_GELU_ERF ? 0.5 * v * erfc(-v * M_SQRT1_2)
                                                        : v / (1 + exp(-2 * u));

                if (!(fabs(y[i] - want) <= limit[act] * fabs(act == OPS_ACT_GELU_ERF ? v : want) + 2e-37))
                    fail_msg("act %d isa %d at %.9g: %.9g, not %.9g", act, isa, v, (double)y[i], want);
            }
        }
    free(x);
    free(y);
}

/* -- rows, pixels, look-ups -- */

static void check_rows_copy(struct ops *o, bool with_src, bool with_dst)
{
    enum { ROWS = 50, WIDTH = 37, LD_X = 40, LD_Y = 39 };
    float *x = ops_rig_random(o, ROWS * LD_X), *nan = ops_rig_nan(ROWS * LD_Y), *y;
    void *act_x = ops_rig_act(o, x, ROWS * LD_X);
    struct ops_rows_args a = {.n_rows = ROWS, .width = WIDTH, .src = act_x, .ld_src = LD_X, .ld_dst = LD_Y};
    int32_t from[ROWS], to[ROWS];

    for (int i = 0; i < ROWS; i++) {
        from[i] = ops_rig_below(ROWS);
        to[i] = (i * 7 + 3) % ROWS;
    }
    a.src_index = with_src ? from : NULL;
    a.dst_index = with_dst ? to : NULL;
    a.dst = ops_rig_act(o, nan, ROWS * LD_Y);
    assert_int_equal(o->f->rows_copy(o, &a), 0);
    y = ops_rig_back(o, a.dst, ROWS * LD_Y);
    for (int i = 0; i < ROWS; i++) {
        const float *row = y + (with_dst ? to[i] : i) * LD_Y;

        assert_memory_equal(row, x + (with_src ? from[i] : i) * LD_X, WIDTH * sizeof(float));
        assert_true(isnan(row[WIDTH]) && isnan(row[LD_Y - 1]));
    }
    free(x);
    free(nan);
    free(y);
    free(act_x);
}

static void test_ops_rows_copy_follows_both_indices(void **state)
{
    const struct ops_rig *g = *state;

    for (int which = 0; which < 4; which++) {
        check_rows_copy(g->ref, which & 1, which & 2);
        for (int type = 0; type < OPS_RIG_TYPES; type++)
            if (g->cpu[type])
                check_rows_copy(g->cpu[type], which & 1, which & 2);
    }
}

static void test_ops_patchify_equals_reference(void **state)
{
    static const int shapes[][3] = {{1, 1, 1}, {2, 6, 3}, {3, 28, 14}, {2, 224, 14}, {1, 35, 5}};
    const struct ops_rig *p = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        size_t n = (size_t)shapes[i][0] * shapes[i][1] * shapes[i][1] * 3;
        uint8_t *rgb = malloc(n);
        float *ref = ops_rig_nan(n), *out = ops_rig_nan(n);
        struct ops_patchify_args a = {.n_images = shapes[i][0],
                                      .image_size = shapes[i][1],
                                      .patch_size = shapes[i][2],
                                      .rgb = rgb,
                                      .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                      .std = {0.26862954f, 0.26130258f, 0.27577711f},
                                      .rescale = 1 / 255.0f};

        assert_non_null(rgb);
        for (size_t j = 0; j < n; j++)
            rgb[j] = (uint8_t)ops_rig_below(256);
        a.y = ref;
        assert_int_equal(p->ref->f->patchify(p->ref, &a), 0);
        a.y = out;
        assert_int_equal(p->cpu[OPS_RIG_F32]->f->patchify(p->cpu[OPS_RIG_F32], &a), 0);
        assert_memory_equal(out, ref, n * sizeof(float));
        if (p->cpu[OPS_RIG_BF16]) {
            void *rounded = ops_rig_act(p->cpu[OPS_RIG_BF16], ref, n);

            assert_int_equal(p->cpu[OPS_RIG_BF16]->f->patchify(p->cpu[OPS_RIG_BF16], &a), 0);
            assert_memory_equal(out, rounded, n * 2);
            free(rounded);
        }
        free(rgb);
        free(ref);
        free(out);
    }
}

static void run_vit_embed(struct ops *o, const int *shape, const struct tensor *cls, const struct tensor *pos,
                          const float *patches, void *y)
{
    const int64_t b = shape[0], tokens = shape[1], width = shape[2];
    void *act = ops_rig_act(o, patches, (size_t)(b * (tokens - 1) * width));
    struct ops_vector *c, *e;
    struct err err;

    assert_int_equal(o->f->vector_new(o, cls, &c, &err), 0);
    assert_int_equal(o->f->vector_new(o, pos, &e, &err), 0);
    assert_int_equal(o->f->vit_embed(o, b, tokens, width, act, c, e, y), 0);
    o->f->vector_free(o, c);
    o->f->vector_free(o, e);
    free(act);
}

static void test_ops_vit_embed_equals_reference(void **state)
{
    static const int shapes[][3] = {{1, 2, 1}, {3, 5, 7}, {2, 257, 300}};
    const struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int type = 0; type < OPS_RIG_TYPES; type++) {
            const int64_t tokens = shapes[i][1], width = shapes[i][2];
            const size_t n = (size_t)(shapes[i][0] * tokens * width);
            struct ops *o = g->cpu[type];
            struct tensor cls, pos;
            float *patches, *ref, *out;
            void *want;

            if (!o)
                continue;
            cls = ops_rig_tensor(DTYPE_F16, width, 0, 1);
            pos = ops_rig_tensor(DTYPE_F32, tokens, width, 1);
            patches = ops_rig_random(o, (size_t)(shapes[i][0] * (tokens - 1) * width));
            ref = ops_rig_nan(n);
            out = ops_rig_nan(n);
            run_vit_embed(g->ref, shapes[i], &cls, &pos, patches, ref);
            run_vit_embed(o, shapes[i], &cls, &pos, patches, out);
            want = ops_rig_act(o, ref, n);
            assert_false(isnan(ref[0]));
            assert_memory_equal(out, want, n * dtype_size_bytes(o->act_dtype));
            free(cls.data);
            free(pos.data);
            free(patches);
            free(ref);
            free(out);
            free(want);
        }
}

enum { EMBED_ROWS = 30, EMBED_TABLE = 11 };

/* Rows are set in one order, and others added to them in another. */
static float *run_embed(struct ops *o, const struct tensor *t, const int32_t *index, const int32_t *to, int64_t ld)
{
    const size_t n = (size_t)(EMBED_ROWS * ld);
    float *nan = ops_rig_nan(n);
    void *y = ops_rig_act(o, nan, n);
    struct ops_table *table;
    struct err err;

    assert_int_equal(o->f->table_new(o, t, &table, &err), 0);
    assert_int_equal(o->f->embed(o, table, EMBED_ROWS, index, to, false, y, ld), 0);
    assert_int_equal(o->f->embed(o, table, EMBED_ROWS, index, NULL, true, y, ld), 0);
    o->f->table_free(o, table);
    free(nan);
    return ops_rig_back(o, y, n);
}

static void test_ops_embed_sets_and_adds_table_rows(void **state)
{
    static const int64_t widths[] = {1, 192, 300};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    const struct ops_rig *g = *state;
    int32_t index[EMBED_ROWS], to[EMBED_ROWS];

    for (int i = 0; i < EMBED_ROWS; i++) {
        index[i] = ops_rig_below(EMBED_TABLE);
        to[i] = (i * 7 + 1) % EMBED_ROWS;
    }
    for (int i = 0; i < 9; i++) {
        const int64_t ld = widths[i % 3] + 2;
        struct tensor t = ops_rig_tensor(dtypes[i / 3], EMBED_TABLE, widths[i % 3], 1);
        float *ref = run_embed(g->ref, &t, index, to, ld);

        for (int type = 0; type < OPS_RIG_TYPES; type++)
            if (g->cpu[type]) {
                float *out = run_embed(g->cpu[type], &t, index, to, ld);

                OPS_RIG_NEAR(out, ref, EMBED_ROWS, widths[i % 3], ld, type == OPS_RIG_F32 ? 0 : 6e-3,
                             "embed width %lld", (long long)widths[i % 3]);
                free(out);
            }
        free(t.data);
        free(ref);
    }
}

/* -- the back end itself -- */

static void test_ops_cpu_refuses_a_dtype_it_lacks(void **state)
{
    struct ops *o = NULL;
    struct err err = {.text = ""};

    (void)state;
    assert_int_equal(ops_cpu_new(1, DTYPE_F16, fixture_cpu_isa(), &o, &err), -ENOTSUP);
    assert_null(o);
    assert_non_null(strstr(err.text, "not in F16"));
    if (ops_cpu_new(1, DTYPE_BF16, fixture_cpu_isa(), &o, &err) < 0) {
        assert_null(o);
        assert_non_null(strstr(err.text, "AVX512_BF16"));
    }
    ops_free(o);
}

static void test_ops_buffers_keep_what_is_uploaded(void **state)
{
    enum { N = 100 };
    const struct ops_rig *g = *state;
    struct ops *all[] = {g->ref, g->cpu[OPS_RIG_F32], g->cpu[OPS_RIG_BF16]};

    for (int i = 0; i < 3 && all[i]; i++) {
        struct ops *o = all[i];
        float *x = ops_rig_random(o, N), y[N];
        void *d;

        assert_int_equal(o->f->alloc(o, sizeof(y), &d), 0);
        assert_int_equal((uintptr_t)d % 64, 0);
        assert_int_equal(o->f->upload(o, d, o->act_dtype, x, DTYPE_F32, N), 0);
        memset(y, 0, sizeof(y));
        assert_int_equal(o->f->download(o, y, DTYPE_F32, d, o->act_dtype, N), 0);
        assert_memory_equal(x, y, sizeof(y));
        x[3] = 1.00001f; /* no bf16 */
        assert_int_equal(o->f->upload(o, d, DTYPE_F32, x, DTYPE_F32, N), 0);
        memset(y, 0, sizeof(y));
        assert_int_equal(o->f->download(o, y, DTYPE_F32, d, DTYPE_F32, N), 0);
        assert_memory_equal(x, y, sizeof(y));
        assert_int_equal(o->f->sync(o), 0);
        o->f->release(o, d);
        o->f->release(o, NULL);
        free(x);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, ops_rig_setup, ops_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ops_norm_equals_reference_and_may_be_in_place),
        TEST(test_ops_gate_equals_reference_and_may_be_in_place),
        TEST(test_ops_activations_are_right_everywhere),
        TEST(test_ops_rows_copy_follows_both_indices),
        TEST(test_ops_patchify_equals_reference),
        TEST(test_ops_vit_embed_equals_reference),
        TEST(test_ops_embed_sets_and_adds_table_rows),
        TEST(test_ops_cpu_refuses_a_dtype_it_lacks),
        TEST(test_ops_buffers_keep_what_is_uploaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
