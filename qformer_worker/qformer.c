#include "qformer_worker/qformer.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "qformer_worker/qformer_pass.h"

/* Rows of texts per pass: enough for fast products, few enough to stay in the cache. */
enum { TEXT_ROWS = 1024 };

/* -- loading -- */

/* Computes the query tokens up to the first layer's self-attention, which does not depend on the image. Also
 * initialises all rows of q->h, since products read rows that attention has not written. */
static int compute_queries(struct qformer *q, struct ops_table *tokens)
{
    const struct ops_funcs *f = q->o->f;
    const int64_t e = q->shape.width, n = q->n_queries;
    struct ops_rows_args keep = {.n_rows = n, .width = e, .src = q->x, .ld_src = e, .dst = q->queries, .ld_dst = e};
    struct ops_rows_args keep_attended = keep;
    const struct ops_rows_args fill_h = {.n_rows = q->max_rows,
                                         .width = e,
                                         .src = q->x,
                                         .ld_src = e,
                                         .src_index = q->query_index,
                                         .dst = q->h,
                                         .ld_dst = e};
    struct ops_rows_args keep_qkv = {
        .n_rows = n, .width = 3 * e, .src = q->wide, .ld_src = 3 * e, .dst = q->queries_qkv, .ld_dst = 3 * e};
    int rc = f->embed(q->o, tokens, n, q->query_index, NULL, false, q->x, e);

    keep_attended.dst = q->attended;
    if (rc == 0)
        rc = params_norm_apply(q->o, &q->embedding_norm, n, e, q->shape.eps, q->x, q->x, NULL);
    if (rc == 0)
        rc = f->rows_copy(q->o, &keep);
    q->self.n = 0;
    qformer_seqs_add(&q->self, 0, n, 0, n);
    if (rc == 0)
        rc = qformer_pass_attend(q, &q->layers[0], &(struct qformer_pass){.n = 1, .query_rows = n, .self = &q->self});
    if (rc == 0)
        rc = f->rows_copy(q->o, &fill_h);
    if (rc == 0)
        rc = f->rows_copy(q->o, &keep_attended);
    if (rc == 0)
        rc = f->rows_copy(q->o, &keep_qkv);
    return rc < 0 ? rc : f->sync(q->o);
}

static int load_queries(struct qformer *q, const struct params *p)
{
    const int64_t e = q->shape.width;
    struct ops_table *table = NULL;
    struct tensor t;
    int rc;

    if ((rc = checkpoint_get(p->c, "query_tokens", 3, (const int64_t[]){1, q->n_queries, e}, &t, p->err)) < 0)
        return rc;
    t = (struct tensor){.dtype = t.dtype, .n_dims = 2, .shape = {q->n_queries, e}, .data = t.data};
    if ((rc = q->o->f->table_new(q->o, &t, &table, p->err)) < 0)
        return rc;
    if ((rc = compute_queries(q, table)) < 0)
        err_set(p->err, rc, "qformer: cannot compute the query tokens");
    q->o->f->table_free(q->o, table);
    return rc;
}

static int load_text(struct qformer *q, const struct params *p)
{
    const int64_t e = q->shape.width, d = q->embed_width;
    int rc = params_table(p, "embeddings.word_embeddings", q->shape.vocab_size, e, &q->words);

    if (rc == 0)
        rc = params_table(p, "embeddings.position_embeddings", q->shape.max_positions, e, &q->positions);
    if (rc == 0)
        rc = params_linear(p, "vision_projection", d, e, true, &q->vision_projection);
    if (rc == 0)
        rc = params_linear(p, "text_projection", d, e, true, &q->text_projection);
    return rc < 0 ? rc : params_linear(p, "itm_head", 2, e, true, &q->itm_head);
}

