/* The graph of OPT (MODEL.md "OPT"): new prompts and single tokens share all products of a pass. */
#include "llm_worker/lm_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "tensor/ops.h"

enum { POSITION_OFFSET = 2 }; /* embed_positions begins with two unused rows */

struct opt_layer {
    struct params_norm attn_norm, final_norm;
    struct ops_weight *qkv, *out_proj, *fc1, *fc2;
};

struct opt_weights {
    struct config_opt shape;
    struct ops_table *positions;
    struct opt_layer *layers;
};

/* The rows of a pass: rows of new prompts, then one row per token. */
struct opt_pass {
    int n_starts, n_tokens;
    int64_t n_start_rows, n_rows;
};

static struct lm_shape opt_shape(const struct config *c)
{
    const struct config_opt *s = &c->opt;

    return (struct lm_shape){
        .width = s->width,
        .vocab_size = s->vocab_size,
        .n_heads = s->n_heads,
        .head_dim = s->head_dim,
        .n_kv_layers = s->n_layers,
        .wide = 3 * s->width > s->ffn_width ? 3 * s->width : s->ffn_width,
        .max_prefix = s->max_positions,
        .max_tail = s->max_positions,
    };
}

static int load_layer(const struct params *p, const struct config_opt *s, int i, struct opt_layer *l)
{
    const char *at = "language_model.model.decoder.layers";
    const int64_t w = s->width, f = s->ffn_width;
    char name[PARAMS_NAME_MAX];
    int rc;

    params_name(name, "%s.%d.self_attn.", at, i);
    rc = params_stacked(p, name, 3, (const char *const[]){"q_proj", "k_proj", "v_proj"}, w, w, true, &l->qkv);
    if (rc < 0)
        return rc;
    params_name(name, "%s.%d.self_attn.out_proj", at, i);
    if ((rc = params_linear(p, name, w, w, true, &l->out_proj)) < 0)
        return rc;
    if ((rc = params_linear(p, params_name(name, "%s.%d.fc1", at, i), f, w, true, &l->fc1)) < 0 ||
        (rc = params_linear(p, params_name(name, "%s.%d.fc2", at, i), w, f, true, &l->fc2)) < 0)
        return rc;
    params_name(name, "%s.%d.self_attn_layer_norm", at, i);
    if ((rc = params_norm_load(p, name, w, &l->attn_norm)) < 0)
        return rc;
    return params_norm_load(p, params_name(name, "%s.%d.final_layer_norm", at, i), w, &l->final_norm);
}

static int opt_load(struct lm *m, const struct params *p)
{
    struct opt_weights *w = calloc(1, sizeof(*w));
    const struct config_opt *s = &p->c->config.opt;
    int rc;

    m->weights = w;
    if (w)
        w->layers = calloc((size_t)s->n_layers, sizeof(*w->layers));
    if (!w || !w->layers)
        return err_set(p->err, -ENOMEM, "no memory for the language model");
    w->shape = *s;
    rc = params_table(p, "language_model.model.decoder.embed_tokens", s->vocab_size, s->width, &m->embedding);
    if (rc < 0)
        return rc;
    rc = params_table(p, "language_model.model.decoder.embed_positions", s->max_positions + POSITION_OFFSET, s->width,
                      &w->positions);
    for (int i = 0; rc == 0 && i < s->n_layers; i++)
        rc = load_layer(p, s, i, &w->layers[i]);
    if (rc == 0 && s->final_norm)
        rc = params_norm_load(p, "language_model.model.decoder.final_layer_norm", s->width, &m->final_norm);
    return rc;
}

static void opt_release(struct lm *m)
{
    struct opt_weights *w = m->weights;

    if (!w)
        return;
    for (int i = 0; w->layers && i < w->shape.n_layers; i++) {
        struct opt_layer *l = &w->layers[i];

        params_norm_free(m->o, &l->attn_norm);
        params_norm_free(m->o, &l->final_norm);
        params_weight_free(m->o, &l->qkv);
        params_weight_free(m->o, &l->out_proj);
        params_weight_free(m->o, &l->fc1);
        params_weight_free(m->o, &l->fc2);
    }
    params_table_free(m->o, &w->positions);
    free(w->layers);
    free(w);
}

