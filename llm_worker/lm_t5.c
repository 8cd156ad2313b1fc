/* The graph of T5 (MODEL.md "T5"): the encoder runs over new prompts and writes the cross-attention keys and values
 * of every decoder layer to the cache; then the decoder runs over start tokens and running sequences. */
#include "llm_worker/lm_private.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "tensor/ops.h"

/* T5 has no position limit; this bounds the tables of the relative bias. */
enum { MAX_POSITIONS = 4096 };

struct t5_attention {
    struct params_norm norm;
    struct ops_weight *qkv;    /* self-attention */
    struct ops_weight *q, *kv; /* cross-attention */
    struct ops_weight *out;
};

struct t5_feed_forward {
    struct params_norm norm;
    struct ops_weight *in; /* wi_0 over wi_1 */
    struct ops_weight *out;
};

struct t5_layer {
    struct t5_attention self, cross; /* cross: of decoder layers */
    struct t5_feed_forward ff;
};

struct t5_weights {
    struct config_t5 shape;
    struct t5_layer *encoder, *decoder;
    struct params_norm encoder_norm;
    float *encoder_bias, *decoder_bias; /* device f32 [H, 2 * span - 1] */
    int encoder_span, decoder_span;
};

static int64_t t5_inner(const struct config_t5 *s)
{
    return (int64_t)s->n_heads * s->head_dim;
}

static struct lm_shape t5_shape(const struct config *c)
{
    const struct config_t5 *s = &c->t5;
    const int64_t qkv = 3 * t5_inner(s), ff = 2 * (int64_t)s->ffn_width;

    return (struct lm_shape){
        .width = s->width,
        .vocab_size = s->vocab_size,
        .n_heads = s->n_heads,
        .head_dim = s->head_dim,
        .n_kv_layers = s->n_decoder_layers,
        .wide = qkv > ff ? qkv : ff,
        .start_rows = 1,
        .max_prefix = MAX_POSITIONS,
        .max_tail = MAX_POSITIONS,
    };
}

/* -- loading -- */

static int load_self(const struct params *p, const struct config_t5 *s, const char *at, struct t5_attention *a)
{
    const int64_t inner = t5_inner(s);
    char name[PARAMS_NAME_MAX];
    int rc = params_rms_load(p, params_name(name, "%s.layer.0.layer_norm", at), s->width, 1, &a->norm);

    if (rc < 0)
        return rc;
    params_name(name, "%s.layer.0.SelfAttention.", at);
    rc = params_stacked(p, name, 3, (const char *const[]){"q", "k", "v"}, inner, s->width, false, &a->qkv);
    if (rc < 0)
        return rc;
    return params_linear(p, params_name(name, "%s.layer.0.SelfAttention.o", at), s->width, inner, false, &a->out);
}

static int load_cross(const struct params *p, const struct config_t5 *s, const char *at, struct t5_attention *a)
{
    const int64_t inner = t5_inner(s);
    char name[PARAMS_NAME_MAX];
    int rc = params_rms_load(p, params_name(name, "%s.layer.1.layer_norm", at), s->width, 1, &a->norm);

    if (rc < 0)
        return rc;
    params_name(name, "%s.layer.1.EncDecAttention.q", at);
    if ((rc = params_linear(p, name, inner, s->width, false, &a->q)) < 0)
        return rc;
    params_name(name, "%s.layer.1.EncDecAttention.", at);
    rc = params_stacked(p, name, 2, (const char *const[]){"k", "v"}, inner, s->width, false, &a->kv);
    if (rc < 0)
        return rc;
    return params_linear(p, params_name(name, "%s.layer.1.EncDecAttention.o", at), s->width, inner, false, &a->out);
}

static int load_feed_forward(const struct params *p, const struct config_t5 *s, const char *at, int layer,
                             struct t5_feed_forward *f)
{
    char name[PARAMS_NAME_MAX];
    int rc = params_rms_load(p, params_name(name, "%s.layer.%d.layer_norm", at, layer), s->width, 1, &f->norm);

