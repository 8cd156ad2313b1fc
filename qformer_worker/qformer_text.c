/* qformer_text.c - texts in the Q-Former: alone (ITC) or with the queries of an image (ITM). */
#include "qformer_worker/qformer.h"

#include <assert.h>
#include <errno.h>

#include "qformer_worker/qformer_pass.h"

/* With fewer query rows than this, pairs are not merged into one sequence: a back end may sum few rows in another
 * order than many, and a score must not depend on its neighbours. */
enum { MERGE_QUERIES_MIN = 8 };

static int64_t rows_of(const struct qformer_texts *t, int first, int n)
{
    return (int64_t)t->start[first + n] - t->start[first];
}

/* The text rows of a pass, padded to a multiple of QFORMER_ROW_STEP; nothing reads the padding. */
static int64_t filled_up(int64_t query_rows, int64_t text_rows)
{
    const int64_t rows = query_rows + text_rows;

    return (rows + QFORMER_ROW_STEP - 1) / QFORMER_ROW_STEP * QFORMER_ROW_STEP - query_rows;
}

static int64_t text_len(const struct qformer_texts *t, int i)
{
    return (int64_t)t->start[i + 1] - t->start[i];
}

static int check_texts(const struct qformer *q, const struct qformer_texts *t)
{
    assert(q->words);
    for (int i = 0; i < t->n; i++)
        assert(text_len(t, i) >= 1 && text_len(t, i) <= q->shape.max_positions);
    for (int64_t k = t->n > 0 ? t->start[0] : 0; t->n > 0 && k < t->start[t->n]; k++)
        if (t->ids[k] < 0 || t->ids[k] >= q->shape.vocab_size)
            return -EINVAL;
    return 0;
}

/* How many texts from `first` on fit into max_rows, each with `extra` additional rows. */
static int chunk(const struct qformer *q, const struct qformer_texts *t, int first, int64_t extra)
{
    int64_t rows = 0;
    int n = 0;

    for (; first + n < t->n; n++) {
        rows += extra + text_len(t, first + n);
        if (rows > q->max_rows)
            break;
    }
    assert(n >= 1);
    return n;
}

/* Writes the normed word and position embeddings of texts first .. first + n - 1, and padding, to x from row `at`. */
static int embed(struct qformer *q, const struct qformer_texts *t, int first, int n, int64_t at)
{
    const int64_t e = q->shape.width, rows = rows_of(t, first, n), rest = filled_up(at, rows) - rows;
    void *x = qformer_at(q, q->x, at * e);
    const struct ops_rows_args filling = {.n_rows = rest,
                                          .width = e,
                                          .src = q->queries,
                                          .ld_src = e,
                                          .src_index = q->query_index,
                                          .dst = qformer_at(q, x, rows * e),
                                          .ld_dst = e};
    int32_t *position = q->position;
    int rc;

    for (int i = first; i < first + n; i++)
        for (int32_t k = 0; k < text_len(t, i); k++)
            *position++ = k;
    rc = q->o->f->embed(q->o, q->words, rows, t->ids + t->start[first], NULL, false, x, e);
    if (rc == 0)
        rc = q->o->f->embed(q->o, q->positions, rows, q->position, NULL, true, x, e);
    if (rc == 0)
        rc = params_norm_apply(q->o, &q->embedding_norm, rows, e, q->shape.eps, x, x, NULL);
    return rc < 0 || rest == 0 ? rc : q->o->f->rows_copy(q->o, &filling);
}

static int text_chunk(struct qformer *q, const struct qformer_texts *t, int first, int n, float *ret)
{
    const int64_t d = q->embed_width;
    struct qformer_pass p = {.n = n, .text_rows = filled_up(0, rows_of(t, first, n)), .self = &q->self};
    int rc;

    q->self.n = 0;
    for (int i = first; i < first + n; i++) {
        const int64_t at = (int64_t)t->start[i] - t->start[first];

        qformer_seqs_add(&q->self, at, text_len(t, i), at, text_len(t, i));
    }
    rc = embed(q, t, first, n, 0);
    if (rc == 0)
        rc = qformer_pass_run(q, &p);
    if (rc == 0)
        rc = qformer_head(q, q->text_projection, n, d, ret);
    if (rc == 0)
        qformer_normalise(ret, n, d);
    return rc;
}

