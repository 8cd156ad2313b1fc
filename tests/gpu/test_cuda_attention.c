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
#include "tests/unit/attention_data.h"
#include "tests/unit/ops_rig.h"

/* CUDA's attention of whole sequences against the reference. What no sequence owns is NaN in all inputs, so that
 * reading it shows, and must still be NaN in the output. */

/* How rows lie: further apart than they are wide by so many elements, which keeps 16-byte alignment or does not. */
static const int pads[] = {0, 8, 5};
enum { N_PADS = 3 };

static int between(int min, int max)
{
    return min + ops_rig_below(max - min + 1);
}

/* Inputs and a NaN output on the device. */
static struct ops_attention_args put_attention(struct ops *o, const struct attention_data *d)
{
    struct ops_attention_args a = d->args;
    float *nan = ops_rig_nan((size_t)(d->n_q * a.ld_out));

    a.q = cuda_rig_put(o, d->q, (size_t)(d->n_q * a.ld_q));
    a.k = cuda_rig_put(o, d->k, (size_t)(d->n_kv * a.ld_k));
    a.v = cuda_rig_put(o, d->v, (size_t)(d->n_kv * a.ld_v));
    a.out = cuda_rig_put(o, nan, (size_t)(d->n_q * a.ld_out));
    if (d->bias)
        a.bias = cuda_rig_put_f32(o, d->bias, (size_t)(a.n_heads * (2 * a.bias_span - 1)));
    free(nan);
    return a;
}

/* All but the output. */
static void drop_attention(struct ops *o, const struct ops_attention_args *a)
{
    cuda_rig_drop(o, (void *)(uintptr_t)a->q);
    cuda_rig_drop(o, (void *)(uintptr_t)a->k);
    cuda_rig_drop(o, (void *)(uintptr_t)a->v);
    cuda_rig_drop(o, (void *)(uintptr_t)a->bias);
}

static void compare(const struct ops *o, const struct attention_data *d, const float *out, const float *ref,
                    double limit)
{
    const struct ops_attention_args *a = &d->args;
    const int64_t width = (int64_t)a->n_heads * a->head_dim;

    for (int s = 0; s < a->n_seqs; s++) {
        const int64_t at = d->q_start[s] * a->ld_out, before = s ? d->q_start[s - 1] + d->q_len[s - 1] : 0;

        OPS_RIG_NEAR(out + at, ref + at, d->q_len[s], width, a->ld_out,
                     cuda_rig_limit_of_means(ref + at, d->q_len[s], width, a->ld_out, limit),
                     "attention %s sequence %d of %d: q %d kv %d heads %d of %d causal %d bias %d ld %lld",
                     dtype_name(o->act_dtype), s, a->n_seqs, (int)d->q_len[s], (int)d->kv_len[s], a->n_heads,
                     a->head_dim, a->causal, a->bias != NULL, (long long)a->ld_out);
        for (int64_t i = before * a->ld_out; i < at; i++)
            assert_true(isnan(out[i]));
    }
}

static float *attention_reference(const struct cuda_rig *g, const struct attention_data *d)
{
    struct ops_attention_args a = d->args;

    a.out = ops_rig_nan((size_t)(d->n_q * a.ld_out));
    assert_int_equal(g->ref->f->attention(g->ref, &a), 0);
    return a.out;
}

static void check_attention(const struct cuda_rig *g, int type, const struct attention_case *t, int pad, float q_size,
                            double limit)
{
    struct ops *o = g->cuda[type];
    struct ops_attention_args a;
    struct attention_data d;
    float *ref, *out;

    attention_data_draw(o, t, pad, q_size, &d);
    ref = attention_reference(g, &d);
    a = put_attention(o, &d);
    assert_int_equal(o->f->attention(o, &a), 0);
    out = cuda_rig_take(o, a.out, (size_t)(d.n_q * a.ld_out));
    compare(o, &d, out, ref, limit > 0 ? limit : cuda_rig_limit(o));
    drop_attention(o, &a);
    free(ref);
    free(out);
    attention_data_release(&d);
}