    if (rc < 0)
        return rc;
    params_name(name, "%s.layer.%d.DenseReluDense.", at, layer);
    rc = params_stacked(p, name, 2, (const char *const[]){"wi_0", "wi_1"}, s->ffn_width, s->width, false, &f->in);
    if (rc < 0)
        return rc;
    params_name(name, "%s.layer.%d.DenseReluDense.wo", at, layer);
    return params_linear(p, name, s->width, s->ffn_width, false, &f->out);
}

static int load_stack(const struct params *p, const struct config_t5 *s, const char *stack, int n_layers, bool decoder,
                      struct t5_layer *layers)
{
    char at[PARAMS_NAME_MAX / 2];
    int rc = 0;

    for (int i = 0; rc == 0 && i < n_layers; i++) {
        snprintf(at, sizeof(at), "language_model.%s.block.%d", stack, i);
        rc = load_self(p, s, at, &layers[i].self);
        if (rc == 0 && decoder)
            rc = load_cross(p, s, at, &layers[i].cross);
        if (rc == 0)
            rc = load_feed_forward(p, s, at, decoder ? 2 : 1, &layers[i].ff);
    }
    return rc;
}

/* The bucket of a key `distance` before (in the encoder also after) its query. In f32 like the reference, so that
 * both round the logarithm alike. */
static int bucket_of(const struct config_t5 *s, bool both_sides, int distance)
{
    const int n_buckets = both_sides ? s->n_buckets / 2 : s->n_buckets, exact = n_buckets / 2;
    const int ahead = both_sides && distance > 0 ? n_buckets : 0;
    const int n = both_sides ? abs(distance) : distance < 0 ? -distance : 0;
    const float scale = (float)log((double)s->max_distance / exact);
    int far;

    if (n < exact)
        return ahead + n;
    far = exact + (int)(logf((float)n / (float)exact) / scale * (float)(n_buckets - exact));
    return ahead + (far < n_buckets ? far : n_buckets - 1);
}