int qformer_text(struct qformer *q, const struct qformer_texts *texts, float *ret)
{
    int rc = check_texts(q, texts);

    for (int at = 0, n; rc == 0 && at < texts->n; at += n) {
        n = chunk(q, texts, at, 0);
        rc = text_chunk(q, texts, at, n, ret + (int64_t)at * q->embed_width);
    }
    return rc;
}

/* Sets the rows of n pairs: all queries, then all texts; keys and values pair by pair, queries before text. */
static void lay_out_pairs(struct qformer *q, const struct qformer_texts *t, const int32_t *image, int first, int n)
{
    const int64_t n_queries = q->n_queries, base = t->start[first], query_rows = n * n_queries;
    const int64_t text_rows = rows_of(t, first, n);
    int32_t *query_kv = q->kv_row, *text_kv = q->kv_row + query_rows;
    struct qformer_seqs *s = &q->image_seqs;

    q->self.n = s->n = 0;
    for (int i = 0; i < n; i++) {
        const int64_t len = text_len(t, first + i), kv = i * n_queries + t->start[first + i] - base;

        qformer_seqs_add(&q->self, i * n_queries, n_queries, kv, n_queries + len);
        for (int64_t k = 0; k < n_queries; k++)
            *query_kv++ = (int32_t)(kv + k);
        for (int64_t k = 0; k < len; k++)
            *text_kv++ = (int32_t)(kv + n_queries + k);
        if (i > 0 && image[first + i] == image[first + i - 1] && n_queries >= MERGE_QUERIES_MIN)
            s->q_len[s->n - 1] += (int32_t)n_queries;
        else
            qformer_seqs_add(s, i * n_queries, n_queries, (int64_t)image[first + i] * q->n_tokens, q->n_tokens);
    }
    for (int64_t k = text_rows; k < filled_up(query_rows, text_rows); k++)
        *text_kv++ = (int32_t)(query_rows + k);
    for (int i = 0; i < n; i++)
        qformer_seqs_add(&q->self, query_rows + t->start[first + i] - base, text_len(t, first + i), q->self.kv_start[i],
                         q->self.kv_len[i]);
}

/* ret [2] = mean of n rows of 2 */
static void mean_logits(const float *rows, int64_t n, float *ret)
{
    double sum[2] = {0, 0};

    for (int64_t i = 0; i < n; i++) {
        sum[0] += rows[2 * i];
        sum[1] += rows[2 * i + 1];
    }
    ret[0] = (float)(sum[0] / (double)n);
    ret[1] = (float)(sum[1] / (double)n);
}

static int match_chunk(struct qformer *q, const struct qformer_texts *t, const int32_t *image, int first, int n,
                       float *ret)
{
    const int64_t query_rows = (int64_t)n * q->n_queries;
    struct qformer_pass p = {.n = n,
                             .query_rows = query_rows,
                             .text_rows = filled_up(query_rows, rows_of(t, first, n)),
                             .self = &q->self,
                             .image = &q->image_seqs};
    int rc;

    lay_out_pairs(q, t, image, first, n);
    rc = embed(q, t, first, n, query_rows);
    if (rc == 0)
        rc = qformer_start(q, q->queries, query_rows);
    if (rc == 0)
        rc = qformer_pass_run(q, &p);
    if (rc == 0)
        rc = qformer_head(q, q->itm_head, query_rows, 2, q->host);
    for (int i = 0; rc == 0 && i < n; i++)
        mean_logits(q->host + 2 * (int64_t)i * q->n_queries, q->n_queries, ret + 2 * (int64_t)i);
    return rc;
}

int qformer_match(struct qformer *q, const struct qformer_texts *texts, const int32_t *image, float *ret_logits)
{
    int rc = check_texts(q, texts);

    for (int i = 0; i < texts->n; i++)
        assert(image[i] >= (i > 0 ? image[i - 1] : 0) && image[i] < q->n_loaded);
    for (int at = 0, n; rc == 0 && at < texts->n; at += n) {
        n = chunk(q, texts, at, q->n_queries);
        rc = match_chunk(q, texts, image, at, n, ret_logits + 2 * (int64_t)at);
    }
    return rc;
}
