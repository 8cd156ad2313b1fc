#include "tests/unit/not_finite.h"

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

#include "tests/unit/ops_rig.h"

enum { MAX_INPUTS = 4, ANY = -1, TRIES = 3 };

/* What is read. An element belongs to one row of the result, or (ANY) to all of them. */
struct input {
    const char *name;
    int64_t rows, width;
    bool hides_infinity; /* a key whose score is -inf is rightly not looked at */
    bool is_f32;         /* whatever the operators compute in */
};

struct scenario {
    const char *name;
    int64_t rows, width; /* of the result */
    struct input inputs[MAX_INPUTS];
    int (*run)(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y); /* d: `in` there */
    int64_t (*row_of)(const struct scenario *s, int input, int64_t row); /* NULL: the same row, or ANY */
    enum ops_act act;
    unsigned flags;
    bool residual, causal;
};

static void *put(struct ops *o, const float *x, int64_t n, enum dtype dtype)
{
    void *d;

    assert_int_equal(o->f->alloc(o, (size_t)n * dtype_size_bytes(dtype), &d), 0);
    assert_int_equal(o->f->upload(o, d, dtype, x, DTYPE_F32, (size_t)n), 0);
    return d;
}

static struct tensor tensor_of(float *x, int64_t rows, int64_t columns)
{
    return (struct tensor){.dtype = DTYPE_F32, .n_dims = columns ? 2 : 1, .shape = {rows, columns}, .data = x};
}

static struct ops_vector *vector_of(struct ops *o, float *x, int64_t n)
{
    struct tensor t = tensor_of(x, n, 0);
    struct ops_vector *v;
    struct err err;

    assert_int_equal(o->f->vector_new(o, &t, &v, &err), 0);
    return v;
}

/* -- the operators -- */

enum { ROWS = 19, WIDTH = 64, INNER = 48, HEADS = 2, HEAD = 16, KEYS = 10 };

/* inputs: x, weight, bias, residual */
static int run_linear(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    struct tensor weight = tensor_of(in[1], s->width, INNER), bias = tensor_of(in[2], s->width, 0);
    struct ops_weight *w;
    struct err err;
    int rc;

    assert_int_equal(o->f->weight_new(o, &(struct ops_weight_part){&weight, &bias}, 1, s->flags, &w, &err), 0);
    rc = o->f->linear(o, &(struct ops_linear_args){.weight = w,
                                                   .n_rows = s->rows,
                                                   .x = d[0],
                                                   .ld_x = INNER,
                                                   .y = y,
                                                   .ld_y = s->width,
                                                   .act = s->act,
                                                   .residual = s->residual ? d[3] : NULL,
                                                   .ld_residual = s->width});
    assert_int_equal(o->f->sync(o), 0);
    o->f->weight_free(o, w);
    return rc;
}

/* inputs: x, gamma, beta (or none: RMS) */
static int run_norm(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    struct ops_vector *gamma = vector_of(o, in[1], s->width), *beta = in[2] ? vector_of(o, in[2], s->width) : NULL;
    int rc = o->f->norm(o, &(struct ops_norm_args){.n_rows = s->rows,
                                                   .width = s->width,
                                                   .x = d[0],
                                                   .ld_x = s->width,
                                                   .y = y,
                                                   .ld_y = s->width,
                                                   .gamma = gamma,
                                                   .beta = beta,
                                                   .eps = 1e-6f});

    assert_int_equal(o->f->sync(o), 0);
    o->f->vector_free(o, gamma);
    o->f->vector_free(o, beta);
    return rc;
}

/* inputs: x, both halves of each row */
static int run_gate(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    (void)in;
    return o->f->gate(o, &(struct ops_gate_args){.n_rows = s->rows,
                                                 .width = s->width,
                                                 .act = s->act,
                                                 .x = d[0],
                                                 .ld_x = 2 * s->width,
                                                 .y = y,
                                                 .ld_y = s->width});
}

