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

#include "tests/unit/attention_data.h"
#include "tests/unit/ops_rig.h"

/* Attention of whole sequences and of single new tokens: every instruction set and activation type against the
 * reference. */

/* -- attention -- */

/* Rows lie further apart than they are wide, by an odd number; queries are peaked enough that the largest score
 * matters. */
enum { PAD = 5, Q_SIZE = 2 };

/* In the type of o; free with release_act. */
static struct ops_attention_args in_type(const struct ops *o, const struct attention_data *d)
{
    struct ops_attention_args a = d->args;

    a.q = ops_rig_act(o, d->q, (size_t)(d->n_q * a.ld_q));
    a.k = ops_rig_act(o, d->k, (size_t)(d->n_kv * a.ld_k));
    a.v = ops_rig_act(o, d->v, (size_t)(d->n_kv * a.ld_v));
    return a;
}

static void release_act(const struct ops_attention_args *a)
{
    free((void *)(uintptr_t)a->q);
    free((void *)(uintptr_t)a->k);
    free((void *)(uintptr_t)a->v);
}

/* Sums are f32 in either type; bf16 results are rounded once, by 2^-8 at most. */
static double limit_of(int type)
{
    return type == OPS_RIG_F32 ? 2e-6 : 4e-3;
}

/* Only rows of sequences are compared; rows between them must be untouched. */
static void check_attention(const struct ops_rig *g, int type, const struct attention_case *t)
{
    struct ops *o = g->cpu[type];
    int64_t width = (int64_t)t->n_heads * t->head_dim;
    struct ops_attention_args act;
    struct attention_data d;
    float *ref, *out;
    size_t n;

    if (!o)
        return;
    attention_data_draw(o, t, PAD, Q_SIZE, &d);
    act = in_type(o, &d);
    n = (size_t)(d.n_q * d.args.ld_out);
    ref = ops_rig_nan(n);
    d.args.out = ref;
    assert_int_equal(g->ref->f->attention(g->ref, &d.args), 0);
    for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++) {
        ops_rig_use(g, type, (enum cpu_isa)isa);
        out = ops_rig_nan(n);
        act.out = ops_rig_act(o, out, n);
        free(out);
        assert_int_equal(o->f->attention(o, &act), 0);
        out = ops_rig_back(o, act.out, n);
        for (int s = 0; s < t->n_seqs; s++) {
            int64_t at = d.q_start[s] * d.args.ld_out;

            OPS_RIG_NEAR(out + at, ref + at, d.q_len[s], width, d.args.ld_out, limit_of(type),
                         "attention %s isa %d sequence %d of %d: q %d kv %d heads %d of %d causal %d bias %d",
                         dtype_name(o->act_dtype), isa, s, t->n_seqs, (int)d.q_len[s], (int)d.kv_len[s], t->n_heads,
                         t->head_dim, t->causal, t->bias);
            if (s > 0 && d.q_start[s] > d.q_start[s - 1] + d.q_len[s - 1])
                assert_true(isnan(out[at - d.args.ld_out]));
        }
        free(out);
    }
    free(ref);
    release_act(&act);
    attention_data_release(&d);
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
        for (int type = 0; type < OPS_RIG_TYPES; type++)
            check_attention(*state, type, &cases[i]);
}

static void test_ops_attention_random_shapes_equal_reference(void **state)
{
    for (int i = 0; i < 120; i++) {
        struct attention_case t = {.n_seqs = 1 + ops_rig_below(6),
                                   .n_heads = 1 + ops_rig_below(4),
                                   .head_dim = 1 + ops_rig_below(100),
                                   .min_q = 1,
                                   .max_q = 1 + ops_rig_below(70),
                                   .min_kv = 1,
                                   .max_kv = 1 + ops_rig_below(150),
                                   .causal = ops_rig_below(2),
                                   .bias = ops_rig_below(2)};

        check_attention(*state, i % OPS_RIG_TYPES, &t);
    }
}

