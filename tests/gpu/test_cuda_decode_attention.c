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
#include "tests/unit/ops_rig.h"

/* CUDA's attention of single new tokens against the reference. Rows of the cache that no row sees are NaN. */

enum { MAX_ROWS = 1400, MAX_TAIL = 40 };

struct decode_case {
    int n_groups, min_rows, max_rows; /* rows with the same prefix */
    int n_heads, head_dim;
    int min_prefix, max_prefix, min_tail, max_tail; /* at least one key */
    bool bias;
};

/* How rows lie: further apart than they are wide by so many elements, which keeps 16-byte alignment or does not. */
static const int pads[] = {0, 8, 5};
enum { N_PADS = 3 };

struct decode_data {
    struct ops_decode_attention_args args;
    int32_t prefix_start[MAX_ROWS], prefix_len[MAX_ROWS], tail_start[MAX_ROWS], tail_len[MAX_ROWS];
    int32_t tail[MAX_ROWS * MAX_TAIL];
    int n_cache;
    float *q, *k, *v, *bias;
};

static int between(int min, int max)
{
    return min + ops_rig_below(max - min + 1);
}

/* Half of a row's ancestors are those of the row before it in the same group, as those of beams are; the others are any
 * rows, of other groups' prefixes too, and some come twice. */
static void draw_tail(struct decode_data *d, int r, bool first_of_group, const struct decode_case *t)
{
    const int n = between(t->min_tail, t->max_tail), at = r ? d->tail_start[r - 1] + d->tail_len[r - 1] : 0;

    d->tail_start[r] = at;
    d->tail_len[r] = n == 0 && d->prefix_len[r] == 0 ? 1 : n;
    for (int i = 0; i < d->tail_len[r]; i++)
        d->tail[at + i] = !first_of_group && i < d->tail_len[r - 1] && ops_rig_below(2)
                              ? d->tail[d->tail_start[r - 1] + i]
                              : ops_rig_below(d->n_cache);
}

/* Prefixes lie one after the other, and behind them rows for tails. n_cache is kept where it is large enough. */
static void draw_lists(const struct decode_case *t, struct decode_data *d)
{
    int n_rows = 0, n_cache = 1;

    for (int i = 0; i < t->n_groups; i++) {
        const int n = between(t->min_rows, t->max_rows), prefix = between(t->min_prefix, t->max_prefix);

        assert_true(n_rows + n <= MAX_ROWS && t->max_tail <= MAX_TAIL);
        for (int r = n_rows; r < n_rows + n; r++) {
            d->prefix_start[r] = n_cache;
            d->prefix_len[r] = prefix;
        }
        n_rows += n;
        n_cache += prefix + ops_rig_below(3);
    }
    n_cache += 2 * n_rows;
    d->n_cache = n_cache > d->n_cache ? n_cache : d->n_cache;
    d->args.n_rows = n_rows;
    for (int r = 0; r < n_rows; r++)
        draw_tail(d, r, r == 0 || d->prefix_start[r] != d->prefix_start[r - 1], t);
}

/* NaN in rows that nobody sees, and between rows. */
static void clear_unseen(const struct decode_data *d, float *x)
{
    const struct ops_decode_attention_args *a = &d->args;
    const int64_t width = (int64_t)a->n_heads * a->head_dim;
    bool *seen = calloc((size_t)d->n_cache, sizeof(*seen));

    assert_non_null(seen);
    for (int r = 0; r < a->n_rows; r++) {
        for (int i = 0; i < d->prefix_len[r]; i++)
            seen[d->prefix_start[r] + i] = true;
        for (int i = 0; i < d->tail_len[r]; i++)
            seen[d->tail[d->tail_start[r] + i]] = true;
    }
    for (int64_t i = 0; i < d->n_cache * a->ld_kv; i++)
        if (!seen[i / a->ld_kv] || i % a->ld_kv >= width)
            x[i] = NAN;
    free(seen);
}

