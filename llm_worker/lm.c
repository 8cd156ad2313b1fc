#include "llm_worker/lm_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "tensor/ops.h"

/* Far above any real size, low enough that sizes in bytes fit 64 bits. */
enum { MAX_SEQUENCES = 1 << 16, MAX_PASS_ROWS = 1 << 22, MAX_KV_ROWS = 1 << 30 };

static int check_limits(const struct lm_limits *l, struct err *err)
{
    if (l->n_sequences < 1 || l->n_sequences > MAX_SEQUENCES)
        return err_set(err, -EINVAL, "language model: %d sequences, expected 1 to %d", l->n_sequences, MAX_SEQUENCES);
    if (l->max_rows < l->n_sequences || l->max_rows > MAX_PASS_ROWS)
        return err_set(err, -EINVAL, "language model: %d rows per pass, expected %d (one per sequence) to %d",
                       l->max_rows, l->n_sequences, MAX_PASS_ROWS);
    if (l->n_kv_rows < 1 || l->n_kv_rows > MAX_KV_ROWS || l->least_kv_rows < 0 || l->least_kv_rows > l->n_kv_rows)
        return err_set(err, -EINVAL, "language model: a cache of %d rows, expected 1 to %d", l->n_kv_rows, MAX_KV_ROWS);
    return 0;
}

/* Returns the next view of a block; with block NULL it only adds up the size. */
static void *take(void *block, size_t *used, int64_t rows, int64_t width, size_t size)
{
    void *at = block ? (char *)block + *used : NULL;

    *used += ((size_t)rows * (size_t)width * size + 63) / 64 * 64;
    return at;
}

static size_t lay_out(struct lm *m)
{
    const int64_t rows = m->limits.max_rows, n = m->limits.n_sequences, l = m->shape.width, inner = lm_inner(m);
    const size_t size = dtype_size_bytes(m->o->act_dtype);
    size_t used = 0;

    m->x = take(m->slab, &used, rows, l, size);
    m->h = take(m->slab, &used, rows, l > inner ? l : inner, size);
    m->wide = take(m->slab, &used, rows, m->shape.wide, size);
    m->last = take(m->slab, &used, n, l, size);
    m->logits = take(m->slab, &used, n, m->shape.vocab_size, sizeof(float));
    return used;
}

static size_t lay_out_index(struct lm *m)
{
    int32_t **const of_rows[] = {&m->id, &m->id_row, &m->kv_row, &m->position};
    int32_t **const of_sequences[] = {&m->start_row,  &m->start_len, &m->start_kv, &m->prefix_start, &m->prefix_len,
                                      &m->tail_start, &m->tail_len,  &m->none,     &m->last_row};
    size_t used = 0;

    for (size_t i = 0; i < sizeof(of_rows) / sizeof(of_rows[0]); i++)
        *of_rows[i] = take(m->index, &used, m->limits.max_rows, 1, sizeof(int32_t));
    for (size_t i = 0; i < sizeof(of_sequences) / sizeof(of_sequences[0]); i++)
        *of_sequences[i] = take(m->index, &used, m->limits.n_sequences, 1, sizeof(int32_t));
    m->tail = take(m->index, &used, m->limits.n_sequences, m->shape.max_tail, sizeof(int32_t));
    return used;
}

static int alloc_slab(struct lm *m, struct err *err)
{
    const size_t slab_bytes = lay_out(m), index_bytes = lay_out_index(m);

    m->index = calloc(1, index_bytes);
    if (!m->index || m->o->f->alloc(m->o, slab_bytes, &m->slab) < 0)
        return err_set(err, -ENOMEM, "language model: no memory for %zu bytes of activations (%d rows per pass)",
                       slab_bytes, m->limits.max_rows);
    lay_out(m);
    lay_out_index(m);
    return 0;
}

/* Sets n_kv_rows to the requested rows or to what fits in memory. */
static int fit_cache(struct lm *m, size_t row_bytes, struct err *err)
{
    size_t free_bytes, total_bytes, fit;
    int rc;

    if (m->limits.least_kv_rows == 0 || !m->o->f->memory)
        return 0;
    rc = m->o->f->memory(m->o, &free_bytes, &total_bytes);
    if (rc < 0)
        return err_set(err, rc, "language model: cannot read the device's free memory");
    fit = free_bytes / 10 * 9 / row_bytes;
    if (fit < (size_t)m->limits.least_kv_rows)
        return err_set(
            err, -ENOMEM,
            "language model: a sequence takes up to %d rows of the cache, %zu bytes each. Of the device's %zu "
            "bytes %zu are left after weights and activations, room for %zu rows. Give it more memory "
            "(memory_share, another card), a smaller dtype, fewer positions, or a smaller batch",
            m->limits.least_kv_rows, row_bytes, total_bytes, free_bytes, fit);
    if (fit < (size_t)m->limits.n_kv_rows)
        m->limits.n_kv_rows = (int)fit;
    return 0;
}

