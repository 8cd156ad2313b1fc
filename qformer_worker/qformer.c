#include "qformer_worker/qformer.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "model/params.h"
#include "tensor/ops.h"

/* Dense, then LayerNorm of the sum with what went in: how each part of a BERT layer ends. */
struct qformer_output {
    struct ops_weight *dense;
    struct params_norm norm;
};

struct qformer_layer {
    struct ops_weight *self_qkv;
    struct qformer_output self_out;
    struct ops_weight *cross_query, *cross_kv; /* NULL in layers that do not look at the image */
    struct qformer_output cross_out;
    struct ops_weight *intermediate; /* of query rows */
    struct qformer_output output;
};

struct qformer {
    struct ops *o;
    struct config_qformer shape;
    int n_tokens, n_queries, language_width, max_batch;
    float image_eps;

    struct params_norm post_norm; /* the vision model's post_layernorm, trained with this Q-Former */
    struct qformer_layer *layers;
    struct ops_weight *projection; /* [L, E]; NULL without a language model */
    void *queries;                 /* [Q, E] LayerNorm of the query tokens, the same for every image */

    /* views of one slab, act_dtype, max_batch images */
    void *slab;
    void *image; /* [B*P, C] */
    void *kv;    /* [B*P, 2E] keys and values of the cross-attention of one layer */
    void *x;     /* [B*Q, E] */
    void *h;     /* [B*Q, E] */
    void *wide;  /* [B*Q, max(3E, F, L)] */

    int32_t *query_index;                                       /* [B*Q] row of `queries` that each row starts from */
    int32_t *query_start, *query_len, *image_start, *image_len; /* [B] */
};

static int load_output(const struct params *p, const char *name, int64_t n, int64_t k, struct qformer_output *ret)
{
    char full[PARAMS_NAME_MAX];
    int rc = params_linear(p, params_name(full, "%s.dense", name), n, k, true, &ret->dense);

    return rc < 0 ? rc : params_norm_load(p, params_name(full, "%s.LayerNorm", name), n, &ret->norm);
}