static void check_cases(const struct cuda_rig *g, const struct attention_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            check_attention(g, type, &cases[i], pads[(i + (size_t)type) % N_PADS], 2, 0);
}

/* Every type and every layout of the lengths and flags that the models have, with few heads. */
static void test_cuda_attention_of_the_models_equals_reference(void **state)
{
    static const struct attention_case cases[] = {
        {1, 2, 88, 257, 257, 257, 257, false, false}, {3, 2, 64, 32, 32, 257, 257, false, false},
        {4, 2, 80, 33, 65, 33, 65, true, false},      {3, 2, 80, 1, 40, 66, 130, true, false},
        {4, 2, 64, 1, 65, 1, 65, false, true},        {3, 2, 64, 20, 70, 1, 140, true, true},
        {2, 1, 128, 33, 65, 33, 65, true, false},
    };
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            for (int pad = 0; pad < N_PADS; pad++)
                check_attention(g, type, &cases[i], pads[pad], 2, 0);
}

/* As many heads and sequences as there are; too much for the emulator. */
static void test_cuda_attention_of_real_size_equals_reference(void **state)
{
    static const struct attention_case cases[] = {
        {9, 16, 88, 257, 257, 257, 257, false, false}, {3, 16, 88, 677, 677, 677, 677, false, false},
        {64, 12, 64, 32, 32, 257, 257, false, false},  {30, 12, 64, 33, 64, 33, 64, false, false},
        {40, 32, 80, 33, 65, 33, 65, true, false},     {20, 32, 64, 33, 65, 33, 65, false, true},
        {9, 64, 64, 40, 65, 40, 65, false, true},      {9, 32, 128, 33, 65, 33, 65, true, false},
        {2, 4, 64, 700, 700, 1500, 2100, true, true},
    };
    const struct cuda_rig *g = cuda_rig_get(state);

    if (cuda_rig_is_emulated())
        skip();
    check_cases(g, cases, sizeof(cases) / sizeof(*cases));
}

/* All widths that there are kernels for, and widths between them. */
static void test_cuda_attention_of_any_head_dim_equals_reference(void **state)
{
    static const int widths[] = {1,  7,  8,  16,  20,  32,  33,  40,  44,  48,  56,  60,  64,  72, 80,
                                 88, 92, 96, 100, 120, 128, 136, 160, 161, 184, 192, 200, 255, 256};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++) {
            const int turn = (int)i + type;
            const struct attention_case t = {2, 2, widths[i], 1, 50, 1, 140, turn % 2, turn / 2 % 2};

            check_attention(g, type, &t, 8 * (turn % 2), 2, 0);
            check_attention(g, type, &t, pads[turn % N_PADS], 2, 0);
        }
}

/* Lengths around those of tiles and their parts, in one sequence each. */
static void test_cuda_attention_of_lengths_around_tiles_equals_reference(void **state)
{
    static const int lengths[] = {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 96, 97, 128, 129, 145};
    enum { N = sizeof(lengths) / sizeof(*lengths) };
    const struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < N; i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            for (int causal = 0; causal < 2; causal++) {
                const int q = lengths[i], kv = lengths[causal ? between(i, N - 1) : ops_rig_below(N)];

                check_attention(g, type, &(struct attention_case){1, 1, 64, q, q, kv, kv, causal, i % 2}, 0, 2, 0);
            }
}

static void test_cuda_attention_of_random_shapes_equals_reference(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    const int n = cuda_rig_is_emulated() ? 60 : 600;

    for (int i = 0; i < n; i++) {
        struct attention_case t = {.n_seqs = between(1, i % 10 ? 5 : ATTENTION_DATA_SEQS),
                                   .n_heads = between(1, 3),
                                   .head_dim = i % 2 ? between(1, 130) : 8 * between(1, 16),
                                   .min_q = 1,
                                   .max_q = between(1, i % 10 ? 110 : 20),
                                   .min_kv = 1,
                                   .max_kv = between(1, i % 10 ? 150 : 20),
                                   .causal = ops_rig_below(2),
                                   .bias = ops_rig_below(2)};

        if (t.causal && t.max_kv < t.max_q)
            t.max_kv = t.max_q;
        check_attention(g, i % CUDA_RIG_TYPES, &t, pads[ops_rig_below(N_PADS)], 2, 0);
    }
}