static int opt_check_positions(const struct lm *m, int64_t n_prompt, int64_t n_new, struct err *err)
{
    const struct opt_weights *w = m->weights;

    if (n_prompt + n_new - 1 <= w->shape.max_positions)
        return 0;
    return err_set(err, -E2BIG, "a prompt of %lld rows and %lld new tokens need %lld positions, but the model has %d",
                   (long long)n_prompt, (long long)n_new, (long long)(n_prompt + n_new - 1), w->shape.max_positions);
}

static void lay_rows(struct lm *m, struct opt_pass *pass, struct lm_rows *rows, const struct lm_start *starts,
                     const struct lm_token *tokens)
{
    for (int s = 0; s < pass->n_starts; s++) {
        lm_lay_start(m, rows, s, &starts[s]);
        m->last_row[s] = (int32_t)rows->n_rows - 1;
    }
    pass->n_start_rows = rows->n_rows;
    for (int t = 0; t < pass->n_tokens; t++) {
        m->last_row[pass->n_starts + t] = (int32_t)rows->n_rows;
        lm_lay_token(m, rows, &tokens[t]);
    }
    pass->n_rows = rows->n_rows;
    for (int64_t i = 0; i < rows->n_rows; i++)
        m->position[i] += POSITION_OFFSET;
}

/* x = token embeddings or image rows, + position embeddings. */
static int embed(struct lm *m, const struct opt_pass *pass, const struct lm_rows *rows, const struct lm_start *starts)
{
    const struct opt_weights *w = m->weights;
    int rc = lm_embed(m, rows, pass->n_starts, starts);

    if (rc < 0)
        return rc;
    return m->o->f->embed(m->o, w->positions, rows->n_rows, m->position, NULL, true, m->x, m->shape.width);
}

/* Attention of new prompts (queries in wide) over their rows of the cache -> h */
static int attend_starts(struct lm *m, const struct opt_pass *pass, int layer)
{
    const int64_t w = m->shape.width;
    const void *kv = lm_kv_layer(m, layer);

    if (pass->n_starts == 0)
        return 0;
    return m->o->f->attention(m->o, &(struct ops_attention_args){
                                        .n_seqs = pass->n_starts,
                                        .n_heads = m->shape.n_heads,
                                        .head_dim = m->shape.head_dim,
                                        .scale = 1 / sqrtf((float)m->shape.head_dim),
                                        .causal = true,
                                        .q = m->wide,
                                        .k = kv,
                                        .v = lm_at(m, kv, 0, 2 * w, w),
                                        .ld_q = 3 * w,
                                        .ld_k = 2 * w,
                                        .ld_v = 2 * w,
                                        .q_start = m->start_row,
                                        .q_len = m->start_len,
                                        .kv_start = m->start_kv,
                                        .kv_len = m->start_len,
                                        .out = m->h,
                                        .ld_out = w,
                                    });
}

static int attend_tokens(struct lm *m, const struct opt_pass *pass, int layer)
{
    const int64_t w = m->shape.width;
    const void *kv = lm_kv_layer(m, layer);

    if (pass->n_tokens == 0)
        return 0;
    return m->o->f->decode_attention(m->o, &(struct ops_decode_attention_args){
                                               .n_rows = pass->n_tokens,
                                               .n_heads = m->shape.n_heads,
                                               .head_dim = m->shape.head_dim,
                                               .scale = 1 / sqrtf((float)m->shape.head_dim),
                                               .q = lm_at(m, m->wide, pass->n_start_rows, 3 * w, 0),
                                               .ld_q = 3 * w,
                                               .k = kv,
                                               .v = lm_at(m, kv, 0, 2 * w, w),
                                               .ld_kv = 2 * w,
                                               .prefix_start = m->prefix_start,
                                               .prefix_len = m->prefix_len,
                                               .tail = m->tail,
                                               .tail_start = m->tail_start,
                                               .tail_len = m->tail_len,
                                               .out = lm_at(m, m->h, pass->n_start_rows, w, 0),
                                               .ld_out = w,
                                           });
}

