#include "qformer_worker/qformer_pass.h"

#include <assert.h>
#include <math.h>

void *qformer_at(const struct qformer *q, const void *base, int64_t n)
{
    return (char *)(uintptr_t)base + (size_t)n * dtype_size_bytes(q->o->act_dtype);
}

void qformer_seqs_add(struct qformer_seqs *s, int64_t q_start, int64_t q_len, int64_t kv_start, int64_t kv_len)
{
    s->q_start[s->n] = (int32_t)q_start;
    s->q_len[s->n] = (int32_t)q_len;
    s->kv_start[s->n] = (int32_t)kv_start;
    s->kv_len[s->n] = (int32_t)kv_len;
    s->n++;
}

/* Copies `width` elements of n rows, from rows `from` to rows `to` (NULL: in order). */
static int copy_rows(struct qformer *q, int64_t n, int64_t width, const void *src, int64_t ld_src, const int32_t *from,
                     void *dst, int64_t ld_dst, const int32_t *to)
{
    return q->o->f->rows_copy(q->o, &(struct ops_rows_args){.n_rows = n,
                                                            .width = width,
                                                            .src = src,
                                                            .ld_src = ld_src,
                                                            .src_index = from,
                                                            .dst = dst,
                                                            .ld_dst = ld_dst,
                                                            .dst_index = to});
}

int qformer_start(struct qformer *q, const void *queries, int64_t n_rows)
{
    const int64_t e = q->shape.width;

    return copy_rows(q, n_rows, e, queries, e, q->query_index, q->x, e, NULL);
}

/* rows `first` .. first + n of x = norm(dense(in [n, k]) + x) */
static int apply_output(struct qformer *q, const struct qformer_output *out, int64_t first, int64_t n, int64_t k,
                        const void *in)
{
    const int64_t e = q->shape.width;
    void *x = qformer_at(q, q->x, first * e);
    int rc = params_apply(q->o, out->dense, n, k, e, in, x, OPS_ACT_NONE, x);

    return rc < 0 ? rc : params_norm_apply(q->o, &out->norm, n, e, q->shape.eps, x, x, NULL);
}

/* Attention of the first n_seqs of s -> q->h. Queries are at the start of rows of ld_q elements in q->wide; keys and
 * values are side by side in rows of ld_kv elements in kv. */
static int attend(struct qformer *q, const struct qformer_seqs *s, int n_seqs, int64_t ld_q, const void *kv,
                  int64_t ld_kv)
{
    const int64_t e = q->shape.width;
    struct ops_attention_args a = {
        .n_seqs = n_seqs,
        .n_heads = q->shape.n_heads,
        .head_dim = q->shape.head_dim,
        .scale = 1 / sqrtf((float)q->shape.head_dim),
        .q = q->wide,
        .k = kv,
        .v = qformer_at(q, kv, e),
        .ld_q = ld_q,
        .ld_k = ld_kv,
        .ld_v = ld_kv,
        .q_start = s->q_start,
        .q_len = s->q_len,
        .kv_start = s->kv_start,
        .kv_len = s->kv_len,
        .out = q->h,
        .ld_out = e,
    };

    return q->o->f->attention(q->o, &a);
}

int qformer_pass_attend(struct qformer *q, const struct qformer_layer *l, const struct qformer_pass *p)
{
    const int64_t e = q->shape.width, rows = p->query_rows + p->text_rows;
    int rc = params_apply(q->o, l->self_qkv, rows, e, 3 * e, q->x, q->wide, OPS_ACT_NONE, NULL);

    if (rc == 0)
        rc = attend(q, p->self, p->self->n, 3 * e, qformer_at(q, q->wide, e), 3 * e);
    return rc < 0 ? rc : apply_output(q, &l->self_out, 0, rows, e, q->h);
}

/* The last layer of a pass of texts: computes only the first row of each, which become x [n, E]. */
static int attend_first_rows(struct qformer *q, const struct qformer_layer *l, const struct qformer_pass *p)
{
    const int64_t e = q->shape.width;
    struct qformer_seqs s = *p->self;
    int rc = params_apply(q->o, l->self_qkv, p->text_rows, e, 3 * e, q->x, q->wide, OPS_ACT_NONE, NULL);

    s.q_len = q->image_seqs.q_len; /* unused in a pass of texts */
    for (int i = 0; i < s.n; i++)
        s.q_len[i] = 1;
    if (rc == 0)
        rc = attend(q, &s, s.n, 3 * e, qformer_at(q, q->wide, e), 3 * e);
    if (rc == 0)
        rc = copy_rows(q, p->n, e, q->h, e, s.q_start, q->wide, e, NULL);
    if (rc == 0)
        rc = copy_rows(q, p->n, e, q->x, e, s.q_start, q->h, e, NULL);
    if (rc == 0)
        rc = copy_rows(q, p->n, e, q->h, e, NULL, q->x, e, NULL);
    return rc < 0 ? rc : apply_output(q, &l->self_out, 0, p->n, e, q->wide);
}

/* Self-attention over queries and texts together. first: the query rows' q, k, v are the same for every image. last:
 * text rows are keys only. */