/* Two sequences. inputs: q, k, v, bias */
static int run_attention(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    const int32_t n = (int32_t)s->rows / 2, start[2] = {0, n}, len[2] = {n, n};

    (void)in;
    return o->f->attention(o, &(struct ops_attention_args){.n_seqs = 2,
                                                           .n_heads = HEADS,
                                                           .head_dim = HEAD,
                                                           .scale = 0.25f,
                                                           .causal = s->causal,
                                                           .q = d[0],
                                                           .k = d[1],
                                                           .v = d[2],
                                                           .ld_q = s->width,
                                                           .ld_k = s->width,
                                                           .ld_v = s->width,
                                                           .q_start = start,
                                                           .q_len = len,
                                                           .kv_start = start,
                                                           .kv_len = len,
                                                           .bias = d[3],
                                                           .bias_span = n,
                                                           .out = y,
                                                           .ld_out = s->width});
}

/* Rows 0 .. KEYS-1 of the cache are everybody's, each row of q has one more. inputs: q, k, v */
static int run_decode(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    int32_t prefix_start[ROWS] = {0}, prefix_len[ROWS], tail[ROWS], tail_start[ROWS], tail_len[ROWS];

    (void)in;
    for (int32_t r = 0; r < s->rows; r++) {
        prefix_len[r] = KEYS;
        tail[r] = KEYS + r;
        tail_start[r] = r;
        tail_len[r] = 1;
    }
    return o->f->decode_attention(o, &(struct ops_decode_attention_args){.n_rows = (int)s->rows,
                                                                         .n_heads = HEADS,
                                                                         .head_dim = HEAD,
                                                                         .scale = 0.25f,
                                                                         .q = d[0],
                                                                         .ld_q = s->width,
                                                                         .k = d[1],
                                                                         .v = d[2],
                                                                         .ld_kv = s->width,
                                                                         .prefix_start = prefix_start,
                                                                         .prefix_len = prefix_len,
                                                                         .tail = tail,
                                                                         .tail_start = tail_start,
                                                                         .tail_len = tail_len,
                                                                         .out = y,
                                                                         .ld_out = s->width});
}

/* inputs: x */
static int run_copy(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    (void)in;
    return o->f->rows_copy(
        o, &(struct ops_rows_args){
               .n_rows = s->rows, .width = s->width, .src = d[0], .ld_src = s->width, .dst = y, .ld_dst = s->width});
}

/* inputs: the table, what is in y before */
static int run_embed(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    struct tensor t = tensor_of(in[0], s->rows, s->width);
    struct ops_table *table;
    int32_t index[ROWS];
    struct err err;
    int rc;

    (void)d;
    for (int32_t i = 0; i < s->rows; i++)
        index[i] = i;
    assert_int_equal(o->f->upload(o, y, o->act_dtype, in[1], DTYPE_F32, (size_t)(s->rows * s->width)), 0);
    assert_int_equal(o->f->table_new(o, &t, &table, &err), 0);
    rc = o->f->embed(o, table, s->rows, index, NULL, true, y, s->width);
    assert_int_equal(o->f->sync(o), 0);
    o->f->table_free(o, table);
    return rc;
}

/* One picture. inputs: patches, class token, positions */
static int run_vit_embed(struct ops *o, const struct scenario *s, float *const *in, void *const *d, void *y)
{
    struct ops_vector *cls = vector_of(o, in[1], s->width), *pos = vector_of(o, in[2], s->rows * s->width);
    int rc = o->f->vit_embed(o, 1, s->rows, s->width, d[0], cls, pos, y);

    assert_int_equal(o->f->sync(o), 0);
    o->f->vector_free(o, cls);
    o->f->vector_free(o, pos);
    return rc;
}

static int64_t row_of_attention(const struct scenario *s, int input, int64_t row)
{
    (void)s;
    return input == 0 ? row : ANY;
}

static int64_t row_of_decode(const struct scenario *s, int input, int64_t row)
{
    (void)s;
    return input == 0 ? row : row < KEYS ? ANY : row - KEYS;
}

static int64_t row_of_vit(const struct scenario *s, int input, int64_t row)
{
    (void)s;
    return input == 0 ? row + 1 : row;
}

#define IN(name_, rows_, width_)                      \
    {                                                 \
        .name = name_, .rows = rows_, .width = width_ \
    }
#define HIDING(name_, rows_, width_)                                          \
    {                                                                         \
        .name = name_, .rows = rows_, .width = width_, .hides_infinity = true \
    }
#define LINEAR                                                                                 \
    .rows = ROWS, .width = WIDTH, .run = run_linear,                                           \
    .inputs = {IN("x", ROWS, INNER), IN("weight", ANY, WIDTH * INNER), IN("bias", ANY, WIDTH), \
               IN("residual", ROWS, WIDTH)}