static int alloc_cache(struct lm *m, struct err *err)
{
    const size_t layer_row_bytes = 2 * (size_t)lm_inner(m) * dtype_size_bytes(m->o->act_dtype);
    size_t kv_bytes;
    int rc = fit_cache(m, layer_row_bytes * (size_t)m->shape.n_kv_layers, err);

    if (rc < 0)
        return rc;
    if (__builtin_mul_overflow((size_t)m->limits.n_kv_rows, layer_row_bytes, &m->kv_layer_bytes) ||
        __builtin_mul_overflow(m->kv_layer_bytes, (size_t)m->shape.n_kv_layers, &kv_bytes))
        return err_set(err, -EOVERFLOW, "language model: a cache of %d rows is too large", m->limits.n_kv_rows);
    if (m->o->f->alloc(m->o, kv_bytes, &m->kv) < 0)
        return err_set(err, -ENOMEM, "language model: no memory for %zu bytes of cache (%d rows); fewer rows need less",
                       kv_bytes, m->limits.n_kv_rows);
    return 0;
}

static int load_head(struct lm *m, const struct params *p)
{
    static const char *const sources[] = {"language_model.lm_head.weight",
                                          "language_model.model.decoder.embed_tokens.weight",
                                          "language_model.shared.weight"};
    struct tensor t;
    int rc = checkpoint_get_head(p->c, &t, p->err);

    if (rc < 0)
        return rc;
    rc = p->o->f->weight_new(p->o, &(struct ops_weight_part){&t, NULL}, 1, 0, &m->head, p->err);
    if (rc < 0)
        return err_prefix(p->err, rc, "language_model.lm_head");
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        checkpoint_drop(p->c, sources[i]); /* release the pages read so far; look-ups map them again */
    return 0;
}

int lm_open(struct ops *o, const struct checkpoint *c, const struct lm_limits *limits, struct lm **ret, struct err *err)
{
    const struct params p = {o, c, err, c->config.lm == CONFIG_LM_OPT ? OPS_WEIGHT_FP8 : 0};
    struct lm *m;
    int rc = check_limits(limits, err);

    if (rc < 0)
        return rc;
    if (c->config.lm == CONFIG_LM_NONE)
        return err_set(err, -ENOTSUP, "%s: a retrieval checkpoint has no language model", c->dir);
    if (c->config.lm == CONFIG_LM_T5 && o->act_dtype == DTYPE_F16)
        return err_set(err, -ENOTSUP, "%s: FlanT5 overflows in fp16; use bf16 or fp32", c->dir);
    m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, -ENOMEM, "no memory for the language model");
    m->graph = c->config.lm == CONFIG_LM_OPT ? &lm_opt_graph : &lm_t5_graph;
    m->o = o;
    m->graph_number = params_graph_number();
    m->limits = *limits;
    m->start_id = c->config.lm == CONFIG_LM_OPT ? -1 : c->config.decoder_start;
    m->shape = m->graph->shape(&c->config);
    if (m->shape.max_tail > limits->n_kv_rows)
        m->shape.max_tail = limits->n_kv_rows;
    if (m->shape.max_prefix > limits->max_rows)
        m->shape.max_prefix = limits->max_rows;
    rc = alloc_slab(m, err);
    if (rc == 0)
        rc = m->graph->load(m, &p);
    if (rc == 0)
        rc = load_head(m, &p);
    if (rc == 0)
        rc = alloc_cache(m, err); /* last: it takes the remaining memory */
    if (rc < 0) {
        lm_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}

void lm_free(struct lm *m)
{
    if (!m)
        return;
    m->graph->release(m);
    params_table_free(m->o, &m->embedding);
    params_norm_free(m->o, &m->final_norm);
    params_weight_free(m->o, &m->head);
    m->o->f->release(m->o, m->slab);
    m->o->f->release(m->o, m->kv);
    free(m->index);
    free(m);
}

int lm_width(const struct lm *m)
{
    return m->shape.width;
}

int lm_vocab_size(const struct lm *m)
{
    return m->shape.vocab_size;
}

const struct lm_limits *lm_get_limits(const struct lm *m)
{
    return &m->limits;
}

size_t lm_kv_bytes(const struct lm *m)
{
    return m->kv_layer_bytes * (size_t)m->shape.n_kv_layers;
}

struct ops *lm_ops(const struct lm *m)
{
    return m->o;
}

bool lm_is_encoder_decoder(const struct lm *m)
{
    return m->shape.start_rows > 0;
}