static int load_cross(const struct params *p, const struct config_qformer *s, int i, struct qformer_layer *l)
{
    const int64_t e = s->width;
    char name[PARAMS_NAME_MAX];
    int rc;

    params_name(name, "qformer.encoder.layer.%d.crossattention.attention.query", i);
    if ((rc = params_linear(p, name, e, e, true, &l->cross_query)) < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.crossattention.attention.", i);
    rc = params_stacked(p, name, 2, (const char *const[]){"key", "value"}, e, s->vision_width, true, &l->cross_kv);
    if (rc < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.crossattention.output", i);
    return load_output(p, name, e, e, &l->cross_out);
}

static int load_layer(const struct params *p, const struct config_qformer *s, int i, struct qformer_layer *l)
{
    const int64_t e = s->width, f = s->ffn_width;
    char name[PARAMS_NAME_MAX];
    int rc;

    params_name(name, "qformer.encoder.layer.%d.attention.attention.", i);
    rc = params_stacked(p, name, 3, (const char *const[]){"query", "key", "value"}, e, e, true, &l->self_qkv);
    if (rc < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.attention.output", i);
    if ((rc = load_output(p, name, e, e, &l->self_out)) < 0)
        return rc;
    if (i % s->cross_attention_freq == 0 && (rc = load_cross(p, s, i, l)) < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.intermediate_query.dense", i);
    if ((rc = params_linear(p, name, f, e, true, &l->intermediate)) < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.output_query", i);
    return load_output(p, name, e, f, &l->output);
}

/* queries = LayerNorm(query_tokens): they do not depend on the image. */
static int load_queries(struct qformer *q, const struct params *p)
{
    const int64_t e = q->shape.width;
    struct params_norm norm = {0};
    struct ops_table *table = NULL;
    struct tensor t;
    int rc;

    if ((rc = checkpoint_get(p->c, "query_tokens", 3, (const int64_t[]){1, q->n_queries, e}, &t, p->err)) < 0)
        return rc;
    t = (struct tensor){.dtype = t.dtype, .n_dims = 2, .shape = {q->n_queries, e}, .data = t.data};
    if ((rc = params_norm_load(p, "qformer.layernorm", e, &norm)) < 0)
        goto out;
    if ((rc = q->o->f->table_new(q->o, &t, &table, p->err)) < 0)
        goto out;
    rc = q->o->f->embed(q->o, table, q->n_queries, q->query_index, NULL, false, q->queries, e);
    if (rc == 0)
        rc = params_norm_apply(q->o, &norm, q->n_queries, e, q->shape.eps, q->queries, q->queries);
    if (rc == 0)
        rc = q->o->f->sync(q->o);
    if (rc < 0)
        err_set(p->err, rc, "qformer: the query tokens could not be normalised");
out:
    if (table)
        q->o->f->table_free(q->o, table);
    params_norm_free(q->o, &norm);
    return rc;
}

static int load_weights(struct qformer *q, const struct params *p)
{
    int rc = params_norm_load(p, "vision_model.post_layernorm", q->shape.vision_width, &q->post_norm);

    if (rc == 0)
        rc = load_queries(q, p);
    for (int i = 0; rc == 0 && i < q->shape.n_layers; i++)
        rc = load_layer(p, &q->shape, i, &q->layers[i]);
    if (rc == 0 && q->language_width > 0)
        rc = params_linear(p, "language_projection", q->language_width, q->shape.width, true, &q->projection);
    return rc;
}

/* Next view of the slab; with slab NULL only the size is counted. */
static void *take(const struct qformer *q, size_t *used, int64_t rows, int64_t width)
{
    void *at = q->slab ? (char *)q->slab + *used : NULL;

    *used += ((size_t)rows * (size_t)width * dtype_size_bytes(q->o->act_dtype) + 63) / 64 * 64;
    return at;
}

static size_t lay_out(struct qformer *q)
{
    const int64_t image_rows = (int64_t)q->max_batch * q->n_tokens, rows = (int64_t)q->max_batch * q->n_queries;
    const int64_t e = q->shape.width;
    int64_t wide = 3 * e > q->shape.ffn_width ? 3 * e : q->shape.ffn_width;
    size_t used = 0;

    if (wide < q->language_width)
        wide = q->language_width;
    q->queries = take(q, &used, q->n_queries, e);
    q->image = take(q, &used, image_rows, q->shape.vision_width);
    q->kv = take(q, &used, image_rows, 2 * e);
    q->x = take(q, &used, rows, e);
    q->h = take(q, &used, rows, e);
    q->wide = take(q, &used, rows, wide);
    return used;
}

static int alloc_activations(struct qformer *q, struct err *err)
{
    const size_t bytes = lay_out(q), n = (size_t)q->max_batch;

    q->query_index = calloc(n * (size_t)q->n_queries, sizeof(int32_t));
    q->query_start = calloc(4 * n, sizeof(int32_t));
    if (!q->query_index || !q->query_start || q->o->f->alloc(q->o, bytes, &q->slab) < 0)
        return err_set(err, -ENOMEM, "qformer: no memory for %zu bytes of activations (batch %d)", bytes, q->max_batch);
    lay_out(q);
    q->query_len = q->query_start + n;
    q->image_start = q->query_len + n;
    q->image_len = q->image_start + n;
    for (int b = 0; b < q->max_batch; b++) {
        q->query_start[b] = b * q->n_queries;
        q->query_len[b] = q->n_queries;
        q->image_start[b] = b * q->n_tokens;
        q->image_len[b] = q->n_tokens;
        for (int i = 0; i < q->n_queries; i++)
            q->query_index[b * q->n_queries + i] = i;
    }
    return 0;
}

int qformer_new(struct ops *o, const struct checkpoint *c, int max_batch, struct qformer **ret, struct err *err)
{
    struct qformer *q = calloc(1, sizeof(*q));
    int rc;

    assert(max_batch >= 1);
    if (!q)
        return err_set(err, -ENOMEM, "no memory for the Q-Former");
    q->o = o;
    q->shape = c->config.qformer;
    q->n_tokens = c->config.vision.n_tokens;
    q->image_eps = c->config.vision.eps;
    q->n_queries = c->config.n_queries;
    q->language_width = c->config.lm_width;
    q->max_batch = max_batch;
    q->layers = calloc((size_t)q->shape.n_layers, sizeof(*q->layers));
    rc = q->layers ? alloc_activations(q, err) : err_set(err, -ENOMEM, "no memory for the Q-Former");
    if (rc == 0)
        rc = load_weights(q, &(struct params){o, c, err});
    if (rc < 0) {
        qformer_free(q);
        return rc;
    }
    *ret = q;
    return 0;
}

static void output_free(struct ops *o, struct qformer_output *out)
{
    params_weight_free(o, &out->dense);
    params_norm_free(o, &out->norm);
}

void qformer_free(struct qformer *q)
{
    if (!q)
        return;
    for (int i = 0; q->layers && i < q->shape.n_layers; i++) {
        struct qformer_layer *l = &q->layers[i];

        params_weight_free(q->o, &l->self_qkv);
        output_free(q->o, &l->self_out);
        params_weight_free(q->o, &l->cross_query);
        params_weight_free(q->o, &l->cross_kv);
        output_free(q->o, &l->cross_out);
        params_weight_free(q->o, &l->intermediate);
        output_free(q->o, &l->output);
    }
    params_norm_free(q->o, &q->post_norm);
    params_weight_free(q->o, &q->projection);
    q->o->f->release(q->o, q->slab);
    free(q->layers);
    free(q->query_index);
    free(q->query_start);
    free(q);
}

int qformer_n_tokens(const struct qformer *q)
{
    return q->n_tokens;
}

int qformer_image_width(const struct qformer *q)
{
    return q->shape.vision_width;
}

int qformer_n_queries(const struct qformer *q)
{
    return q->n_queries;
}

int qformer_width(const struct qformer *q)
{
    return q->shape.width;
}

int qformer_language_width(const struct qformer *q)
{
    return q->language_width;
}

int qformer_max_batch(const struct qformer *q)
{
    return q->max_batch;
}

/* x = norm(dense(in [rows, k]) + x) */
static int apply_output(struct qformer *q, const struct qformer_output *out, int64_t rows, int64_t k, const void *in)
{
    const int64_t e = q->shape.width;
    int rc = params_apply(q->o, out->dense, rows, k, e, in, q->x, OPS_ACT_NONE, q->x);

    return rc < 0 ? rc : params_norm_apply(q->o, &out->norm, rows, e, q->shape.eps, q->x, q->x);
}

static int attend_self(struct qformer *q, const struct qformer_layer *l, int n)
{
    const int64_t e = q->shape.width, rows = (int64_t)n * q->n_queries;
    const size_t column = (size_t)e * dtype_size_bytes(q->o->act_dtype);
    struct ops_attention_args a = {
        .n_seqs = n,
        .n_heads = q->shape.n_heads,
        .head_dim = q->shape.head_dim,
        .scale = 1 / sqrtf((float)q->shape.head_dim),
        .q = q->wide,
        .k = (char *)q->wide + column,
        .v = (char *)q->wide + 2 * column,
        .ld_q = 3 * e,
        .ld_k = 3 * e,
        .ld_v = 3 * e,
        .q_start = q->query_start,
        .q_len = q->query_len,
        .kv_start = q->query_start,
        .kv_len = q->query_len,
        .out = q->h,
        .ld_out = e,
    };
    int rc = params_apply(q->o, l->self_qkv, rows, e, 3 * e, q->x, q->wide, OPS_ACT_NONE, NULL);

    if (rc < 0 || (rc = q->o->f->attention(q->o, &a)) < 0)
        return rc;
    return apply_output(q, &l->self_out, rows, e, q->h);
}

static int attend_image(struct qformer *q, const struct qformer_layer *l, int n)
{
    const int64_t e = q->shape.width, c = q->shape.vision_width, rows = (int64_t)n * q->n_queries;
    struct ops_attention_args a = {
        .n_seqs = n,
        .n_heads = q->shape.n_heads,
        .head_dim = q->shape.head_dim,
        .scale = 1 / sqrtf((float)q->shape.head_dim),
        .q = q->wide,
        .k = q->kv,
        .v = (char *)q->kv + (size_t)e * dtype_size_bytes(q->o->act_dtype),
        .ld_q = e,
        .ld_k = 2 * e,
        .ld_v = 2 * e,
        .q_start = q->query_start,
        .q_len = q->query_len,
        .kv_start = q->image_start,
        .kv_len = q->image_len,
        .out = q->h,
        .ld_out = e,
    };
    int rc = params_apply(q->o, l->cross_query, rows, e, e, q->x, q->wide, OPS_ACT_NONE, NULL);

    if (rc == 0)
        rc = params_apply(q->o, l->cross_kv, (int64_t)n * q->n_tokens, c, 2 * e, q->image, q->kv, OPS_ACT_NONE, NULL);
    if (rc < 0 || (rc = q->o->f->attention(q->o, &a)) < 0)
        return rc;
    return apply_output(q, &l->cross_out, rows, e, q->h);
}

/* q->image holds features after post_layernorm -> q->x [n*Q, E] */
static int run_layers(struct qformer *q, int n)
{
    const int64_t e = q->shape.width, f = q->shape.ffn_width, rows = (int64_t)n * q->n_queries;
    int rc = q->o->f->rows_copy(q->o, &(struct ops_rows_args){.n_rows = rows,
                                                              .width = e,
                                                              .src = q->queries,
                                                              .ld_src = e,
                                                              .src_index = q->query_index,
                                                              .dst = q->x,
                                                              .ld_dst = e});

    for (int i = 0; rc == 0 && i < q->shape.n_layers; i++) {
        const struct qformer_layer *l = &q->layers[i];

        rc = attend_self(q, l, n);
        if (rc == 0 && l->cross_kv)
            rc = attend_image(q, l, n);
        if (rc == 0)
            rc = params_apply(q->o, l->intermediate, rows, e, f, q->x, q->wide, OPS_ACT_GELU_ERF, NULL);
        if (rc == 0)
            rc = apply_output(q, &l->output, rows, f, q->wide);
    }
    return rc;
}

static int load_image(struct qformer *q, int n, const float *features, bool normed)
{
    const int64_t rows = (int64_t)n * q->n_tokens, c = q->shape.vision_width;
    int rc;

    assert(n >= 1 && n <= q->max_batch);
    rc = q->o->f->upload_f32(q->o, q->image, features, (size_t)(rows * c));
    if (rc < 0 || normed)
        return rc;
    return params_norm_apply(q->o, &q->post_norm, rows, c, q->image_eps, q->image, q->image);
}

static int forward(struct qformer *q, int n, const float *features, bool normed, float *ret_queries,
                   float *ret_projected)
{
    const int64_t rows = (int64_t)n * q->n_queries, e = q->shape.width, l = q->language_width;
    int rc = load_image(q, n, features, normed);

    if (rc == 0)
        rc = run_layers(q, n);
    if (rc == 0 && ret_queries)
        rc = q->o->f->download_f32(q->o, ret_queries, q->x, (size_t)(rows * e));
    if (rc < 0 || !ret_projected)
        return rc;
    assert(q->projection);
    rc = params_apply(q->o, q->projection, rows, e, l, q->x, q->wide, OPS_ACT_NONE, NULL);
    return rc < 0 ? rc : q->o->f->download_f32(q->o, ret_projected, q->wide, (size_t)(rows * l));
}

int qformer_forward(struct qformer *q, int n, const float *trunk, float *ret_queries, float *ret_projected)
{
    return forward(q, n, trunk, false, ret_queries, ret_projected);
}

int qformer_forward_normed(struct qformer *q, int n, const float *features, float *ret_queries, float *ret_projected)
{
    return forward(q, n, features, true, ret_queries, ret_projected);
}

int qformer_post_norm(struct qformer *q, int n, const float *trunk, float *ret)
{
    const int64_t values = (int64_t)n * q->n_tokens * q->shape.vision_width;
    int rc = load_image(q, n, trunk, false);

    return rc < 0 ? rc : q->o->f->download_f32(q->o, ret, q->image, (size_t)values);
}