static struct decode_data *draw_decode(const struct ops *o, const struct decode_case *t, int pad, float q_size)
{
    const int64_t width = (int64_t)t->n_heads * t->head_dim;
    struct decode_data *d = calloc(1, sizeof(*d));

    assert_non_null(d);
    draw_lists(t, d);
    d->args = (struct ops_decode_attention_args){.n_rows = d->args.n_rows,
                                                 .n_heads = t->n_heads,
                                                 .head_dim = t->head_dim,
                                                 .scale = 1 / sqrtf((float)t->head_dim),
                                                 .ld_q = width + 2 * pad,
                                                 .ld_kv = 2 * width + pad,
                                                 .ld_out = width + pad,
                                                 .prefix_start = d->prefix_start,
                                                 .prefix_len = d->prefix_len,
                                                 .tail = d->tail,
                                                 .tail_start = d->tail_start,
                                                 .tail_len = d->tail_len};
    d->args.q = d->q = ops_rig_random(o, (size_t)(d->args.n_rows * d->args.ld_q));
    d->args.k = d->k = ops_rig_random(o, (size_t)(d->n_cache * d->args.ld_kv));
    d->args.v = d->v = ops_rig_random(o, (size_t)(d->n_cache * d->args.ld_kv));
    for (int64_t i = 0; i < d->args.n_rows * d->args.ld_q; i++)
        d->q[i] *= q_size;
    if (t->bias) {
        d->args.bias_span = t->max_prefix + t->max_tail + 1 + ops_rig_below(3);
        d->args.bias = d->bias = ops_rig_random(&(const struct ops){.act_dtype = DTYPE_F32},
                                                (size_t)(t->n_heads * (2 * d->args.bias_span - 1)));
    }
    return d;
}

static void free_decode(struct decode_data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->bias);
    free(d);
}

/* Inputs and a NaN output on the device. */
static struct ops_decode_attention_args put_decode(struct ops *o, const struct decode_data *d)
{
    struct ops_decode_attention_args a = d->args;
    float *nan = ops_rig_nan((size_t)(a.n_rows * a.ld_out));

    a.q = cuda_rig_put(o, d->q, (size_t)(a.n_rows * a.ld_q));
    a.k = cuda_rig_put(o, d->k, (size_t)(d->n_cache * a.ld_kv));
    a.v = cuda_rig_put(o, d->v, (size_t)(d->n_cache * a.ld_kv));
    a.out = cuda_rig_put(o, nan, (size_t)(a.n_rows * a.ld_out));
    if (d->bias)
        a.bias = cuda_rig_put_f32(o, d->bias, (size_t)(a.n_heads * (2 * a.bias_span - 1)));
    free(nan);
    return a;
}

/* All but the output. */
static void drop_decode(struct ops *o, const struct ops_decode_attention_args *a)
{
    cuda_rig_drop(o, (void *)(uintptr_t)a->q);
    cuda_rig_drop(o, (void *)(uintptr_t)a->k);
    cuda_rig_drop(o, (void *)(uintptr_t)a->v);
    cuda_rig_drop(o, (void *)(uintptr_t)a->bias);
}

static void compare(const struct cuda_rig *g, const struct ops *o, const struct decode_data *d, const float *out,
                    double limit)
{
    const struct ops_decode_attention_args *a = &d->args;
    const int64_t width = (int64_t)a->n_heads * a->head_dim;
    struct ops_decode_attention_args of_ref = *a;
    float *ref = ops_rig_nan((size_t)(a->n_rows * a->ld_out));

    of_ref.out = ref;
    assert_int_equal(g->ref->f->decode_attention(g->ref, &of_ref), 0);
    for (int r = 0; r < a->n_rows; r++)
        OPS_RIG_NEAR(out + r * a->ld_out, ref + r * a->ld_out, 1, width, a->ld_out,
                     cuda_rig_limit_of_means(ref + r * a->ld_out, 1, width, a->ld_out, limit),
                     "decode attention %s row %d of %d: %d heads of %d, prefix %d, tail %d, bias %d, ld %lld",
                     dtype_name(o->act_dtype), r, a->n_rows, a->n_heads, a->head_dim, (int)d->prefix_len[r],
                     (int)d->tail_len[r], a->bias != NULL, (long long)a->ld_kv);
    OPS_RIG_NEAR(out, ref, a->n_rows, width, a->ld_out,
                 cuda_rig_limit_of_means(ref, a->n_rows, width, a->ld_out, limit), "decode attention %s, all rows",
                 dtype_name(o->act_dtype));
    free(ref);
}