#define NORM(...) .rows = ROWS, .width = WIDTH, .run = run_norm, .inputs = {IN("x", ROWS, WIDTH), __VA_ARGS__}
#define GATE .rows = ROWS, .width = WIDTH, .run = run_gate, .inputs = {IN("x", ROWS, 2 * WIDTH)}
#define ATTENTION(...)                                                                                                \
    .rows = ROWS - 1, .width = HEADS * HEAD, .run = run_attention, .row_of = row_of_attention,                        \
    .inputs = {IN("q", ROWS - 1, HEADS * HEAD), HIDING("k", ROWS - 1, HEADS * HEAD), IN("v", ROWS - 1, HEADS * HEAD), \
               __VA_ARGS__}

static const struct scenario scenarios[] = {
    {.name = "linear", LINEAR},
    {.name = "linear, residual", LINEAR, .residual = true},
    {.name = "linear, relu", LINEAR, .act = OPS_ACT_RELU},
    {.name = "linear, relu, residual", LINEAR, .act = OPS_ACT_RELU, .residual = true},
    {.name = "linear, gelu", LINEAR, .act = OPS_ACT_GELU_ERF},
    {.name = "linear, gelu's tanh form", LINEAR, .act = OPS_ACT_GELU_TANH},
    {.name = "linear in fp8, relu", LINEAR, .act = OPS_ACT_RELU, .flags = OPS_WEIGHT_FP8},
    {.name = "linear in fp8, gelu", LINEAR, .act = OPS_ACT_GELU_ERF, .flags = OPS_WEIGHT_FP8},
    {.name = "linear of one row, relu",
     .rows = 1,
     .width = WIDTH,
     .run = run_linear,
     .act = OPS_ACT_RELU,
     .inputs = {IN("x", 1, INNER), IN("weight", ANY, WIDTH *INNER), IN("bias", ANY, WIDTH)}},
    {.name = "layer norm", NORM(IN("gamma", ANY, WIDTH), IN("beta", ANY, WIDTH))},
    {.name = "RMS norm", NORM(IN("gamma", ANY, WIDTH))},
    {.name = "gate", GATE},
    {.name = "gate, relu", GATE, .act = OPS_ACT_RELU},
    {.name = "gate, gelu", GATE, .act = OPS_ACT_GELU_ERF},
    {.name = "gate, gelu's tanh form", GATE, .act = OPS_ACT_GELU_TANH},
    {.name = "attention", ATTENTION({.name = NULL})},
    {.name = "attention, bias",
     ATTENTION({.name = "bias", .rows = ANY, .width = HEADS * (ROWS - 2), .hides_infinity = true, .is_f32 = true})},
    {.name = "causal attention", ATTENTION({.name = NULL}), .causal = true},
    {.name = "attention of new tokens",
     .rows = ROWS,
     .width = HEADS * HEAD,
     .run = run_decode,
     .row_of = row_of_decode,
     .inputs = {IN("q", ROWS, HEADS *HEAD), HIDING("k", ROWS + KEYS, HEADS *HEAD), IN("v", ROWS + KEYS, HEADS *HEAD)}},
    {.name = "rows", .rows = ROWS, .width = WIDTH, .run = run_copy, .inputs = {IN("x", ROWS, WIDTH)}},
    {.name = "embedding",
     .rows = ROWS,
     .width = WIDTH,
     .run = run_embed,
     .inputs = {IN("table", ROWS, WIDTH), IN("y", ROWS, WIDTH)}},
    {.name = "tokens of a picture",
     .rows = ROWS,
     .width = WIDTH,
     .run = run_vit_embed,
     .row_of = row_of_vit,
     .inputs = {IN("patches", ROWS - 1, WIDTH), IN("class token", 1, WIDTH), IN("positions", ROWS, WIDTH)}},
};

/* -- one bad number -- */

static int64_t input_size(const struct input *in)
{
    return (in->rows == ANY ? 1 : in->rows) * in->width;
}