/* Expands the learned bias of each bucket to all distances: [H, 2 * span - 1]. */
static int load_bias(const struct params *p, const struct config_t5 *s, const char *stack, bool both_sides, int span,
                     float **ret)
{
    const size_t width = 2 * (size_t)span - 1, heads = (size_t)s->n_heads, n = heads * width;
    float *spread, *row;
    char name[PARAMS_NAME_MAX];
    struct tensor t;
    void *bias = NULL;
    int rc;

    params_name(name, "language_model.%s.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack);
    if ((rc = checkpoint_get_2d(p->c, name, s->n_buckets, s->n_heads, &t, p->err)) < 0)
        return rc;
    spread = malloc((n + heads) * sizeof(float));
    if (!spread || p->o->f->alloc(p->o, n * sizeof(float), &bias) < 0) {
        free(spread);
        return err_set(p->err, -ENOMEM, "%s: no memory for %zu distances", name, width);
    }
    *ret = bias;
    row = spread + n;
    for (size_t d = 0; d < width; d++) {
        tensor_row_to_f32(&t, bucket_of(s, both_sides, (int)d - (span - 1)), row);
        for (size_t h = 0; h < heads; h++)
            spread[h * width + d] = row[h] >= -FLT_MAX ? row[h] : NAN; /* -inf would mask keys */
    }
    rc = p->o->f->upload(p->o, bias, DTYPE_F32, spread, DTYPE_F32, n);
    free(spread);
    return rc < 0 ? err_set(p->err, rc, "%s: cannot upload the bias", name) : 0;
}

static int t5_load(struct lm *m, const struct params *p)
{
    const struct config_t5 *s = &p->c->config.t5;
    const float scale = s->scale_output ? 1 / sqrtf((float)s->width) : 1; /* of the decoder's output */
    struct t5_weights *w = calloc(1, sizeof(*w));
    int rc;

    m->weights = w;
    if (w) {
        w->shape = *s;
        w->encoder_span = m->shape.max_prefix;
        w->decoder_span = m->shape.max_tail;
        w->encoder = calloc((size_t)s->n_encoder_layers, sizeof(*w->encoder));
        w->decoder = calloc((size_t)s->n_decoder_layers, sizeof(*w->decoder));
    }
    if (!w || !w->encoder || !w->decoder)
        return err_set(p->err, -ENOMEM, "no memory for the language model");
    if ((rc = params_table(p, "language_model.shared", s->vocab_size, s->width, &m->embedding)) < 0 ||
        (rc = load_stack(p, s, "encoder", s->n_encoder_layers, false, w->encoder)) < 0 ||
        (rc = load_stack(p, s, "decoder", s->n_decoder_layers, true, w->decoder)) < 0 ||
        (rc = load_bias(p, s, "encoder", true, w->encoder_span, &w->encoder_bias)) < 0 ||
        (rc = load_bias(p, s, "decoder", false, w->decoder_span, &w->decoder_bias)) < 0 ||
        (rc = params_rms_load(p, "language_model.encoder.final_layer_norm", s->width, 1, &w->encoder_norm)) < 0)
        return rc;
    return params_rms_load(p, "language_model.decoder.final_layer_norm", s->width, scale, &m->final_norm);
}

static void free_attention(struct ops *o, struct t5_attention *a)
{
    params_norm_free(o, &a->norm);
    params_weight_free(o, &a->qkv);
    params_weight_free(o, &a->q);
    params_weight_free(o, &a->kv);
    params_weight_free(o, &a->out);
}

static void free_stack(struct ops *o, struct t5_layer *layers, int n)
{
    for (int i = 0; layers && i < n; i++) {
        free_attention(o, &layers[i].self);
        free_attention(o, &layers[i].cross);
        params_norm_free(o, &layers[i].ff.norm);
        params_weight_free(o, &layers[i].ff.in);
        params_weight_free(o, &layers[i].ff.out);
    }
    free(layers);
}

static void t5_release(struct lm *m)
{
    struct t5_weights *w = m->weights;

    if (!w)
        return;
    free_stack(m->o, w->encoder, w->shape.n_encoder_layers);
    free_stack(m->o, w->decoder, w->shape.n_decoder_layers);
    params_norm_free(m->o, &w->encoder_norm);
    m->o->f->release(m->o, w->encoder_bias);
    m->o->f->release(m->o, w->decoder_bias);
    free(w);
}

static int t5_check_positions(const struct lm *m, int64_t n_prompt, int64_t n_new, struct err *err)
{
    (void)m;
    if (n_prompt <= MAX_POSITIONS && n_new <= MAX_POSITIONS)
        return 0;
    return err_set(err, -E2BIG, "a prompt of %lld rows and %lld new tokens, expected at most %d of each",
                   (long long)n_prompt, (long long)n_new, MAX_POSITIONS);
}

/* -- both stacks -- */

static int normed(struct lm *m, const struct params_norm *n, int64_t n_rows)
{
    const struct t5_weights *w = m->weights;

    return params_norm_apply(m->o, n, n_rows, m->shape.width, w->shape.eps, m->x, m->h, NULL);
}

/* x += wo(gelu(wi_0(norm(x))) * wi_1(norm(x))) */
static int feed_forward(struct lm *m, const struct t5_feed_forward *f, int64_t n_rows)
{
    const struct config_t5 *s = &((const struct t5_weights *)m->weights)->shape;
    const int64_t l = m->shape.width, width = s->ffn_width;
    int rc = normed(m, &f->norm, n_rows);

    if (rc == 0)
        rc = params_apply(m->o, f->in, n_rows, l, 2 * width, m->h, m->wide, OPS_ACT_NONE, NULL);
    if (rc == 0)
        rc = m->o->f->gate(m->o, &(struct ops_gate_args){.n_rows = n_rows,
                                                         .width = width,
                                                         .act = s->gelu_erf ? OPS_ACT_GELU_ERF : OPS_ACT_GELU_TANH,
                                                         .x = m->wide,
                                                         .ld_x = 2 * width,
                                                         .y = m->wide,
                                                         .ld_y = 2 * width});
    if (rc < 0)
        return rc;
    return m->o->f->linear(m->o, &(struct ops_linear_args){.weight = f->out,
                                                           .n_rows = n_rows,
                                                           .x = m->wide,
                                                           .ld_x = 2 * width,
                                                           .y = m->x,
                                                           .ld_y = l,
                                                           .residual = m->x,
                                                           .ld_residual = l});
}

/* x += o(h), h [n_rows, H * d_kv] the attention output */
static int attended(struct lm *m, const struct t5_attention *a, int64_t n_rows)
{
    return params_apply(m->o, a->out, n_rows, lm_inner(m), m->shape.width, m->h, m->x, OPS_ACT_NONE, m->x);
}

/* -- encoder -- */

static int encode_layer(struct lm *m, const struct t5_layer *l, int n_starts, int64_t n_rows)
{
    const struct t5_weights *w = m->weights;
    const int64_t inner = lm_inner(m), ld = 3 * inner;
    int rc = normed(m, &l->self.norm, n_rows);

    if (rc == 0)
        rc = params_apply(m->o, l->self.qkv, n_rows, m->shape.width, ld, m->h, m->wide, OPS_ACT_NONE, NULL);
    if (rc == 0)
        rc = m->o->f->attention(m->o, &(struct ops_attention_args){
                                          .n_seqs = n_starts,
                                          .n_heads = m->shape.n_heads,
                                          .head_dim = m->shape.head_dim,
                                          .scale = 1,
                                          .q = m->wide,
                                          .k = lm_at(m, m->wide, 0, ld, inner),
                                          .v = lm_at(m, m->wide, 0, ld, 2 * inner),
                                          .ld_q = ld,
                                          .ld_k = ld,
                                          .ld_v = ld,
                                          .q_start = m->start_row,
                                          .q_len = m->start_len,
                                          .kv_start = m->start_row,
                                          .kv_len = m->start_len,
                                          .bias = w->encoder_bias,
                                          .bias_span = w->encoder_span,
                                          .out = m->h,
                                          .ld_out = inner,
                                      });
    if (rc == 0)
        rc = attended(m, &l->self, n_rows);
    return rc < 0 ? rc : feed_forward(m, &l->ff, n_rows);
}

/* New prompts -> the cache's prefix rows: cross-attention's keys and values in all decoder layers. */
static int encode(struct lm *m, int n_starts, const struct lm_start *starts)
{
    const struct t5_weights *w = m->weights;
    const int64_t ld = 2 * lm_inner(m);
    struct lm_rows rows = {0};
    int rc;

    for (int s = 0; s < n_starts; s++)
        lm_lay_start(m, &rows, s, &starts[s]);
    rc = lm_embed(m, &rows, n_starts, starts);
    for (int i = 0; rc == 0 && i < w->shape.n_encoder_layers; i++)
        rc = encode_layer(m, &w->encoder[i], n_starts, rows.n_rows);
    if (rc == 0)
        rc = normed(m, &w->encoder_norm, rows.n_rows);
    for (int i = 0; rc == 0 && i < w->shape.n_decoder_layers; i++) {
        rc = params_apply(m->o, w->decoder[i].cross.kv, rows.n_rows, m->shape.width, ld, m->h, m->wide, OPS_ACT_NONE,
                          NULL);
        if (rc == 0)
            rc = lm_store_kv(m, i, rows.n_rows, 0, ld);
    }
    return rc;
}

/* -- decoder -- */

/* Attention of every row over its prefix (cross) or over its own tail, including the newest row. */
static int attend(struct lm *m, int layer, int n_rows, bool cross)
{
    const struct t5_weights *w = m->weights;
    const int64_t inner = lm_inner(m);
    const void *kv = lm_kv_layer(m, layer);

    return m->o->f->decode_attention(m->o, &(struct ops_decode_attention_args){
                                               .n_rows = n_rows,
                                               .n_heads = m->shape.n_heads,
                                               .head_dim = m->shape.head_dim,
                                               .scale = 1,
                                               .q = m->wide,
                                               .ld_q = cross ? inner : 3 * inner,
                                               .k = kv,
                                               .v = lm_at(m, kv, 0, 2 * inner, inner),
                                               .ld_kv = 2 * inner,
                                               .prefix_start = cross ? m->prefix_start : m->none,
                                               .prefix_len = cross ? m->prefix_len : m->none,
                                               .tail = m->tail,
                                               .tail_start = cross ? m->none : m->tail_start,
                                               .tail_len = cross ? m->none : m->tail_len,
                                               .bias = cross ? NULL : w->decoder_bias,
                                               .bias_span = w->decoder_span,
                                               .out = m->h,
                                               .ld_out = inner,
                                           });
}

static int decode_layer(struct lm *m, int i, int n_rows)
{
    const struct t5_layer *l = &((const struct t5_weights *)m->weights)->decoder[i];
    const int64_t width = m->shape.width, inner = lm_inner(m);
    int rc = normed(m, &l->self.norm, n_rows);

    if (rc == 0)
        rc = params_apply(m->o, l->self.qkv, n_rows, width, 3 * inner, m->h, m->wide, OPS_ACT_NONE, NULL);
    if (rc == 0)
        rc = lm_store_kv(m, i, n_rows, inner, 3 * inner);
    if (rc == 0)
        rc = attend(m, i, n_rows, false);
    if (rc == 0)
        rc = attended(m, &l->self, n_rows);
    if (rc == 0)
        rc = normed(m, &l->cross.norm, n_rows);
    if (rc == 0)
        rc = params_apply(m->o, l->cross.q, n_rows, width, inner, m->h, m->wide, OPS_ACT_NONE, NULL);
    if (rc == 0)
        rc = attend(m, i, n_rows, true);
    if (rc == 0)
        rc = attended(m, &l->cross, n_rows);
    return rc < 0 ? rc : feed_forward(m, &l->ff, n_rows);
}

static int decode(struct lm *m, const struct lm_rows *rows, int n_starts)
{
    const struct t5_weights *w = m->weights;
    const int n_rows = rows->n_decode;
    int rc = lm_forward_begin(m, rows, n_starts);

    if (rc < 0)
        return rc;
    rc = lm_embed(m, rows, 0, NULL);
    for (int i = 0; rc == 0 && i < w->shape.n_decoder_layers; i++)
        rc = decode_layer(m, i, n_rows);
    if (rc == 0)
        rc = lm_run_head(m, n_rows, w->shape.eps);
    return lm_forward_end(m, n_starts, rc);
}

/* Runs the start token of each new prompt, then the newest token of each running sequence. */
static int t5_forward(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens,
                      const struct lm_token *tokens)
{
    const int n_rows = n_starts + n_tokens;
    struct lm_rows rows = {0};
    int rc = n_starts ? encode(m, n_starts, starts) : 0;

    if (rc < 0)
        return rc;
    for (int s = 0; s < n_starts; s++)
        lm_lay_token(m, &rows,
                     &(struct lm_token){.id = m->start_id,
                                        .prefix_row = starts[s].prefix_row,
                                        .n_prefix = starts[s].n_image_rows + starts[s].n_ids,
                                        .tail = &starts[s].first_row,
                                        .n_tail = 1});
    for (int t = 0; t < n_tokens; t++)
        lm_lay_token(m, &rows, &tokens[t]);
    for (int r = 0; r < n_rows; r++)
        m->last_row[r] = r;
    rc = decode(m, &rows, n_starts);
    return rc == -EAGAIN ? decode(m, &rows, n_starts) : rc; /* the graph could not be captured */
}

const struct lm_graph lm_t5_graph = {
    .shape = t5_shape,
    .load = t5_load,
    .release = t5_release,
    .check_positions = t5_check_positions,
    .forward = t5_forward,
};
