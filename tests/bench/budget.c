#include "tests/bench/budget.h"

#include <assert.h>

static struct budget_line *add(struct budget *b, enum budget_kind kind, const char *what, double count)
{
    assert(b->n_lines < BUDGET_MAX_LINES);
    b->lines[b->n_lines] = (struct budget_line){.kind = kind, .what = what, .count = count};
    return &b->lines[b->n_lines++];
}

static void add_product(struct budget *b, const char *what, double count, int64_t m, int64_t n, int64_t k)
{
    struct budget_line *l = add(b, BUDGET_PRODUCT, what, count);

    l->m = m;
    l->n = n;
    l->k = k;
}

static void add_attention(struct budget *b, const char *what, double count, int64_t n_seqs, int heads, int d, int64_t q,
                          int64_t kv)
{
    struct budget_line *l = add(b, BUDGET_ATTENTION, what, count);

    l->n_seqs = n_seqs;
    l->n_heads = heads;
    l->head_dim = d;
    l->q = q;
    l->kv = kv;
}

static void add_decode(struct budget *b, const char *what, double count, int64_t n_rows, int share, int heads, int d,
                       int64_t prefix, int64_t tail)
{
    struct budget_line *l = add(b, BUDGET_DECODE, what, count);

    l->n_seqs = n_rows;
    l->share = share;
    l->n_heads = heads;
    l->head_dim = d;
    l->q = 1;
    l->prefix = prefix;
    l->kv = prefix + tail;
}

/* Image encoder and OPT: model/params.h is told so when they are loaded. */
static void allow_fp8(struct budget *b)
{
    for (int i = 0; i < b->n_lines; i++)
        b->lines[i].fp8 = b->lines[i].kind == BUDGET_PRODUCT;
}

void budget_encoder(const struct config *c, int n_images, struct budget *ret)
{
    const struct config_vision *v = &c->vision;
    const int64_t rows = (int64_t)n_images * v->n_tokens, patches = (int64_t)n_images * (v->n_tokens - 1);

    *ret = (struct budget){.n_images = n_images};
    add_product(ret, "patches", 1, patches, v->width, (int64_t)3 * v->patch_size * v->patch_size);
    add_product(ret, "qkv", v->n_layers, rows, (int64_t)3 * v->width, v->width);
    add_attention(ret, "attention", v->n_layers, n_images, v->n_heads, v->head_dim, v->n_tokens, v->n_tokens);
    add_product(ret, "proj", v->n_layers, rows, v->width, v->width);
    add_product(ret, "fc1", v->n_layers, rows, v->ffn_width, v->width);
    add_product(ret, "fc2", v->n_layers, rows, v->width, v->ffn_width);
    allow_fp8(ret);
}

void budget_qformer(const struct config *c, int n_images, struct budget *ret)
{
    const struct config_qformer *q = &c->qformer;
    const int64_t rows = (int64_t)n_images * c->n_queries, image_rows = (int64_t)n_images * c->vision.n_tokens;
    const int n_cross = (q->n_layers + q->cross_attention_freq - 1) / q->cross_attention_freq;

    *ret = (struct budget){.n_images = n_images};
    add_product(ret, "qkv", q->n_layers, rows, (int64_t)3 * q->width, q->width);
    add_attention(ret, "attention", q->n_layers, n_images, q->n_heads, q->head_dim, c->n_queries, c->n_queries);
    add_product(ret, "dense", q->n_layers + 2 * n_cross, rows, q->width, q->width);
    add_product(ret, "cross kv", n_cross, image_rows, (int64_t)2 * q->width, q->vision_width);
    add_attention(ret, "cross", n_cross, n_images, q->n_heads, q->head_dim, c->n_queries, c->vision.n_tokens);
    add_product(ret, "ffn in", q->n_layers, rows, q->ffn_width, q->width);
    add_product(ret, "ffn out", q->n_layers, rows, q->width, q->ffn_width);
    if (c->lm_width)
        add_product(ret, "language", 1, rows, c->lm_width, q->width);
}

static void add_opt_layer(struct budget *b, const struct config_opt *c, double count, int64_t rows)
{
    add_product(b, "qkv", count, rows, (int64_t)3 * c->width, c->width);
    add_product(b, "out", count, rows, c->width, c->width);
    add_product(b, "fc1", count, rows, c->ffn_width, c->width);
    add_product(b, "fc2", count, rows, c->width, c->ffn_width);
}