static void check_attention_alone(const struct ops_rig *g, int type, const struct attention_case *t)
{
    struct ops *o = g->cpu[type];
    const size_t element = dtype_size_bytes(o->act_dtype);
    struct ops_attention_args a;
    struct attention_data d;
    float *all, *alone;
    size_t n;

    attention_data_draw(o, t, PAD, Q_SIZE, &d);
    a = in_type(o, &d);
    n = (size_t)(d.n_q * d.args.ld_out);
    all = ops_rig_nan(n);
    alone = ops_rig_nan(n);
    a.out = all;
    assert_int_equal(o->f->attention(o, &a), 0);
    a.out = alone;
    a.n_seqs = 1;
    for (int s = 0; s < t->n_seqs; s++) {
        assert_int_equal(o->f->attention(o, &a), 0);
        a.q_start++;
        a.q_len++;
        a.kv_start++;
        a.kv_len++;
    }
    assert_memory_equal(all, alone, n * element);
    free(all);
    free(alone);
    release_act(&a);
    attention_data_release(&d);
}

/* All sequences at once, then each alone. */
static void test_ops_attention_rows_do_not_depend_on_the_batch(void **state)
{
    static const struct attention_case cases[] = {{20, 3, 64, 1, 120, 1, 257, true, false},
                                                  {30, 2, 44, 1, 3, 1, 90, true, true},
                                                  {12, 3, 88, 40, 257, 40, 257, false, false}};
    const struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < OPS_RIG_TYPES; type++)
            if (g->cpu[type])
                check_attention_alone(g, type, &cases[i]);
}

/* -- new tokens -- */

enum { MAX_ROWS = 80, MAX_TAIL = 40 };

struct decode_case {
    int n_groups, max_rows; /* a group has 1 .. max_rows */
    int n_heads, head_dim;
    int max_prefix, max_tail; /* lengths 0 .. max, at least one key */
    bool bias;
};

struct decode_data {
    struct ops_decode_attention_args args;
    int32_t prefix_start[MAX_ROWS], prefix_len[MAX_ROWS], tail_start[MAX_ROWS], tail_len[MAX_ROWS];
    int32_t tail[MAX_ROWS * MAX_TAIL];
    int n_cache;
    float *q, *k, *v, *bias;
};

/* Prefixes lie one after the other; tails are any rows of the cache in any order. */
static void draw_decode(const struct ops *o, const struct decode_case *t, struct decode_data *d)
{
    const int64_t width = (int64_t)t->n_heads * t->head_dim;
    int n_rows = 0, n_tail = 0;

    *d = (struct decode_data){.n_cache = 1};
    for (int i = 0; i < t->n_groups; i++) {
        int prefix = ops_rig_below(t->max_prefix + 1), rows = 1 + ops_rig_below(t->max_rows);

        for (int r = 0; r < rows && n_rows < MAX_ROWS; r++, n_rows++) {
            d->prefix_start[n_rows] = d->n_cache;
            d->prefix_len[n_rows] = prefix;
            d->tail_start[n_rows] = n_tail;
            d->tail_len[n_rows] = ops_rig_below(t->max_tail + 1);
            if (d->tail_len[n_rows] + prefix == 0)
                d->tail_len[n_rows] = 1;
            n_tail += d->tail_len[n_rows];
        }
        d->n_cache += prefix + ops_rig_below(3);
    }
    d->n_cache += 50;
    for (int i = 0; i < n_tail; i++)
        d->tail[i] = ops_rig_below(d->n_cache);
    d->args = (struct ops_decode_attention_args){.n_rows = n_rows,
                                                 .n_heads = t->n_heads,
                                                 .head_dim = t->head_dim,
                                                 .scale = 1 / sqrtf((float)t->head_dim),
                                                 .ld_q = width + 5,
                                                 .ld_kv = 2 * width + 1,
                                                 .ld_out = width + 3,
                                                 .prefix_start = d->prefix_start,
                                                 .prefix_len = d->prefix_len,
                                                 .tail = d->tail,
                                                 .tail_start = d->tail_start,
                                                 .tail_len = d->tail_len};
    d->q = ops_rig_random(o, (size_t)(n_rows * d->args.ld_q));
    d->k = ops_rig_random(o, (size_t)(d->n_cache * d->args.ld_kv));
    d->v = ops_rig_random(o, (size_t)(d->n_cache * d->args.ld_kv));
    for (int64_t i = 0; i < n_rows * d->args.ld_q; i++)
        d->q[i] *= 2;
    if (t->bias) {
        d->args.bias_span = t->max_prefix + t->max_tail + 1 + ops_rig_below(3);
        d->bias = ops_rig_random(&(const struct ops){.act_dtype = DTYPE_F32},
                                 (size_t)(t->n_heads * (2 * d->args.bias_span - 1)));
        d->args.bias = d->bias;
    }
}