static void check_decode(const struct cuda_rig *g, int type, const struct decode_case *t, int pad, float q_size,
                         double limit)
{
    struct ops *o = g->cuda[type];
    struct decode_data *d = draw_decode(o, t, pad, q_size);
    struct ops_decode_attention_args a;
    float *out;

    clear_unseen(d, d->k);
    clear_unseen(d, d->v);
    a = put_decode(o, d);
    assert_int_equal(o->f->decode_attention(o, &a), 0);
    out = cuda_rig_take(o, a.out, (size_t)(a.n_rows * a.ld_out));
    compare(g, o, d, out, limit > 0 ? limit : cuda_rig_limit(o));
    drop_decode(o, &a);
    free(out);
    free_decode(d);
}

/* One row to groups of 64; no prefix, no tail; heads enough that one, two, four or eight warps share a row (the
 * emulator's card has 132 processors). */
static void test_cuda_decode_attention_equals_reference(void **state)
{
    static const struct decode_case cases[] = {
        {1, 1, 1, 1, 1, 1, 1, 0, 0, false},        {1, 1, 1, 3, 64, 33, 33, 20, 20, false},
        {12, 5, 5, 2, 64, 33, 80, 1, 30, false},   {13, 1, 6, 2, 80, 0, 80, 0, 30, true},
        {2, 64, 64, 1, 80, 40, 50, 1, 30, false},  {20, 2, 2, 2, 88, 33, 33, 0, 0, false},
        {4, 1, 5, 2, 128, 300, 700, 0, 40, false}, {30, 1, 2, 1, 16, 0, 0, 1, 5, true},
        {5, 1, 9, 1, 200, 0, 17, 0, 0, true},      {2, 1, 3, 2, 64, 1500, 3000, 0, 40, true},
        {70, 1, 1, 32, 16, 0, 20, 0, 9, false},    {9, 5, 5, 26, 24, 0, 20, 0, 9, true},
        {5, 5, 5, 26, 20, 0, 20, 0, 9, false},     {1, 64, 64, 33, 8, 9, 9, 0, 9, true},
    };
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            check_decode(g, type, &cases[i], pads[(i + (size_t)type) % N_PADS], 2, 0);
}

/* Heads and rows as there are; too much for the emulator. */
static void test_cuda_decode_attention_of_real_size_equals_reference(void **state)
{
    static const struct decode_case cases[] = {
        {256, 1, 1, 32, 80, 33, 40, 1, 20, false},   {256, 5, 5, 32, 80, 33, 33, 1, 30, false},
        {64, 5, 5, 32, 64, 0, 0, 1, 30, true},       {64, 5, 5, 64, 64, 33, 65, 0, 0, false},
        {32, 10, 10, 32, 128, 33, 33, 1, 20, false},
    };
    const struct cuda_rig *g = cuda_rig_get(state);

    if (cuda_rig_is_emulated())
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            check_decode(g, type, &cases[i], 0, 2, 0);
}

static void test_cuda_decode_attention_of_any_head_dim_equals_reference(void **state)
{
    static const int widths[] = {1,  2,  3,  8,   13,  16,  31,  40,  44,  48,  72,
                                 88, 92, 96, 100, 104, 136, 160, 192, 255, 256, 384};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        for (int type = 0; type < CUDA_RIG_TYPES; type++)
            check_decode(g, type, &(struct decode_case){4, 1, 4, 2, widths[i], 0, 60, 0, 20, i % 2},
                         pads[(i + (size_t)type) % N_PADS], 2, 0);
}

