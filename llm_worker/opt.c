#include "llm_worker/opt.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "model/params.h"
#include "tensor/ops.h"

enum { OPT_POSITION_OFFSET = 2 }; /* embed_positions begins with two rows that are never used */

struct opt_layer {
    struct params_norm attn_norm, final_norm;
    struct ops_weight *qkv, *out_proj, *fc1, *fc2;
};

struct opt {
    struct ops *o;
    struct config_opt shape;
    struct opt_limits limits;

    struct ops_table *tokens, *positions;
    struct opt_layer *layers;
    struct params_norm final_norm; /* unset in post-norm models and with _remove_final_layer_norm */
    struct ops_weight *head;       /* [V, L] */

    void *kv; /* [n_layers][n_slots * n_positions, 2L]: key, value */
    size_t kv_layer_bytes;

    /* views of one slab, act_dtype */
    void *slab;
    void *x;    /* [max_rows, L] the residual stream */
    void *h;    /* [max_rows, L] */
    void *wide; /* [max_rows, max(3L, F)] */
    void *last; /* [n_slots, L] the rows that logits are wanted of */
    float *logits;

    /* host index arrays of the pass being built */
    int32_t *position, *kv_row, *token, *token_row;          /* [max_rows] */
    int32_t *q_start, *q_len, *kv_start, *kv_len, *last_row; /* [n_slots] */
};

/* What a pass holds once its index arrays are filled. */
struct opt_pass {
    int n_seqs;
    int64_t n_rows, n_tokens;
};

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

static int load_head(struct opt *m, const struct params *p)
{
    struct tensor t;
    int rc = checkpoint_get_head(p->c, &t, p->err);

    if (rc < 0)
        return rc;
    rc = p->o->f->weight_new(p->o, &(struct ops_weight_part){&t, NULL}, 1, &m->head, p->err);
    if (rc < 0)
        return err_prefix(p->err, rc, "language_model.lm_head");
    checkpoint_drop(p->c, "language_model.lm_head.weight");
    checkpoint_drop(p->c, "language_model.model.decoder.embed_tokens.weight");
    return 0;
}

static int load_weights(struct opt *m, const struct params *p)
{
    const struct config_opt *s = &m->shape;
    int rc;

    rc = params_table(p, "language_model.model.decoder.embed_tokens", s->vocab_size, s->width, &m->tokens);
    if (rc < 0)
        return rc;
    rc = params_table(p, "language_model.model.decoder.embed_positions", s->max_positions + OPT_POSITION_OFFSET,
                      s->width, &m->positions);
    for (int i = 0; rc == 0 && i < s->n_layers; i++)
        rc = load_layer(p, s, i, &m->layers[i]);
    if (rc == 0 && s->final_norm)
        rc = params_norm_load(p, "language_model.model.decoder.final_layer_norm", s->width, &m->final_norm);
    return rc < 0 ? rc : load_head(m, p);
}

static int set_limits(struct opt *m, const struct opt_limits *limits, struct err *err)
{
    const struct config_opt *s = &m->shape;
    struct opt_limits *l = &m->limits;
    int64_t rows;

    *l = *limits;
    if (l->n_positions == 0)
        l->n_positions = s->max_positions;
    if (l->n_slots < 1 || l->n_positions < 1)
        return err_set(err, -EINVAL, "language model: %d slots of %d positions: at least 1 of each is needed",
                       l->n_slots, l->n_positions);
    if (l->n_positions > s->max_positions)
        return err_set(err, -EINVAL, "language model: slots of %d positions, max_position_embeddings is %d",
                       l->n_positions, s->max_positions);
    if (__builtin_mul_overflow((int64_t)l->n_slots, (int64_t)l->n_positions, &rows) || rows > INT32_MAX / 2)
        return err_set(err, -EINVAL, "language model: %d slots of %d positions are too many", l->n_slots,
                       l->n_positions);
    if (l->max_rows < l->n_slots + l->n_positions)
        l->max_rows = l->n_slots + l->n_positions;
    return 0;
}

/* Next view of the slab; with slab NULL only the size is counted. */
static void *take(const struct opt *m, size_t *used, int64_t rows, int64_t width, size_t size)
{
    void *at = m->slab ? (char *)m->slab + *used : NULL;

    *used += ((size_t)rows * (size_t)width * size + 63) / 64 * 64;
    return at;
}

