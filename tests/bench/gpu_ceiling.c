#include "tests/bench/gpu_ceiling.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* More than any cache of a card holds; matrices of a line repeat where a layer's together are less. */
static const double cold_bytes = 256e6;

/* -- values -- */

/* n bf16 values from -scale to scale that look random. */
static uint16_t *values_new(size_t n, float scale)
{
    uint16_t *x = malloc(n * sizeof(*x));
    uint64_t state = 88172645463325252U;

    for (size_t i = 0; x && i < n; i++) {
        float value;

        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value = scale * ((float)(state >> 40) / 8388608.0F - 1);
        tensor_from_f32(&x[i], DTYPE_BF16, &value, 1);
    }
    return x;
}

static int no_memory(struct err *err)
{
    return err_set(err, -ENOMEM, "no memory");
}

static int explain(const struct ops *o, int rc, struct err *err)
{
    return rc < 0 ? err_set(err, rc, "%s", o->why.text[0] ? o->why.text : strerror(-rc)) : rc;
}

enum { BLOCK = 1 << 22 }; /* values of an upload; larger buffers are filled with the same ones again and again */

/* Device memory with n values of the activations' type, from -1 to 1. */
static int buffer_new(struct ops *o, size_t n, void **ret, struct err *err)
{
    const size_t size = dtype_size_bytes(o->act_dtype);
    uint16_t *x = values_new(n < BLOCK ? n : BLOCK, 1);
    char *d = NULL;
    int rc = x ? o->f->alloc(o, n * size, (void **)&d) : -ENOMEM;

    for (size_t at = 0; rc == 0 && at < n; at += BLOCK)
        rc = o->f->upload(o, d + at * size, o->act_dtype, x, DTYPE_BF16, n - at < BLOCK ? n - at : BLOCK);
    free(x);
    *ret = d;
    return explain(o, rc, err);
}

/* -- products -- */

enum { MAX_COPIES = 64 };

struct products {
    struct ops *ops;
    const struct budget *budget;
    struct ops_weight *weights[BUDGET_MAX_LINES][MAX_COPIES];
    int n_copies;
    void *x, *y;
};

static int weight_new(struct products *p, const struct budget_line *l, struct ops_weight **ret, struct err *err)
{
    uint16_t *x = values_new((size_t)(l->n * l->k), 1 / sqrtf((float)l->k));
    const struct tensor t = {.dtype = DTYPE_BF16, .n_dims = 2, .shape = {l->n, l->k}, .data = x};
    int rc = x ? p->ops->f->weight_new(p->ops, &(struct ops_weight_part){.weight = &t}, 1,
                                       l->fp8 && p->ops->fp8 ? OPS_WEIGHT_FP8 : 0, ret, err)
               : no_memory(err);

    free(x);
    return rc;
}

static int products_open(struct products *p, struct err *err)
{
    const struct budget *b = p->budget;
    int64_t most_in = 0, most_out = 0;
    double bytes = 0;
    int rc = 0;

    for (int i = 0; i < b->n_lines; i++) {
        const struct budget_line *l = &b->lines[i];

        if (l->kind != BUDGET_PRODUCT)
            continue;
        most_in = l->m * l->k > most_in ? l->m * l->k : most_in;
        most_out = l->m * l->n > most_out ? l->m * l->n : most_out;
        bytes += (double)l->n * (double)l->k * 2;
    }
    p->n_copies = (int)ceil(cold_bytes / (bytes + 1));
    if (p->n_copies > MAX_COPIES)
        p->n_copies = MAX_COPIES;
    rc = buffer_new(p->ops, (size_t)most_in, &p->x, err);
    if (rc == 0)
        rc = explain(p->ops, p->ops->f->alloc(p->ops, (size_t)most_out * dtype_size_bytes(p->ops->act_dtype), &p->y),
                     err);
    for (int i = 0; rc == 0 && i < b->n_lines; i++)
        for (int k = 0; rc == 0 && k < p->n_copies && b->lines[i].kind == BUDGET_PRODUCT; k++)
            if (k == 0 || k < b->lines[i].count)
                rc = weight_new(p, &b->lines[i], &p->weights[i][k], err);
    return rc;
}