static float *run(struct ops *o, const struct scenario *s, float *const *in)
{
    const int64_t n = s->rows * s->width;
    float *out = ops_rig_buffer((size_t)n), *zero = calloc((size_t)n, sizeof(*zero));
    void *d[MAX_INPUTS] = {NULL}, *y;

    assert_non_null(zero);
    y = put(o, zero, n, o->act_dtype);
    for (int i = 0; i < MAX_INPUTS && in[i]; i++)
        d[i] = put(o, in[i], input_size(&s->inputs[i]), s->inputs[i].is_f32 ? DTYPE_F32 : o->act_dtype);
    assert_int_equal(s->run(o, s, in, d, y), 0);
    assert_int_equal(o->f->download(o, out, DTYPE_F32, y, o->act_dtype, (size_t)n), 0);
    for (int i = 0; i < MAX_INPUTS; i++)
        o->f->release(o, d[i]);
    o->f->release(o, y);
    free(zero);
    return out;
}

static bool is_finite_row(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Attention: of the rows that depend on a key or value, at least the last of its sequence sees it, and no other
 * sequence does. */
static void check_sequence(const char *what, const struct scenario *s, int64_t at, const float *clean, const float *out)
{
    const int64_t half = s->rows / 2, mine = at / s->width / half;

    if (is_finite_row(out + ((mine + 1) * half - 1) * s->width, s->width))
        fail_msg("%s: the last row of its sequence is finite", what);
    if (memcmp(out + (1 - mine) * half * s->width, clean + (1 - mine) * half * s->width,
               (size_t)(half * s->width) * sizeof(float)) != 0)
        fail_msg("%s: seen by the other sequence", what);
}

static void check_rows(const char *what, const struct scenario *s, int64_t row, const float *clean, const float *out)
{
    for (int64_t r = 0; r < s->rows; r++) {
        const float *x = out + r * s->width;

        if ((row == ANY || r == row) && is_finite_row(x, s->width))
            fail_msg("%s: row %lld is finite", what, (long long)r);
        if (row != ANY && r != row && memcmp(x, clean + r * s->width, (size_t)s->width * sizeof(float)) != 0)
            fail_msg("%s: row %lld is another", what, (long long)r);
    }
}

static void check_value(struct ops *o, const char *name, const struct scenario *s, int input, float bad,
                        float *const *in, const float *clean)
{
    const struct input *from = &s->inputs[input];
    const int64_t at = ops_rig_below((int)input_size(from));
    const float was = in[input][at];
    int64_t row = from->rows == ANY ? ANY : at / from->width;
    char what[200];
    float *out;

    (void)snprintf(what, sizeof(what), "%s, %s: %g in %s at %lld", name, s->name, (double)bad, from->name,
                   (long long)at);
    in[input][at] = bad;
    out = run(o, s, in);
    in[input][at] = was;
    if (s->row_of && row != ANY)
        row = s->row_of(s, input, row);
    if (s->run == run_attention && input > 0 && input < 3)
        check_sequence(what, s, at, clean, out);
    else if (s->run == run_attention && input == 3) /* a distance that the first row has need not be any other's */
        assert_false(is_finite_row(out, s->rows * s->width));
    else
        check_rows(what, s, row, clean, out);
    free(out);
}

static void check_scenario(struct ops *o, const char *name, const struct scenario *s)
{
    const float bad[] = {NAN, HUGE_VALF, -HUGE_VALF};
    float *in[MAX_INPUTS] = {NULL}, *clean;

    for (int i = 0; i < MAX_INPUTS && s->inputs[i].name; i++)
        in[i] = ops_rig_random(o, (size_t)input_size(&s->inputs[i]));
    clean = run(o, s, in);
    assert_true(is_finite_row(clean, s->rows * s->width));
    for (int i = 0; i < MAX_INPUTS && s->inputs[i].name; i++)
        for (int b = 0; b < (s->inputs[i].hides_infinity ? 1 : 3); b++)
            for (int t = 0; t < TRIES && (i < 3 || s->residual || s->run != run_linear); t++)
                check_value(o, name, s, i, bad[b], in, clean);
    for (int i = 0; i < MAX_INPUTS; i++)
        free(in[i]);
    free(clean);
}

/* Numbers so large that their squares overflow: right, or not finite, but nothing that only looks right. */
static void check_large_norm(struct ops *o, const char *name, const struct scenario *s)
{
    float *in[MAX_INPUTS] = {NULL}, *small, *out;

    if (o->act_dtype == DTYPE_F16)
        return;
    for (int i = 0; i < MAX_INPUTS && s->inputs[i].name; i++)
        in[i] = ops_rig_random(o, (size_t)input_size(&s->inputs[i]));
    small = run(o, s, in);
    for (int64_t i = 0; i < input_size(&s->inputs[0]); i++)
        in[0][i] *= 0x1p70f;
    out = run(o, s, in);
    for (int64_t i = 0; i < s->rows * s->width; i++)
        if (isfinite(out[i]) && fabsf(out[i] - small[i]) > 0.05f * (1 + fabsf(small[i])))
            fail_msg("%s, %s: %g of large numbers, %g of small ones", name, s->name, (double)out[i], (double)small[i]);
    for (int i = 0; i < MAX_INPUTS; i++)
        free(in[i]);
    free(small);
    free(out);
}

/* -- choosing -- */

static int run_sample(struct ops *o, const float *x, int n_rows, int vocab, const struct ops_sample_row *like,
                      int32_t *ids, float *values, float *logprobs)
{
    struct ops_sample_row rows[2];
    void *d;
    int rc;

    assert_true(n_rows <= 2);
    for (int r = 0; r < n_rows; r++) {
        rows[r] = *like;
        rows[r].ret_ids = ids + r * like->n_best;
        rows[r].ret_values = values + r * like->n_best;
        rows[r].ret_logprobs = logprobs + r * like->n_best;
    }
    assert_int_equal(o->f->alloc(o, (size_t)(n_rows * vocab) * sizeof(float), &d), 0);
    assert_int_equal(o->f->upload(o, d, DTYPE_F32, x, DTYPE_F32, (size_t)(n_rows * vocab)), 0);
    rc = o->f->sample(
        o, &(struct ops_sample_args){.n_rows = n_rows, .vocab = vocab, .logits = d, .ld = vocab, .rows = rows});
    o->f->release(o, d);
    return rc;
}

static void check_sampling(struct ops *o, const char *name, int vocab, const struct ops_sample_row *like)
{
    const float bad[] = {NAN, HUGE_VALF, -HUGE_VALF};
    float *x = ops_rig_buffer((size_t)vocab * 2), values[8], logprobs[8];
    int32_t ids[8];

    for (int i = 0; i < 2 * vocab; i++)
        x[i] = ops_rig_normal();
    assert_int_equal(run_sample(o, x, 2, vocab, like, ids, values, logprobs), 0);
    for (int b = 0; b < 3; b++)
        for (int t = 0; t < TRIES; t++) {
            const int at = t == 0 ? vocab - 1 : ops_rig_below(vocab);
            const float was = x[at];

            x[at] = bad[b];
            for (int i = 0; i < 8; i++)
                ids[i] = -7;
            if (run_sample(o, x, 2, vocab, like, ids, values, logprobs) != -EDOM || ids[0] != -7)
                fail_msg("%s: %g among %d logits at %d is passed over", name, (double)bad[b], vocab, at);
            assert_int_equal(run_sample(o, x + vocab, 1, vocab, like, ids, values, logprobs), 0);
            x[at] = was;
        }
    free(x);
}

static void check_samplings(struct ops *o, const char *name)
{
    static const int vocabs[] = {4, 33, 2000};
    static const int32_t few[] = {1, 2};

    for (size_t v = 0; v < sizeof(vocabs) / sizeof(*vocabs); v++) {
        check_sampling(o, name, vocabs[v], &(struct ops_sample_row){.n_best = 1, .repetition_penalty = 1});
        check_sampling(o, name, vocabs[v],
                       &(struct ops_sample_row){.n_best = 3,
                                                .log_softmax = true,
                                                .repetition_penalty = 1.5f,
                                                .seen = few,
                                                .n_seen = 2,
                                                .banned = few,
                                                .n_banned = 1});
        check_sampling(o, name, vocabs[v],
                       &(struct ops_sample_row){
                           .n_best = 1, .sample = true, .repetition_penalty = 1, .temperature = 0.7f, .top_p = 1});
        check_sampling(o, name, vocabs[v],
                       &(struct ops_sample_row){.n_best = 1,
                                                .sample = true,
                                                .repetition_penalty = 1,
                                                .temperature = 1,
                                                .top_k = 2,
                                                .top_p = 0.9f,
                                                .uniform = 0.5f});
    }
}

void not_finite_check(struct ops *o, const char *name)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
        check_scenario(o, name, &scenarios[i]);
        if (scenarios[i].run == run_norm)
            check_large_norm(o, name, &scenarios[i]);
    }
    check_samplings(o, name);
}