static size_t lay_out(struct opt *m)
{
    const int64_t w = m->shape.width, wide = 3 * w > m->shape.ffn_width ? 3 * w : m->shape.ffn_width;
    const size_t size = dtype_size_bytes(m->o->act_dtype);
    size_t used = 0;

    m->x = take(m, &used, m->limits.max_rows, w, size);
    m->h = take(m, &used, m->limits.max_rows, w, size);
    m->wide = take(m, &used, m->limits.max_rows, wide, size);
    m->last = take(m, &used, m->limits.n_slots, w, size);
    m->logits = take(m, &used, m->limits.n_slots, m->shape.vocab_size, sizeof(float));
    return used;
}

static int alloc_index(struct opt *m)
{
    const size_t rows = (size_t)m->limits.max_rows, slots = (size_t)m->limits.n_slots;

    m->position = calloc(4 * rows + 5 * slots, sizeof(int32_t));
    if (!m->position)
        return -ENOMEM;
    m->kv_row = m->position + rows;
    m->token = m->kv_row + rows;
    m->token_row = m->token + rows;
    m->q_start = m->token_row + rows;
    m->q_len = m->q_start + slots;
    m->kv_start = m->q_len + slots;
    m->kv_len = m->kv_start + slots;
    m->last_row = m->kv_len + slots;
    return 0;
}

static int alloc_memory(struct opt *m, struct err *err)
{
    const size_t slab_bytes = lay_out(m), row_bytes = 2 * (size_t)m->shape.width * dtype_size_bytes(m->o->act_dtype);
    size_t kv_bytes;

    if (__builtin_mul_overflow((size_t)m->limits.n_slots * (size_t)m->limits.n_positions, row_bytes,
                               &m->kv_layer_bytes) ||
        __builtin_mul_overflow(m->kv_layer_bytes, (size_t)m->shape.n_layers, &kv_bytes))
        return err_set(err, -EOVERFLOW, "language model: the KV cache of %d slots is too large", m->limits.n_slots);
    if (alloc_index(m) < 0 || m->o->f->alloc(m->o, slab_bytes, &m->slab) < 0)
        return err_set(err, -ENOMEM, "language model: no memory for %zu bytes of activations (%d rows a pass)",
                       slab_bytes, m->limits.max_rows);
    lay_out(m);
    if (m->o->f->alloc(m->o, kv_bytes, &m->kv) < 0)
        return err_set(err, -ENOMEM,
                       "language model: no memory for %zu bytes of KV cache: %d slots of %d positions; fewer slots "
                       "need less",
                       kv_bytes, m->limits.n_slots, m->limits.n_positions);
    return 0;
}

int opt_new(struct ops *o, const struct checkpoint *c, const struct opt_limits *limits, struct opt **ret,
            struct err *err)
{
    struct opt *m;
    int rc;

    if (c->config.lm != CONFIG_LM_OPT)
        return err_set(err, -ENOTSUP, "%s: the language model is not OPT", c->dir);
    m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, -ENOMEM, "no memory for the language model");
    m->o = o;
    m->shape = c->config.opt;
    m->layers = calloc((size_t)m->shape.n_layers, sizeof(*m->layers));
    rc = m->layers ? set_limits(m, limits, err) : err_set(err, -ENOMEM, "no memory for the language model");
    if (rc == 0)
        rc = alloc_memory(m, err);
    if (rc == 0)
        rc = load_weights(m, &(struct params){o, c, err});
    if (rc < 0) {
        opt_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}

void opt_free(struct opt *m)
{
    if (!m)
        return;
    for (int i = 0; m->layers && i < m->shape.n_layers; i++) {
        struct opt_layer *l = &m->layers[i];

        params_norm_free(m->o, &l->attn_norm);
        params_norm_free(m->o, &l->final_norm);
        params_weight_free(m->o, &l->qkv);
        params_weight_free(m->o, &l->out_proj);
        params_weight_free(m->o, &l->fc1);
        params_weight_free(m->o, &l->fc2);
    }
    params_norm_free(m->o, &m->final_norm);
    params_weight_free(m->o, &m->head);
    params_table_free(m->o, &m->tokens);
    params_table_free(m->o, &m->positions);
    m->o->f->release(m->o, m->slab);
    m->o->f->release(m->o, m->kv);
    free(m->layers);
    free(m->position);
    free(m);
}