static int load_weights(struct qformer *q, const struct params *p)
{
    int rc = params_norm_load(p, "vision_model.post_layernorm", q->shape.vision_width, &q->post_norm);

    if (rc == 0)
        rc = params_norm_load(p, "qformer.layernorm", q->shape.width, &q->embedding_norm);
    for (int i = 0; rc == 0 && i < q->shape.n_layers; i++)
        rc = qformer_layer_load(p, &q->shape, i, &q->layers[i]);
    if (rc == 0)
        rc = load_queries(q, p);
    if (rc == 0 && q->language_width > 0)
        rc = params_linear(p, "language_projection", q->language_width, q->shape.width, true, &q->projection);
    if (rc == 0 && q->shape.has_text)
        rc = load_text(q, p);
    return rc;
}

/* Returns the next view of the slab; with slab NULL it only adds up the size. */
static void *take(const struct qformer *q, size_t *used, int64_t rows, int64_t width, size_t element_bytes)
{
    void *at = q->slab ? (char *)q->slab + *used : NULL;

    *used += ((size_t)rows * (size_t)width * element_bytes + 63) / 64 * 64;
    return at;
}

static int64_t max_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static size_t lay_out(struct qformer *q)
{
    const int64_t image_rows = (int64_t)q->max_batch * q->n_tokens, e = q->shape.width, c = q->shape.vision_width;
    const int64_t wide = max_of(max_of(3 * e, q->shape.ffn_width), q->language_width);
    const size_t element = dtype_size_bytes(q->o->act_dtype);
    size_t used = 0;

    q->queries = take(q, &used, q->n_queries, e, element);
    q->queries_qkv = take(q, &used, q->n_queries, 3 * e, element);
    q->attended = take(q, &used, q->n_queries, e, element);
    q->image = take(q, &used, image_rows, c, element);
    q->image_kv = take(q, &used, (q->shape.has_text ? q->n_cross : 1) * image_rows, 2 * e, element);
    q->x = take(q, &used, q->max_rows, e, element);
    q->h = take(q, &used, q->max_rows, e, element);
    q->wide = take(q, &used, 1, max_of(q->max_rows * wide, q->max_batch * c), element);
    if (q->shape.has_text) {
        q->pair_kv = take(q, &used, q->max_rows, 2 * e, element);
        q->heads = take(q, &used, q->max_rows, max_of(q->embed_width, 2), sizeof(float));
    }
    return used;
}

static void share_index(struct qformer *q)
{
    int32_t **const arrays[] = {
        &q->query_index,         &q->kv_row,           &q->position,         &q->self.q_start,
        &q->self.q_len,          &q->self.kv_start,    &q->self.kv_len,      &q->image_seqs.q_start,
        &q->image_seqs.kv_start, &q->image_seqs.q_len, &q->image_seqs.kv_len};

    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        *arrays[i] = q->index + (int64_t)i * q->max_rows;
    for (int64_t i = 0; i < q->max_rows; i++)
        q->query_index[i] = (int32_t)(i % q->n_queries);
}

static int alloc_activations(struct qformer *q, struct err *err)
{
    size_t bytes;

    q->max_rows = (int64_t)q->max_batch * q->n_queries;
    if (q->shape.has_text)
        q->max_rows = max_of(max_of(q->max_rows, TEXT_ROWS), q->n_queries + q->shape.max_positions);
    q->max_rows = (q->max_rows + QFORMER_ROW_STEP - 1) / QFORMER_ROW_STEP * QFORMER_ROW_STEP;
    bytes = lay_out(q);
    q->index = calloc(11 * (size_t)q->max_rows, sizeof(int32_t));
    q->host = calloc(2 * (size_t)q->max_rows, sizeof(float));
    if (!q->index || !q->host || q->o->f->alloc(q->o, bytes, &q->slab) < 0)
        return err_set(err, -ENOMEM, "qformer: no memory for %zu bytes of activations (batch %d)", bytes, q->max_batch);
    lay_out(q);
    share_index(q);
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
    q->graph_number = params_graph_number();
    q->shape = c->config.qformer;
    q->n_tokens = c->config.vision.n_tokens;
    q->image_eps = c->config.vision.eps;
    q->n_queries = c->config.n_queries;
    q->language_width = c->config.lm_width;
    q->embed_width = q->shape.has_text ? c->config.embed_width : 0;
    q->n_cross = (q->shape.n_layers + q->shape.cross_attention_freq - 1) / q->shape.cross_attention_freq;
    q->max_batch = max_batch;
    q->layers = calloc((size_t)q->shape.n_layers, sizeof(*q->layers));
    rc = q->layers ? alloc_activations(q, err) : err_set(err, -ENOMEM, "no memory for the Q-Former");
    if (rc == 0)
        rc = load_weights(q, &(struct params){o, c, err, 0});
    if (rc < 0) {
        qformer_free(q);
        return rc;
    }
    *ret = q;
    return 0;
}