/* Scores from -80 to 80 or so: one key takes nearly all weight, and a score of 80 in f32 is only known to 4e-6, and so
 * is the logarithm of a weight. */
static void test_cuda_attention_survives_large_scores(void **state)
{
    static const struct attention_case cases[] = {{2, 2, 64, 20, 70, 60, 140, false, false},
                                                  {2, 2, 88, 20, 70, 60, 140, true, true}};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < 2; i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            check_attention(g, type, &cases[i], 0, 32, type == CUDA_RIG_F32 ? 2e-5 : 0);
}

/* One pass, run with other lengths each time: the longest is the same, it is part of the key. */
static void check_passes(const struct cuda_rig *g, int type, const struct attention_case *t)
{
    struct ops *o = g->cuda[type];
    const struct attention_case full = {t->n_seqs, t->n_heads, t->head_dim, t->max_q, t->max_q,
                                        t->max_kv, t->max_kv,  t->causal,   t->bias};
    struct ops_attention_args a;
    struct attention_data d;
    float *nan;
    size_t n_out;

    attention_data_draw(o, &full, 0, 2, &d);
    /* rows between the sequences, too: they are those of others later */
    free(d.q);
    free(d.k);
    free(d.v);
    d.n_q += 2 * t->n_seqs;
    d.n_kv += 3 * t->n_seqs;
    d.args.q = d.q = ops_rig_random(o, (size_t)(d.n_q * d.args.ld_q));
    d.args.k = d.k = ops_rig_random(o, (size_t)(d.n_kv * d.args.ld_k));
    d.args.v = d.v = ops_rig_random(o, (size_t)(d.n_kv * d.args.ld_v));
    a = put_attention(o, &d);
    n_out = (size_t)(d.n_q * a.ld_out);
    nan = ops_rig_nan(n_out);
    for (int round = 0; round < 5; round++) {
        const int64_t n_q = d.n_q, n_kv = d.n_kv;
        float *ref, *out = ops_rig_buffer(n_out);

        attention_data_lengths(t, &d);
        d.n_q = n_q;
        d.n_kv = n_kv;
        d.q_len[t->n_seqs - 1] = t->max_q; /* the last one: what comes behind it is free */
        d.kv_len[t->n_seqs - 1] = t->max_kv;
        ref = attention_reference(g, &d);
        assert_int_equal(o->f->upload(o, a.out, o->act_dtype, nan, DTYPE_F32, n_out), 0);
        assert_int_equal(ops_graph_begin(o, (uint64_t)t->head_dim), 0); /* other buffers, another key */
        assert_int_equal(o->f->attention(o, &a), 0);
        assert_int_equal(ops_graph_end(o), 0);
        assert_int_equal(o->f->download(o, out, DTYPE_F32, a.out, o->act_dtype, n_out), 0);
        compare(o, &d, out, ref, cuda_rig_limit(o));
        free(ref);
        free(out);
    }
    free(nan);
    cuda_rig_drop(o, a.out);
    drop_attention(o, &a);
    attention_data_release(&d);
}

static void test_cuda_attention_in_a_pass_follows_the_lengths(void **state)
{
    static const struct attention_case cases[] = {{5, 2, 80, 33, 65, 65, 65, true, false},
                                                  {3, 2, 64, 1, 100, 1, 100, false, true}};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < 2; i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            check_passes(g, type, &cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_attention_of_the_models_equals_reference),
        cmocka_unit_test(test_cuda_attention_of_real_size_equals_reference),
        cmocka_unit_test(test_cuda_attention_of_any_head_dim_equals_reference),
        cmocka_unit_test(test_cuda_attention_of_lengths_around_tiles_equals_reference),
        cmocka_unit_test(test_cuda_attention_of_random_shapes_equals_reference),
        cmocka_unit_test(test_cuda_attention_survives_large_scores),
        cmocka_unit_test(test_cuda_attention_in_a_pass_follows_the_lengths),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