int32_t lm_start_id(const struct lm *m)
{
    return m->start_id;
}

int lm_prefix_rows(const struct lm *m, int n_image_rows, int n_ids)
{
    (void)m;
    return n_image_rows + n_ids;
}

int lm_start_rows(const struct lm *m)
{
    return m->shape.start_rows;
}

int lm_pass_rows(const struct lm *m, int n_image_rows, int n_ids)
{
    return n_image_rows + n_ids + m->shape.start_rows;
}

int lm_check_lengths(const struct lm *m, int n_image_rows, int n_ids, int n_new, struct err *err)
{
    const int64_t n_prompt = (int64_t)n_image_rows + n_ids, n_pass = n_prompt + m->shape.start_rows;
    const int64_t n_cached = n_pass + n_new - 1; /* the last token is never fed back */
    int rc;

    if (n_image_rows < 0 || n_ids < 0 || n_prompt < 1 || n_new < 1)
        return err_set(err, -EINVAL,
                       "%d image rows, %d prompt tokens and %d new ones: expected a prompt and a new token",
                       n_image_rows, n_ids, n_new);
    rc = m->graph->check_positions(m, n_prompt, n_new, err);
    if (rc < 0)
        return rc;
    if (n_pass > m->limits.max_rows)
        return err_set(err, -E2BIG, "%d image rows and %d prompt tokens, but a pass has %d rows", n_image_rows, n_ids,
                       m->limits.max_rows);
    if (n_cached > m->limits.n_kv_rows)
        return err_set(err, -E2BIG,
                       "%d image rows, %d prompt tokens and %d new ones take %lld rows of the cache, which has %d",
                       n_image_rows, n_ids, n_new, (long long)n_cached, m->limits.n_kv_rows);
    return 0;
}

/* -- used by the graphs -- */

int64_t lm_inner(const struct lm *m)
{
    return (int64_t)m->shape.n_heads * m->shape.head_dim;
}

void *lm_kv_layer(const struct lm *m, int layer)
{
    return (char *)m->kv + (size_t)layer * m->kv_layer_bytes;
}

void *lm_at(const struct lm *m, const void *rows, int64_t row, int64_t width, int64_t column)
{
    return (char *)(uintptr_t)rows + (size_t)(row * width + column) * dtype_size_bytes(m->o->act_dtype);
}

static void lay_id(struct lm *m, struct lm_rows *rows, int32_t id)
{
    assert(id >= 0 && id < m->shape.vocab_size);
    m->id[rows->n_ids] = id;
    m->id_row[rows->n_ids++] = (int32_t)rows->n_rows;
}

void lm_lay_start(struct lm *m, struct lm_rows *rows, int s, const struct lm_start *start)
{
    const int n = start->n_image_rows + start->n_ids;

    assert(start->n_image_rows >= 0 && start->n_ids >= 0 && n >= 1 && n <= m->shape.max_prefix);
    assert(rows->n_rows + n <= m->limits.max_rows);
    assert(start->prefix_row >= 0 && start->prefix_row <= m->limits.n_kv_rows - n);
    m->start_row[s] = (int32_t)rows->n_rows;
    m->start_len[s] = n;
    m->start_kv[s] = start->prefix_row;
    for (int i = 0; i < n; i++, rows->n_rows++) {
        m->position[rows->n_rows] = i;
        m->kv_row[rows->n_rows] = start->prefix_row + i;
        if (i >= start->n_image_rows)
            lay_id(m, rows, start->ids[i - start->n_image_rows]);
    }
}

void lm_lay_token(struct lm *m, struct lm_rows *rows, const struct lm_token *t)
{
    const int r = rows->n_decode++, at = r ? m->tail_start[r - 1] + m->tail_len[r - 1] : 0;

    assert(rows->n_rows < m->limits.max_rows && r < m->limits.n_sequences);
    assert(t->n_tail >= 1 && t->n_tail <= m->shape.max_tail);
    assert(t->n_prefix >= 1 && t->prefix_row >= 0 && t->prefix_row <= m->limits.n_kv_rows - t->n_prefix);
    m->prefix_start[r] = t->prefix_row;
    m->prefix_len[r] = t->n_prefix;
    m->tail_start[r] = at;
    m->tail_len[r] = t->n_tail;
    for (int i = 0; i < t->n_tail; i++) {
        assert(t->tail[i] >= 0 && t->tail[i] < m->limits.n_kv_rows);
        m->tail[at + i] = t->tail[i];
    }
    m->position[rows->n_rows] = t->n_prefix + t->n_tail - 1;
    m->kv_row[rows->n_rows] = t->tail[t->n_tail - 1];
    lay_id(m, rows, t->id);
    rows->n_rows++;
}