static void products_close(struct products *p)
{
    for (int i = 0; i < BUDGET_MAX_LINES; i++)
        for (int k = 0; k < MAX_COPIES; k++)
            if (p->weights[i][k])
                p->ops->f->weight_free(p->ops, p->weights[i][k]);
    p->ops->f->release(p->ops, p->x);
    p->ops->f->release(p->ops, p->y);
}

static int run_line(struct products *p, int line, int64_t nth)
{
    const struct budget_line *l = &p->budget->lines[line];
    struct ops_weight *w = p->weights[line][nth % p->n_copies];

    return p->ops->f->linear(
        p->ops,
        &(struct ops_linear_args){
            .weight = w ? w : p->weights[line][0], .n_rows = l->m, .x = p->x, .ld_x = l->k, .y = p->y, .ld_y = l->n});
}

/* One run of the stage: in each round every line as often as its share of the rounds says, so that layers follow one
 * another as they do in the graph. */
static int run_products(struct products *p)
{
    const struct budget *b = p->budget;
    double rounds = 1;

    for (int i = 0; i < b->n_lines; i++)
        if (b->lines[i].kind == BUDGET_PRODUCT && b->lines[i].count > rounds)
            rounds = b->lines[i].count;
    for (int64_t r = 0; r < (int64_t)rounds; r++)
        for (int i = 0; i < b->n_lines; i++) {
            const double each = b->lines[i].count / rounds;
            const int64_t from = (int64_t)((double)r * each), to = (int64_t)((double)(r + 1) * each + 1e-9);

            for (int64_t k = from; k < to && b->lines[i].kind == BUDGET_PRODUCT; k++) {
                int rc = run_line(p, i, k);

                if (rc < 0)
                    return rc;
            }
        }
    return p->ops->f->sync(p->ops);
}

/* f again and again for `seconds`, once more before that; seconds of one. */
static int repeat(int (*f)(void *arg), void *arg, double seconds, double *ret_s)
{
    int64_t start, took = 0, n = 0;
    int rc = f(arg);

    start = clock_mono_ns();
    while (rc == 0 && (n == 0 || (double)took < seconds * 1e9)) {
        rc = f(arg);
        n++;
        took = clock_mono_ns() - start;
    }
    *ret_s = rc == 0 ? (double)took / 1e9 / (double)n : 0;
    return rc;
}

static int repeat_products(void *arg)
{
    return run_products(arg);
}

static int measure_products(struct ops *o, const struct budget *b, double seconds, struct gpu_ceiling *c,
                            struct err *err)
{
    struct products *p = calloc(1, sizeof(*p));
    int rc;

    if (!p)
        return no_memory(err);
    p->ops = o;
    p->budget = b;
    rc = products_open(p, err);
    if (rc == 0)
        rc = explain(o, repeat(repeat_products, p, seconds, &c->products_s), err);
    for (int i = 0; i < b->n_lines; i++)
        if (b->lines[i].kind == BUDGET_PRODUCT)
            c->products_flop += b->lines[i].count * budget_line_flop(&b->lines[i]);
    products_close(p);
    free(p);
    return rc;
}

/* -- attention -- */

struct attention {
    struct ops *ops;
    const struct budget_line *line;
    void *qkv, *out;
    int64_t q_rows, kv_rows, width;
    int32_t *at; /* of each sequence or row: start and length of queries, of keys, of tails; then the tails' rows */
};