void qformer_free(struct qformer *q)
{
    if (!q)
        return;
    for (int i = 0; q->layers && i < q->shape.n_layers; i++)
        qformer_layer_free(q->o, &q->layers[i]);
    params_norm_free(q->o, &q->post_norm);
    params_norm_free(q->o, &q->embedding_norm);
    params_weight_free(q->o, &q->projection);
    params_weight_free(q->o, &q->vision_projection);
    params_weight_free(q->o, &q->text_projection);
    params_weight_free(q->o, &q->itm_head);
    params_table_free(q->o, &q->words);
    params_table_free(q->o, &q->positions);
    q->o->f->release(q->o, q->slab);
    free(q->layers);
    free(q->index);
    free(q->host);
    free(q);
}

/* -- properties -- */

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

int qformer_embed_width(const struct qformer *q)
{
    return q->embed_width;
}

int qformer_max_text(const struct qformer *q)
{
    return q->shape.has_text ? q->shape.max_positions : 0;
}

int qformer_n_words(const struct qformer *q)
{
    return q->shape.has_text ? q->shape.vocab_size : 0;
}

/* -- images -- */

int qformer_input(struct qformer *q, int n, void **ret)
{
    int rc;

    assert(n >= 1 && n <= q->max_batch && q->n_input == 0);
    q->n_loaded = q->n_kv_ready = 0;
    rc = q->o->f->upload_begin(q->o, q->image, (size_t)n * (size_t)q->n_tokens * (size_t)q->shape.vision_width, ret);
    q->n_input = rc < 0 ? 0 : n;
    return rc;
}

int qformer_load(struct qformer *q, int n, const float *trunk, bool normed)
{
    const int64_t rows = (int64_t)n * q->n_tokens, c = q->shape.vision_width;
    int rc = 0;

    if (trunk) {
        void *host;

        rc = qformer_input(q, n, &host);
        if (rc == 0)
            tensor_from_f32(host, q->o->act_dtype, trunk, (size_t)(rows * c));
    }
    if (rc == 0) {
        assert(q->n_input == n);
        q->n_input = 0;
        rc = q->o->f->upload_end(q->o);
    }
    if (rc == 0 && !normed)
        rc = params_norm_apply(q->o, &q->post_norm, rows, c, q->image_eps, q->image, q->image, NULL);
    if (rc == 0)
        q->n_loaded = n;
    return rc;
}

/* Sets the rows of the queries and trunks of the loaded images. */
static void lay_out_images(struct qformer *q)
{
    q->self.n = q->image_seqs.n = 0;
    for (int64_t b = 0; b < q->n_loaded; b++) {
        qformer_seqs_add(&q->self, b * q->n_queries, q->n_queries, b * q->n_queries, q->n_queries);
        qformer_seqs_add(&q->image_seqs, b * q->n_queries, q->n_queries, b * q->n_tokens, q->n_tokens);
    }
}