static void budget_opt(const struct config *c, int n_beams, double n_new, struct budget *b)
{
    const struct config_opt *l = &c->opt;
    const int64_t prompt = c->n_queries + 1, rows = (int64_t)b->n_images * n_beams;
    const double steps = (double)l->n_layers * (n_new - 1);

    add_opt_layer(b, l, l->n_layers, b->n_images * prompt);
    add_attention(b, "prompt", l->n_layers, b->n_images, l->n_heads, l->head_dim, prompt, prompt);
    add_opt_layer(b, l, steps, rows);
    add_decode(b, "token", steps, rows, n_beams, l->n_heads, l->head_dim, prompt, (int64_t)(n_new / 2));
    add_product(b, "lm_head", 1, b->n_images, l->vocab_size, l->width);
    add_product(b, "lm_head", n_new - 1, rows, l->vocab_size, l->width);
    allow_fp8(b);
}

static void add_t5_encoder(struct budget *b, const struct config_t5 *t, int64_t prompt)
{
    const int64_t rows = b->n_images * prompt, inner = (int64_t)t->n_heads * t->head_dim;

    add_product(b, "enc qkv", t->n_encoder_layers, rows, 3 * inner, t->width);
    add_attention(b, "enc att", t->n_encoder_layers, b->n_images, t->n_heads, t->head_dim, prompt, prompt);
    add_product(b, "enc o", t->n_encoder_layers, rows, t->width, inner);
    add_product(b, "enc wi", t->n_encoder_layers, rows, (int64_t)2 * t->ffn_width, t->width);
    add_product(b, "enc wo", t->n_encoder_layers, rows, t->width, t->ffn_width);
    add_product(b, "cross kv", t->n_decoder_layers, rows, 2 * inner, t->width);
}

/* The start token's pass comes with the encoder's; then a step a token. Cross-attention's keys and values come once. */
static void budget_t5(const struct config *c, int n_beams, double n_new, struct budget *b)
{
    const struct config_t5 *t = &c->t5;
    const int64_t prompt = c->n_queries + 1, inner = (int64_t)t->n_heads * t->head_dim;
    const int64_t rows[2] = {b->n_images, (int64_t)b->n_images * n_beams};
    const double passes[2] = {n_beams > 1 ? 1 : 0, n_beams > 1 ? n_new - 1 : n_new};

    add_t5_encoder(b, t, prompt);
    for (int i = 0; i < 2; i++) {
        const double count = t->n_decoder_layers * passes[i];

        if (count == 0)
            continue;
        add_product(b, "qkv", count, rows[i], 3 * inner, t->width);
        add_decode(b, "self", count, rows[i], 1, t->n_heads, t->head_dim, 0, (int64_t)(n_new / 2) + 1);
        add_product(b, "o, q, o", 3 * count, rows[i], t->width, inner);
        add_decode(b, "cross", count, rows[i], i ? n_beams : 1, t->n_heads, t->head_dim, prompt, 0);
        add_product(b, "wi", count, rows[i], (int64_t)2 * t->ffn_width, t->width);
        add_product(b, "wo", count, rows[i], t->width, t->ffn_width);
        add_product(b, "lm_head", passes[i], rows[i], t->vocab_size, t->width);
    }
}

void budget_lm(const struct config *c, int n_images, int n_beams, double n_new, struct budget *ret)
{
    *ret = (struct budget){.n_images = n_images};
    if (c->lm == CONFIG_LM_OPT)
        budget_opt(c, n_beams, n_new, ret);
    else if (c->lm == CONFIG_LM_T5)
        budget_t5(c, n_beams, n_new, ret);
}

double budget_line_flop(const struct budget_line *l)
{
    if (l->kind == BUDGET_PRODUCT)
        return 2.0 * (double)l->m * (double)l->n * (double)l->k;
    return 4.0 * (double)l->n_seqs * l->n_heads * l->head_dim * (double)l->q * (double)l->kv;
}

double budget_line_kv_bytes(const struct budget_line *l, size_t size_bytes)
{
    const double row = 2.0 * l->n_heads * l->head_dim * (double)size_bytes;

    if (l->kind != BUDGET_DECODE)
        return 0;
    return row * ((double)l->n_seqs / l->share * (double)l->prefix + (double)l->n_seqs * (double)(l->kv - l->prefix));
}

double budget_flop(const struct budget *b)
{
    double sum = 0;

    for (int i = 0; i < b->n_lines; i++)
        sum += b->lines[i].count * budget_line_flop(&b->lines[i]);
    return sum;
}