static int attention_open(struct attention *a, struct err *err)
{
    const struct budget_line *l = a->line;
    const bool decode = l->kind == BUDGET_DECODE;
    const int64_t n = l->n_seqs, tail = l->kv - l->prefix, prefixes = decode ? n / l->share : 0;
    int rc;

    a->width = (int64_t)l->n_heads * l->head_dim;
    a->q_rows = n * l->q;
    a->kv_rows = decode ? prefixes * l->prefix + n * tail : n * l->kv;
    a->at = calloc((size_t)n * (size_t)(5 + (decode ? tail : 0)), sizeof(int32_t));
    if (!a->at)
        return no_memory(err);
    for (int64_t i = 0; i < n; i++) {
        a->at[i] = (int32_t)(decode ? i / l->share * l->prefix : i * l->q);
        a->at[n + i] = (int32_t)(decode ? l->prefix : l->q);
        a->at[2 * n + i] = (int32_t)(decode ? i * tail : i * l->kv);
        a->at[3 * n + i] = (int32_t)(decode ? tail : l->kv);
        for (int64_t k = 0; decode && k < tail; k++)
            a->at[4 * n + i * tail + k] = (int32_t)(prefixes * l->prefix + i * tail + k);
    }
    rc = buffer_new(a->ops, (size_t)((a->q_rows + 2 * a->kv_rows) * a->width), &a->qkv, err);
    if (rc == 0)
        rc = explain(
            a->ops,
            a->ops->f->alloc(a->ops, (size_t)(a->q_rows * a->width) * dtype_size_bytes(a->ops->act_dtype), &a->out),
            err);
    return rc;
}

static const void *elements(const struct attention *a, int64_t n)
{
    return (const char *)a->qkv + (size_t)n * dtype_size_bytes(a->ops->act_dtype);
}

static int run_decode(const struct attention *a)
{
    const struct budget_line *l = a->line;
    const int64_t n = l->n_seqs;

    return a->ops->f->decode_attention(
        a->ops, &(struct ops_decode_attention_args){.n_rows = (int)n,
                                                    .n_heads = l->n_heads,
                                                    .head_dim = l->head_dim,
                                                    .scale = 1 / sqrtf((float)l->head_dim),
                                                    .q = a->qkv,
                                                    .ld_q = a->width,
                                                    .k = elements(a, a->q_rows * a->width),
                                                    .v = elements(a, (a->q_rows + a->kv_rows) * a->width),
                                                    .ld_kv = a->width,
                                                    .prefix_start = a->at,
                                                    .prefix_len = a->at + n,
                                                    .tail = a->at + 4 * n,
                                                    .tail_start = a->at + 2 * n,
                                                    .tail_len = a->at + 3 * n,
                                                    .out = a->out,
                                                    .ld_out = a->width});
}

static int run_attention(const struct attention *a)
{
    const struct budget_line *l = a->line;
    const int64_t n = l->n_seqs;

    return a->ops->f->attention(a->ops,
                                &(struct ops_attention_args){.n_seqs = (int)n,
                                                             .n_heads = l->n_heads,
                                                             .head_dim = l->head_dim,
                                                             .scale = 1 / sqrtf((float)l->head_dim),
                                                             .q = a->qkv,
                                                             .k = elements(a, a->q_rows * a->width),
                                                             .v = elements(a, (a->q_rows + a->kv_rows) * a->width),
                                                             .ld_q = a->width,
                                                             .ld_k = a->width,
                                                             .ld_v = a->width,
                                                             .q_start = a->at,
                                                             .q_len = a->at + n,
                                                             .kv_start = a->at + 2 * n,
                                                             .kv_len = a->at + 3 * n,
                                                             .out = a->out,
                                                             .ld_out = a->width});
}

enum { ATTENTIONS = 16 }; /* between two syncs */

static int repeat_attention(void *arg)
{
    const struct attention *a = arg;
    int rc = 0;

    for (int i = 0; rc == 0 && i < ATTENTIONS; i++)
        rc = a->line->kind == BUDGET_DECODE ? run_decode(a) : run_attention(a);
    return rc < 0 ? rc : a->ops->f->sync(a->ops);
}

static int measure_attention(struct ops *o, const struct budget_line *l, double seconds, struct gpu_ceiling *c,
                             struct err *err)
{
    struct attention a = {.ops = o, .line = l};
    double s = 0;
    int rc = attention_open(&a, err);