/* Uploads the image rows of all starts to their rows of x in one transfer; the rows between them are overwritten
 * afterwards. */
static int upload_images(struct lm *m, int n_starts, const struct lm_start *starts)
{
    const size_t l = (size_t)m->shape.width, size = dtype_size_bytes(m->o->act_dtype);
    int first = 0, n_rows = 0, rc;
    void *host;

    while (first < n_starts && starts[first].n_image_rows == 0)
        first++;
    if (first == n_starts)
        return 0;
    for (int s = first; s < n_starts; s++)
        if (starts[s].n_image_rows > 0)
            n_rows = m->start_row[s] + starts[s].n_image_rows - m->start_row[first];
    rc = m->o->f->upload_begin(m->o, lm_at(m, m->x, m->start_row[first], (int64_t)l, 0), (size_t)n_rows * l, &host);
    if (rc < 0)
        return rc;
    for (int s = first; s < n_starts; s++) {
        if (starts[s].n_image_rows == 0)
            continue;
        tensor_convert((char *)host + (size_t)(m->start_row[s] - m->start_row[first]) * l * size, m->o->act_dtype,
                       starts[s].image_rows, starts[s].image_dtype, (size_t)starts[s].n_image_rows * l);
    }
    return m->o->f->upload_end(m->o);
}

int lm_embed(struct lm *m, const struct lm_rows *rows, int n_starts, const struct lm_start *starts)
{
    int rc = upload_images(m, n_starts, starts);

    if (rc < 0 || rows->n_ids == 0)
        return rc;
    return m->o->f->embed(m->o, m->embedding, rows->n_ids, m->id, m->id_row, false, m->x, m->shape.width);
}

int lm_store_kv(struct lm *m, int layer, int64_t n_rows, int64_t column, int64_t ld)
{
    return m->o->f->rows_copy(m->o, &(struct ops_rows_args){.n_rows = n_rows,
                                                            .width = 2 * lm_inner(m),
                                                            .src = lm_at(m, m->wide, 0, ld, column),
                                                            .ld_src = ld,
                                                            .dst = lm_kv_layer(m, layer),
                                                            .ld_dst = 2 * lm_inner(m),
                                                            .dst_index = m->kv_row});
}

int lm_run_head(struct lm *m, int n, float eps)
{
    const int64_t l = m->shape.width;
    int rc = m->o->f->rows_copy(
        m->o,
        &(struct ops_rows_args){
            .n_rows = n, .width = l, .src = m->x, .ld_src = l, .src_index = m->last_row, .dst = m->last, .ld_dst = l});

    if (rc == 0 && m->final_norm.gamma)
        rc = params_norm_apply(m->o, &m->final_norm, n, l, eps, m->last, m->last, NULL);
    if (rc < 0)
        return rc;
    return m->o->f->linear(m->o, &(struct ops_linear_args){.weight = m->head,
                                                           .n_rows = n,
                                                           .x = m->last,
                                                           .ld_x = l,
                                                           .y = m->logits,
                                                           .ld_y = m->shape.vocab_size,
                                                           .y_f32 = true});
}

static int64_t ceil_power_of_two(int64_t n)
{
    int64_t p = 1;

    while (p < n)
        p *= 2;
    return p;
}

int lm_forward_begin(struct lm *m, const struct lm_rows *rows, int n_starts)
{
    int64_t longest_prefix = 0, longest_tail = 0, all_tails = 0;

    if (n_starts > 0)
        return 0;
    for (int r = 0; r < rows->n_decode; r++) {
        longest_prefix = m->prefix_len[r] > longest_prefix ? m->prefix_len[r] : longest_prefix;
        longest_tail = m->tail_len[r] > longest_tail ? m->tail_len[r] : longest_tail;
        all_tails += m->tail_len[r];
    }
    return ops_graph_begin(
        m->o, params_graph_key(m->graph_number,
                               (const int64_t[]){rows->n_decode, longest_prefix, ceil_power_of_two(longest_tail),
                                                 ceil_power_of_two(all_tails)},
                               4));
}

int lm_forward_end(struct lm *m, int n_starts, int rc)
{
    return n_starts > 0 ? rc : params_graph_end(m->o, rc);
}

int lm_forward(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens, const struct lm_token *tokens,
               const float **ret_logits)
{
    int rc;

    assert(n_starts >= 0 && n_tokens >= 0 && n_starts + n_tokens >= 1);
    assert(n_starts + n_tokens <= m->limits.n_sequences);
    rc = m->graph->forward(m, n_starts, starts, n_tokens, tokens);
    if (rc < 0)
        return rc;
    *ret_logits = m->logits;
    return 0;
}