static void free_decode(struct decode_data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->bias);
}

/* Returns the output in f32. */
static float *run_decode(struct ops *o, const struct decode_data *d)
{
    struct ops_decode_attention_args a = d->args;
    const size_t n = (size_t)(a.n_rows * a.ld_out), n_kv = (size_t)(d->n_cache * a.ld_kv);
    float *nan = ops_rig_nan(n);
    void *q = ops_rig_act(o, d->q, (size_t)(a.n_rows * a.ld_q)), *k = ops_rig_act(o, d->k, n_kv);
    void *v = ops_rig_act(o, d->v, n_kv);

    a.q = q;
    a.k = k;
    a.v = v;
    a.out = ops_rig_act(o, nan, n);
    assert_int_equal(o->f->decode_attention(o, &a), 0);
    free(nan);
    free(q);
    free(k);
    free(v);
    return ops_rig_back(o, a.out, n);
}

static void check_decode(const struct ops_rig *g, int type, const struct decode_case *t)
{
    struct ops *o = g->cpu[type];
    struct decode_data d;
    float *ref, *out;

    if (!o)
        return;
    draw_decode(o, t, &d);
    ref = run_decode(g->ref, &d);
    for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++) {
        ops_rig_use(g, type, (enum cpu_isa)isa);
        out = run_decode(o, &d);
        OPS_RIG_NEAR(out, ref, d.args.n_rows, (int64_t)t->n_heads * t->head_dim, d.args.ld_out, limit_of(type),
                     "decode %s isa %d: %d rows, %d heads of %d, prefix <= %d, tail <= %d, bias %d",
                     dtype_name(o->act_dtype), isa, d.args.n_rows, t->n_heads, t->head_dim, t->max_prefix, t->max_tail,
                     t->bias);
        free(out);
    }
    free(ref);
    free_decode(&d);
}

static void test_ops_decode_attention_equals_reference(void **state)
{
    static const struct decode_case cases[] = {
        {1, 1, 1, 1, 1, 0, false},    {1, 1, 3, 64, 33, 20, false},  {12, 5, 3, 64, 80, 30, false},
        {13, 6, 2, 80, 80, 30, true}, {3, 20, 2, 64, 50, 30, true},  {6, 7, 3, 44, 40, 9, true},
        {20, 3, 2, 13, 20, 9, true},  {4, 5, 2, 88, 700, 40, false}, {30, 2, 1, 16, 0, 5, false},
        {5, 9, 1, 200, 17, 0, true},  {9, 4, 2, 100, 16, 16, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < OPS_RIG_TYPES; type++)
            check_decode(*state, type, &cases[i]);
}

static void test_ops_decode_attention_random_shapes_equal_reference(void **state)
{
    for (int i = 0; i < 100; i++) {
        struct decode_case t = {.n_groups = 1 + ops_rig_below(9),
                                .max_rows = 1 + ops_rig_below(9),
                                .n_heads = 1 + ops_rig_below(4),
                                .head_dim = 1 + ops_rig_below(110),
                                .max_prefix = ops_rig_below(100),
                                .max_tail = ops_rig_below(MAX_TAIL),
                                .bias = ops_rig_below(2)};

        check_decode(*state, i % OPS_RIG_TYPES, &t);
    }
}

/* Each row alone gives the same bits. */
static void check_decode_alone(const struct ops_rig *g, int type, const struct decode_case *t)
{
    struct ops *o = g->cpu[type];
    const int64_t width = (int64_t)t->n_heads * t->head_dim;
    struct decode_data d;
    float *all;

    draw_decode(o, t, &d);
    all = run_decode(o, &d);
    for (int r = 0; r < d.args.n_rows; r++) {
        struct decode_data one = d;
        float *alone;

        one.args.n_rows = 1;
        one.q = d.q + r * d.args.ld_q;
        one.args.prefix_start = d.prefix_start + r;
        one.args.prefix_len = d.prefix_len + r;
        one.args.tail_start = d.tail_start + r;
        one.args.tail_len = d.tail_len + r;
        alone = run_decode(o, &one);
        assert_memory_equal(alone, all + r * d.args.ld_out, (size_t)width * sizeof(float));
        free(alone);
    }
    free(all);
    free_decode(&d);
}

static void test_ops_decode_attention_rows_do_not_depend_on_the_group(void **state)
{
    static const struct decode_case cases[] = {{6, 6, 3, 64, 80, 30, false},
                                               {8, 8, 2, 80, 40, 20, true},
                                               {5, 11, 2, 44, 33, 9, true},
                                               {4, 4, 1, 9, 9, 9, false}};
    const struct ops_rig *g = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < OPS_RIG_TYPES; type++)
            for (int isa = CPU_ISA_BASE; isa <= (int)g->best && g->cpu[type]; isa++) {
                ops_rig_use(g, type, (enum cpu_isa)isa);
                check_decode_alone(g, type, &cases[i]);
            }
}