    if (rc == 0)
        rc = explain(o, repeat(repeat_attention, &a, seconds, &s), err);
    c->attention_s += l->count * s / ATTENTIONS;
    c->attention_flop += l->count * budget_line_flop(l);
    c->kv_bytes += l->count * budget_line_kv_bytes(l, dtype_size_bytes(o->act_dtype));
    o->f->release(o, a.qkv);
    o->f->release(o, a.out);
    free(a.at);
    return rc;
}

int gpu_ceiling_measure(struct ops *o, const struct budget *b, double seconds, struct gpu_ceiling *ret, struct err *err)
{
    int n = 0, rc;

    *ret = (struct gpu_ceiling){0};
    rc = measure_products(o, b, seconds, ret, err);
    for (int i = 0; i < b->n_lines; i++)
        n += b->lines[i].kind != BUDGET_PRODUCT;
    for (int i = 0; rc == 0 && i < b->n_lines; i++)
        if (b->lines[i].kind != BUDGET_PRODUCT)
            rc = measure_attention(o, &b->lines[i], seconds / n, ret, err);
    return rc;
}

/* -- bandwidth -- */

enum { COPY_WIDTH = 4096, COPY_ROWS = 1 << 16, TRANSFER = 1 << 25 /* values */ };

struct copies {
    struct ops *ops;
    void *from, *to;
    uint16_t *host;
};

static int repeat_copy(void *arg)
{
    const struct copies *c = arg;
    int rc = c->ops->f->rows_copy(c->ops, &(struct ops_rows_args){.n_rows = COPY_ROWS,
                                                                  .width = COPY_WIDTH,
                                                                  .src = c->from,
                                                                  .ld_src = COPY_WIDTH,
                                                                  .dst = c->to,
                                                                  .ld_dst = COPY_WIDTH});

    return rc < 0 ? rc : c->ops->f->sync(c->ops);
}

static int repeat_upload(void *arg)
{
    const struct copies *c = arg;
    const enum dtype t = c->ops->act_dtype;
    int rc = c->ops->f->upload(c->ops, c->to, t, c->host, t, TRANSFER);

    return rc < 0 ? rc : c->ops->f->sync(c->ops);
}

static int repeat_download(void *arg)
{
    const struct copies *c = arg;
    uint64_t ticket;
    int rc = c->ops->f->download_start(c->ops, c->host, c->from, c->ops->act_dtype, TRANSFER, &ticket);

    return rc < 0 ? rc : c->ops->f->download_wait(c->ops, ticket);
}

int gpu_bandwidth_measure(struct ops *o, double seconds, struct gpu_bandwidth *ret, struct err *err)
{
    const size_t n = (size_t)COPY_ROWS * COPY_WIDTH, size = dtype_size_bytes(o->act_dtype);
    struct copies c = {.ops = o, .host = calloc(TRANSFER, size)};
    double copy_s = 0, upload_s = 0, download_s = 0;
    int rc = c.host ? buffer_new(o, n, &c.from, err) : no_memory(err);

    if (rc == 0)
        rc = explain(o, o->f->alloc(o, n * size, &c.to), err);
    if (rc == 0)
        rc = explain(o, repeat(repeat_copy, &c, seconds, &copy_s), err);
    if (rc == 0)
        rc = explain(o, repeat(repeat_upload, &c, seconds / 4, &upload_s), err);
    if (rc == 0)
        rc = explain(o, repeat(repeat_download, &c, seconds / 4, &download_s), err);
    o->f->release(o, c.from);
    o->f->release(o, c.to);
    free(c.host);
    if (rc == 0)
        *ret = (struct gpu_bandwidth){.copy_gb_s = 2.0 * (double)(n * size) / copy_s / 1e9,
                                      .upload_gb_s = (double)(TRANSFER * size) / upload_s / 1e9,
                                      .download_gb_s = (double)(TRANSFER * size) / download_s / 1e9};
    return rc;
}