/* One pass; its calls depend only on n. */
static int run_queries(struct qformer *q, bool project)
{
    const int64_t n = q->n_loaded, rows = n * q->n_queries;
    const struct qformer_pass p = {.n = (int)n, .query_rows = rows, .self = &q->self, .image = &q->image_seqs};
    const int64_t depends_on[] = {n, q->n_kv_ready, project};
    int rc;

    rc = ops_graph_begin(q->o, params_graph_key(q->graph_number, depends_on, 3));
    if (rc < 0)
        return rc;
    rc = qformer_start(q, q->attended, rows);
    if (rc == 0)
        rc = qformer_pass_run(q, &p);
    if (rc == 0 && project)
        rc = params_apply(q->o, q->projection, rows, q->shape.width, q->language_width, q->x, q->wide, OPS_ACT_NONE,
                          NULL);
    return params_graph_end(q->o, rc);
}

/* The loaded images -> q->x [n*Q, E], and projected -> q->wide [n*Q, L]. */
int qformer_look(struct qformer *q, bool project)
{
    const int n_kv_ready = q->n_kv_ready;
    int rc;

    lay_out_images(q);
    rc = run_queries(q, project);
    if (rc != -EAGAIN)
        return rc;
    q->n_kv_ready = n_kv_ready; /* the graph could not be captured and nothing has run */
    return run_queries(q, project);
}

/* Downloads the class token of each loaded image: its first row. */
static int take_cls(struct qformer *q, float *ret)
{
    const int64_t c = q->shape.vision_width, n = q->n_loaded;
    int rc = q->o->f->rows_copy(
        q->o, &(struct ops_rows_args){
                  .n_rows = n, .width = c, .src = q->image, .ld_src = c * q->n_tokens, .dst = q->wide, .ld_dst = c});

    return rc < 0 ? rc : q->o->f->download(q->o, ret, DTYPE_F32, q->wide, q->o->act_dtype, (size_t)(n * c));
}

/* Downloads the projected queries from q->wide. */
static int take_projected(struct qformer *q, struct qformer_out *out)
{
    const size_t n = (size_t)q->n_loaded * (size_t)q->n_queries * (size_t)q->language_width;
    uint64_t ticket;
    int rc = q->o->f->download_start(q->o, out->projected, q->wide, q->o->act_dtype, n, &ticket);

    if (rc == 0 && out->projected_ticket)
        *out->projected_ticket = ticket;
    else if (rc == 0)
        rc = q->o->f->download_wait(q->o, ticket);
    return rc;
}

int qformer_forward(struct qformer *q, int n, const float *trunk, bool normed, struct qformer_out *out)
{
    const int64_t rows = (int64_t)n * q->n_queries, e = q->shape.width, d = q->embed_width;
    int rc = qformer_load(q, n, trunk, normed);

    assert((!out->projected || q->projection) && (!out->itc || q->vision_projection));
    if (rc == 0 && out->cls)
        rc = take_cls(q, out->cls);
    if (rc == 0 && (out->queries || out->projected || out->itc))
        rc = qformer_look(q, out->projected);
    if (rc == 0 && out->queries)
        rc = q->o->f->download(q->o, out->queries, DTYPE_F32, q->x, q->o->act_dtype, (size_t)(rows * e));
    if (rc == 0 && out->itc)
        rc = qformer_head(q, q->vision_projection, rows, d, out->itc);
    if (rc == 0 && out->itc)
        qformer_normalise(out->itc, rows, d);
    if (rc == 0 && out->projected) /* last: after an error no download is pending */
        rc = take_projected(q, out);
    return rc;
}

/* -- scores -- */

float qformer_similarity(const float *itc, const float *text, int n_queries, int width)
{
    double best = -INFINITY;

    for (int i = 0; i < n_queries; i++, itc += width) {
        double sum = 0;

        for (int k = 0; k < width; k++)
            sum += (double)itc[k] * (double)text[k];
        if (sum > best || isnan(sum)) /* NaN compares false, so keep it */
            best = sum;
    }
    return (float)best;
}

float qformer_probability(const float logits[2])
{
    const double difference = (double)logits[0] - (double)logits[1];

    return isfinite(difference) ? (float)(1 / (1 + exp(difference))) : NAN;
}