static int attend_pairs(struct qformer *q, const struct qformer_layer *l, const struct qformer_pass *p, bool first,
                        bool last)
{
    const int64_t e = q->shape.width, rows = p->query_rows + p->text_rows;
    const int64_t from = first ? p->query_rows : 0;
    int rc = params_apply(q->o, l->self_qkv, rows - from, e, 3 * e, qformer_at(q, q->x, from * e),
                          qformer_at(q, q->wide, from * 3 * e), OPS_ACT_NONE, NULL);

    if (rc == 0 && first)
        rc = copy_rows(q, p->query_rows, 3 * e, q->queries_qkv, 3 * e, q->query_index, q->wide, 3 * e, NULL);
    if (rc == 0)
        rc = copy_rows(q, rows, 2 * e, qformer_at(q, q->wide, e), 3 * e, NULL, q->pair_kv, 2 * e, q->kv_row);
    if (rc == 0)
        rc = attend(q, p->self, last ? p->n : p->self->n, 3 * e, q->pair_kv, 2 * e);
    return rc < 0 ? rc : apply_output(q, &l->self_out, 0, last ? p->query_rows : rows, e, q->h);
}

/* Keys and values of the loaded images in the `nth` cross-attention layer. With text they are kept, since the query
 * pass and all texts of an image share them. */
static int image_kv(struct qformer *q, const struct qformer_layer *l, int nth, void **ret)
{
    const int64_t e = q->shape.width, c = q->shape.vision_width, rows = (int64_t)q->n_loaded * q->n_tokens;
    int rc = 0;

    *ret =
        q->shape.has_text ? qformer_at(q, q->image_kv, nth * (int64_t)q->max_batch * q->n_tokens * 2 * e) : q->image_kv;
    if (nth < q->n_kv_ready)
        return 0;
    rc = params_apply(q->o, l->cross_kv, rows, c, 2 * e, q->image, *ret, OPS_ACT_NONE, NULL);
    if (rc == 0 && q->shape.has_text)
        q->n_kv_ready = nth + 1;
    return rc;
}

static int attend_image(struct qformer *q, const struct qformer_layer *l, int nth, const struct qformer_pass *p)
{
    const int64_t e = q->shape.width;
    void *kv;
    int rc = image_kv(q, l, nth, &kv);

    if (rc == 0)
        rc = params_apply(q->o, l->cross_query, p->query_rows, e, e, q->x, q->wide, OPS_ACT_NONE, NULL);
    if (rc == 0)
        rc = attend(q, p->image, p->image->n, e, kv, 2 * e);
    return rc < 0 ? rc : apply_output(q, &l->cross_out, 0, p->query_rows, e, q->h);
}

static int feed_forward(struct qformer *q, const struct qformer_feed_forward *f, int64_t first, int64_t n)
{
    const int64_t e = q->shape.width, width = q->shape.ffn_width;
    int rc = params_apply(q->o, f->intermediate, n, e, width, qformer_at(q, q->x, first * e), q->wide, OPS_ACT_GELU_ERF,
                          NULL);

    return rc < 0 ? rc : apply_output(q, &f->output, first, n, width, q->wide);
}

static int self_attention(struct qformer *q, int i, const struct qformer_pass *p)
{
    const struct qformer_layer *l = &q->layers[i];
    const bool last = i == q->shape.n_layers - 1;

    if (p->query_rows > 0 && p->text_rows > 0)
        return attend_pairs(q, l, p, i == 0, last);
    if (p->query_rows > 0 && i == 0)
        return 0; /* q->attended already includes it */
    if (p->query_rows == 0 && last)
        return attend_first_rows(q, l, p);
    return qformer_pass_attend(q, l, p);
}

int qformer_pass_run(struct qformer *q, const struct qformer_pass *p)
{
    const int n_layers = q->shape.n_layers;
    int rc = 0, nth = 0;

    assert(p->query_rows + p->text_rows <= q->max_rows);
    for (int i = 0; rc == 0 && i < n_layers; i++) {
        const struct qformer_layer *l = &q->layers[i];

        rc = self_attention(q, i, p);
        if (rc == 0 && l->cross_kv && p->query_rows > 0)
            rc = attend_image(q, l, nth++, p);
        if (rc == 0 && p->query_rows > 0)
            rc = feed_forward(q, &l->query, 0, p->query_rows);
        if (rc == 0 && p->text_rows > 0 && i < n_layers - 1)
            rc = feed_forward(q, &l->text, p->query_rows, p->text_rows);
        else if (rc == 0 && p->query_rows == 0)
            rc = feed_forward(q, &l->text, 0, p->n);
    }
    return rc;
}

int qformer_head(struct qformer *q, const struct ops_weight *w, int64_t n_rows, int64_t n, float *ret)
{
    const int64_t e = q->shape.width;
    int rc = q->o->f->linear(
        q->o, &(struct ops_linear_args){
                  .weight = w, .n_rows = n_rows, .x = q->x, .ld_x = e, .y = q->heads, .ld_y = n, .y_f32 = true});

    return rc < 0 ? rc : q->o->f->download(q->o, ret, DTYPE_F32, q->heads, DTYPE_F32, (size_t)(n_rows * n));
}

void qformer_normalise(float *rows, int64_t n_rows, int64_t width)
{
    for (int64_t r = 0; r < n_rows; r++, rows += width) {
        double sum = 0;
        float length;

        for (int64_t i = 0; i < width; i++)
            sum += (double)rows[i] * (double)rows[i];
        length = (float)sqrt(sum);
        length = length < 1e-12F ? 1e-12F : length; /* NaN stays NaN */
        for (int64_t i = 0; i < width; i++)
            rows[i] /= length;
    }
}