/* x += out_proj(attention(from)); the new keys and values go to the cache first. `from` is x or its norm. */
static int attend(struct lm *m, const struct opt_pass *pass, int i, const void *from)
{
    const struct opt_layer *l = &((const struct opt_weights *)m->weights)->layers[i];
    const int64_t w = m->shape.width;
    int rc = params_apply(m->o, l->qkv, pass->n_rows, w, 3 * w, from, m->wide, OPS_ACT_NONE, NULL);

    if (rc == 0)
        rc = lm_store_kv(m, i, pass->n_rows, w, 3 * w);
    if (rc == 0)
        rc = attend_starts(m, pass, i);
    if (rc == 0)
        rc = attend_tokens(m, pass, i);
    return rc < 0 ? rc : params_apply(m->o, l->out_proj, pass->n_rows, w, w, m->h, m->x, OPS_ACT_NONE, m->x);
}

/* x += fc2(relu(fc1(from))) */
static int feed_forward(struct lm *m, const struct opt_pass *pass, int i, const void *from)
{
    const struct opt_weights *weights = m->weights;
    const struct opt_layer *l = &weights->layers[i];
    const int64_t w = m->shape.width, f = weights->shape.ffn_width;
    int rc = params_apply(m->o, l->fc1, pass->n_rows, w, f, from, m->wide, OPS_ACT_RELU, NULL);

    return rc < 0 ? rc : params_apply(m->o, l->fc2, pass->n_rows, f, w, m->wide, m->x, OPS_ACT_NONE, m->x);
}

/* do_layer_norm_before: x += f(norm(x)). Otherwise x = norm(x + f(x)). */
static int run_layer(struct lm *m, const struct opt_pass *pass, int i)
{
    const struct opt_weights *weights = m->weights;
    const struct opt_layer *l = &weights->layers[i];
    const bool before = weights->shape.norm_before;
    const int64_t w = m->shape.width;
    const float eps = weights->shape.eps;
    const void *from = before ? m->h : m->x;
    void *to = before ? m->h : m->x;
    int rc = before ? params_norm_apply(m->o, &l->attn_norm, pass->n_rows, w, eps, m->x, m->h, l->qkv) : 0;

    if (rc == 0)
        rc = attend(m, pass, i, from);
    if (rc == 0)
        rc = params_norm_apply(m->o, before ? &l->final_norm : &l->attn_norm, pass->n_rows, w, eps, m->x, to,
                               before ? l->fc1 : NULL); /* otherwise fc2's sum reads it too */
    if (rc == 0)
        rc = feed_forward(m, pass, i, from);
    if (rc == 0 && !before)
        rc = params_norm_apply(m->o, &l->final_norm, pass->n_rows, w, eps, m->x, m->x, NULL);
    return rc;
}

static int run(struct lm *m, const struct opt_pass *pass, const struct lm_rows *rows, const struct lm_start *starts)
{
    const struct opt_weights *w = m->weights;
    int rc = lm_forward_begin(m, rows, pass->n_starts);

    if (rc < 0)
        return rc;
    rc = embed(m, pass, rows, starts);
    for (int i = 0; rc == 0 && i < w->shape.n_layers; i++)
        rc = run_layer(m, pass, i);
    if (rc == 0)
        rc = lm_run_head(m, pass->n_starts + pass->n_tokens, w->shape.eps);
    return lm_forward_end(m, pass->n_starts, rc);
}

static int opt_forward_rows(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens,
                            const struct lm_token *tokens)
{
    struct opt_pass pass = {.n_starts = n_starts, .n_tokens = n_tokens};
    struct lm_rows rows = {0};
    int rc;

    lay_rows(m, &pass, &rows, starts, tokens);
    rc = run(m, &pass, &rows, starts);
    return rc == -EAGAIN ? run(m, &pass, &rows, starts) : rc; /* the graph could not be captured */
}

const struct lm_graph lm_opt_graph = {
    .shape = opt_shape,
    .load = opt_load,
    .release = opt_release,
    .check_positions = opt_check_positions,
    .forward = opt_forward_rows,
};