static void test_cuda_decode_attention_of_random_shapes_equals_reference(void **state)
{
    const struct cuda_rig *g = cuda_rig_get(state);
    const int n = cuda_rig_is_emulated() ? 60 : 600;

    for (int i = 0; i < n; i++)
        check_decode(g, i % CUDA_RIG_TYPES,
                     &(struct decode_case){.n_groups = between(1, 9),
                                           .min_rows = 1,
                                           .max_rows = between(1, 9),
                                           .n_heads = between(1, 4),
                                           .head_dim = between(1, 130),
                                           .max_prefix = ops_rig_below(100),
                                           .max_tail = ops_rig_below(MAX_TAIL),
                                           .bias = ops_rig_below(2)},
                     pads[ops_rig_below(N_PADS)], 2, 0);
}

/* Scores from -80 to 80 or so: one key takes nearly all weight, and a score of 80 in f32 is only known to 4e-6, and so
 * is the logarithm of a weight. */
static void test_cuda_decode_attention_survives_large_scores(void **state)
{
    static const struct decode_case t = {6, 1, 5, 2, 80, 20, 100, 0, 20, true};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (int type = 0; type < CUDA_RIG_TYPES; type++)
        check_decode(g, type, &t, 0, 32, type == CUDA_RIG_F32 ? 2e-5 : 0);
}

/* One pass, run with other groups and lengths each time; the longest tail lies between the same powers of two. */
static void test_cuda_decode_attention_in_a_pass_follows_the_lengths(void **state)
{
    static const struct decode_case full = {16, 5, 5, 2, 80, 60, 60, 17, 32, true};
    static const struct decode_case others[] = {{40, 2, 2, 2, 80, 0, 5, 17, 18, true}, /* the shortest lists first */
                                                {1, 80, 80, 2, 80, 60, 60, 17, 24, true},
                                                {16, 5, 5, 2, 80, 33, 40, 31, 32, true},
                                                {80, 1, 1, 2, 80, 1, 9, 17, 32, true}};
    const struct cuda_rig *g = cuda_rig_get(state);

    for (int type = 0; type < CUDA_RIG_TYPES; type++) {
        struct ops *o = g->cuda[type];
        struct decode_data *d = draw_decode(o, &full, 0, 2);
        struct ops_decode_attention_args a;
        const size_t n_out = (size_t)(d->args.n_rows * d->args.ld_out);
        const int n_cache = d->n_cache;
        float *nan = ops_rig_nan(n_out), *out = ops_rig_buffer(n_out);

        a = put_decode(o, d);
        for (int round = 0; round < 6; round++) {
            draw_lists(&others[round % 4], d);
            assert_int_equal(d->args.n_rows, a.n_rows);
            assert_int_equal(d->n_cache, n_cache);
            assert_int_equal(o->f->upload(o, a.out, o->act_dtype, nan, DTYPE_F32, n_out), 0);
            assert_int_equal(ops_graph_begin(o, 11), 0);
            assert_int_equal(o->f->decode_attention(o, &a), 0);
            assert_int_equal(ops_graph_end(o), 0);
            assert_int_equal(o->f->download(o, out, DTYPE_F32, a.out, o->act_dtype, n_out), 0);
            compare(g, o, d, out, cuda_rig_limit(o));
        }
        free(nan);
        free(out);
        cuda_rig_drop(o, a.out);
        drop_decode(o, &a);
        free_decode(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_decode_attention_equals_reference),
        cmocka_unit_test(test_cuda_decode_attention_of_real_size_equals_reference),
        cmocka_unit_test(test_cuda_decode_attention_of_any_head_dim_equals_reference),
        cmocka_unit_test(test_cuda_decode_attention_of_random_shapes_equals_reference),
        cmocka_unit_test(test_cuda_decode_attention_survives_large_scores),
        cmocka_unit_test(test_cuda_decode_attention_in_a_pass_follows_the_lengths),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