/* The prefix of a cache is what attention() sees as a sequence: greedy decoding may use either. */
static void test_ops_decode_attention_without_tails_is_attention(void **state)
{
    const struct decode_case t = {
        .n_groups = 9, .max_rows = 1, .n_heads = 3, .head_dim = 64, .max_prefix = 90, .bias = true};
    const struct ops_rig *g = *state;
    struct decode_data d;
    int32_t row[MAX_ROWS], one[MAX_ROWS];
    float *out, *same;

    draw_decode(g->ref, &t, &d);
    for (int r = 0; r < d.args.n_rows; r++) {
        row[r] = r;
        one[r] = 1;
        d.prefix_len[r] += d.tail_len[r]; /* 1 where the prefix was empty */
        d.tail_len[r] = 0;
    }
    out = run_decode(g->cpu[OPS_RIG_F32], &d);
    same = ops_rig_nan((size_t)(d.args.n_rows * d.args.ld_out));
    assert_int_equal(g->cpu[OPS_RIG_F32]->f->attention(g->cpu[OPS_RIG_F32],
                                                       &(struct ops_attention_args){.n_seqs = d.args.n_rows,
                                                                                    .n_heads = t.n_heads,
                                                                                    .head_dim = t.head_dim,
                                                                                    .scale = d.args.scale,
                                                                                    .causal = true,
                                                                                    .q = d.q,
                                                                                    .k = d.k,
                                                                                    .v = d.v,
                                                                                    .ld_q = d.args.ld_q,
                                                                                    .ld_k = d.args.ld_kv,
                                                                                    .ld_v = d.args.ld_kv,
                                                                                    .q_start = row,
                                                                                    .q_len = one,
                                                                                    .kv_start = d.prefix_start,
                                                                                    .kv_len = d.prefix_len,
                                                                                    .bias = d.bias,
                                                                                    .bias_span = d.args.bias_span,
                                                                                    .out = same,
                                                                                    .ld_out = d.args.ld_out}),
                     0);
    assert_memory_equal(out, same, (size_t)(d.args.n_rows * d.args.ld_out) * sizeof(float));
    free(out);
    free(same);
    free_decode(&d);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, ops_rig_setup, ops_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ops_attention_equals_reference),
        TEST(test_ops_attention_random_shapes_equal_reference),
        TEST(test_ops_attention_rows_do_not_depend_on_the_batch),
        TEST(test_ops_decode_attention_equals_reference),
        TEST(test_ops_decode_attention_random_shapes_equal_reference),
        TEST(test_ops_decode_attention_rows_do_not_depend_on_the_group),
        TEST(test_ops_decode_attention_without_tails_is_attention),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