int opt_width(const struct opt *m)
{
    return m->shape.width;
}

int opt_vocab_size(const struct opt *m)
{
    return m->shape.vocab_size;
}

int opt_n_slots(const struct opt *m)
{
    return m->limits.n_slots;
}

int opt_n_positions(const struct opt *m)
{
    return m->limits.n_positions;
}

int opt_max_rows(const struct opt *m)
{
    return m->limits.max_rows;
}

size_t opt_kv_bytes(const struct opt *m)
{
    return m->kv_layer_bytes * (size_t)m->shape.n_layers;
}

struct ops *opt_ops(const struct opt *m)
{
    return m->o;
}

/* Fill the index arrays: which position, cache row and token each row of the pass is. */
static struct opt_pass lay_rows(struct opt *m, int n_seqs, const struct opt_seq *seqs)
{
    struct opt_pass pass = {.n_seqs = n_seqs};

    for (int s = 0; s < n_seqs; s++) {
        const struct opt_seq *q = &seqs[s];
        const int n_rows = q->n_image_rows + q->n_ids, slot_row = q->slot * m->limits.n_positions;

        assert(q->slot >= 0 && q->slot < m->limits.n_slots && n_rows >= 1 && q->first_position >= 0);
        assert(q->first_position + n_rows <= m->limits.n_positions);
        assert(pass.n_rows + n_rows <= m->limits.max_rows);
        m->q_start[s] = (int32_t)pass.n_rows;
        m->q_len[s] = n_rows;
        m->kv_start[s] = slot_row;
        m->kv_len[s] = q->first_position + n_rows;
        m->last_row[s] = (int32_t)pass.n_rows + n_rows - 1;
        for (int i = 0; i < n_rows; i++, pass.n_rows++) {
            m->position[pass.n_rows] = q->first_position + i + OPT_POSITION_OFFSET;
            m->kv_row[pass.n_rows] = slot_row + q->first_position + i;
            if (i < q->n_image_rows)
                continue;
            m->token[pass.n_tokens] = q->ids[i - q->n_image_rows];
            m->token_row[pass.n_tokens++] = (int32_t)pass.n_rows;
        }
    }
    return pass;
}

/* x = token embeddings or image rows, + position embeddings */
static int embed(struct opt *m, const struct opt_pass *pass, const struct opt_seq *seqs)
{
    const int64_t w = m->shape.width;
    const size_t row_bytes = (size_t)w * dtype_size_bytes(m->o->act_dtype);
    int rc = 0;

    for (int s = 0; rc == 0 && s < pass->n_seqs; s++)
        if (seqs[s].n_image_rows > 0)
            rc = m->o->f->upload_f32(m->o, (char *)m->x + (size_t)m->q_start[s] * row_bytes, seqs[s].image_rows,
                                     (size_t)seqs[s].n_image_rows * (size_t)w);
    if (rc == 0 && pass->n_tokens > 0)
        rc = m->o->f->embed(m->o, m->tokens, pass->n_tokens, m->token, m->token_row, false, m->x, w);
    return rc < 0 ? rc : m->o->f->embed(m->o, m->positions, pass->n_rows, m->position, NULL, true, m->x, w);
}

/* x += out_proj(attention(from)); the new keys and values go to the cache first. `from` is x or its norm. */
static int attend(struct opt *m, const struct opt_pass *pass, int layer, const void *from)
{
    const struct opt_layer *l = &m->layers[layer];
    const int64_t w = m->shape.width;
    const size_t column = (size_t)w * dtype_size_bytes(m->o->act_dtype);
    char *kv = (char *)m->kv + (size_t)layer * m->kv_layer_bytes;
    struct ops_attention_args a = {
        .n_seqs = pass->n_seqs,
        .n_heads = m->shape.n_heads,
        .head_dim = m->shape.head_dim,
        .scale = 1 / sqrtf((float)m->shape.head_dim),
        .causal = true,
        .q = m->wide,
        .k = kv,
        .v = kv + column,
        .ld_q = 3 * w,
        .ld_k = 2 * w,
        .ld_v = 2 * w,
        .q_start = m->q_start,
        .q_len = m->q_len,
        .kv_start = m->kv_start,
        .kv_len = m->kv_len,
        .out = m->h,
        .ld_out = w,
    };
    int rc = params_apply(m->o, l->qkv, pass->n_rows, w, 3 * w, from, m->wide, OPS_ACT_NONE, NULL);

    if (rc == 0)
        rc = m->o->f->rows_copy(m->o, &(struct ops_rows_args){.n_rows = pass->n_rows,
                                                              .width = 2 * w,
                                                              .src = (char *)m->wide + column,
                                                              .ld_src = 3 * w,
                                                              .dst = kv,
                                                              .ld_dst = 2 * w,
                                                              .dst_index = m->kv_row});
    if (rc < 0 || (rc = m->o->f->attention(m->o, &a)) < 0)
        return rc;
    return params_apply(m->o, l->out_proj, pass->n_rows, w, w, m->h, m->x, OPS_ACT_NONE, m->x);
}

/* x += fc2(relu(fc1(from))) */
static int feed_forward(struct opt *m, const struct opt_pass *pass, const struct opt_layer *l, const void *from)
{
    const int64_t w = m->shape.width, f = m->shape.ffn_width;
    int rc = params_apply(m->o, l->fc1, pass->n_rows, w, f, from, m->wide, OPS_ACT_RELU, NULL);

    return rc < 0 ? rc : params_apply(m->o, l->fc2, pass->n_rows, f, w, m->wide, m->x, OPS_ACT_NONE, m->x);
}

static int norm(struct opt *m, const struct params_norm *n, int64_t n_rows, const void *x, void *y)
{
    return params_norm_apply(m->o, n, n_rows, m->shape.width, m->shape.eps, x, y);
}

/* do_layer_norm_before: x += f(norm(x)). Otherwise x = norm(x + f(x)). */
static int run_layer(struct opt *m, const struct opt_pass *pass, int i)
{
    const struct opt_layer *l = &m->layers[i];
    const bool before = m->shape.norm_before;
    const void *from = before ? m->h : m->x;
    int rc = before ? norm(m, &l->attn_norm, pass->n_rows, m->x, m->h) : 0;

    if (rc == 0)
        rc = attend(m, pass, i, from);
    if (rc == 0)
        rc = before ? norm(m, &l->final_norm, pass->n_rows, m->x, m->h)
                    : norm(m, &l->attn_norm, pass->n_rows, m->x, m->x);
    if (rc == 0)
        rc = feed_forward(m, pass, l, from);
    if (rc == 0 && !before)
        rc = norm(m, &l->final_norm, pass->n_rows, m->x, m->x);
    return rc;
}

/* The last row of each sequence -> logits. */
static int run_head(struct opt *m, const struct opt_pass *pass)
{
    const int64_t w = m->shape.width;
    int rc = m->o->f->rows_copy(m->o, &(struct ops_rows_args){.n_rows = pass->n_seqs,
                                                              .width = w,
                                                              .src = m->x,
                                                              .ld_src = w,
                                                              .src_index = m->last_row,
                                                              .dst = m->last,
                                                              .ld_dst = w});

    if (rc == 0 && m->final_norm.gamma)
        rc = norm(m, &m->final_norm, pass->n_seqs, m->last, m->last);
    if (rc < 0)
        return rc;
    return m->o->f->linear(m->o, &(struct ops_linear_args){.weight = m->head,
                                                           .n_rows = pass->n_seqs,
                                                           .x = m->last,
                                                           .ld_x = w,
                                                           .y = m->logits,
                                                           .ld_y = m->shape.vocab_size,
                                                           .y_f32 = true});
}

int opt_forward(struct opt *m, int n_seqs, const struct opt_seq *seqs, const float **ret_logits)
{
    struct opt_pass pass;
    int rc;

    assert(n_seqs >= 1 && n_seqs <= m->limits.n_slots);
    pass = lay_rows(m, n_seqs, seqs);
    rc = embed(m, &pass, seqs);
    for (int i = 0; rc == 0 && i < m->shape.n_layers; i++)
        rc = run_layer(m, &pass, i);
    if (rc == 0)
        rc = run_head(m, &pass);
    if (rc < 0)
        return rc;
    *ret_logits = m->logits;
    return 0;
}
