#include "qformer_worker/qformer_unit.h"

#include "proto/row.h"
#include "tensor/tensor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int check_tasks(const struct worker_work *work, const struct qformer_shape *shape, struct err *err)
{
    const uint32_t text = MSG_TASK_SCORE | MSG_TASK_ITC | MSG_TASK_ITC_TEXT;

    if (work->tasks == 0)
        return err_set(err, -EINVAL, "the recipe's node has no task for a Q-Former");
    if ((work->tasks & MSG_TASK_PROJECT) && shape->out_width == 0)
        return err_set(err, -EINVAL, "this checkpoint has no language model to project queries for");
    if ((work->tasks & text) && shape->embed_width == 0)
        return err_set(err, -EINVAL, "this checkpoint cannot score texts; use a retrieval checkpoint");
    return 0;
}

int qformer_unit_new(struct worker_work **work, const struct qformer_shape *shape, const struct tokenizer *t,
                     struct qformer_unit **ret, const char **ret_code, struct err *err)
{
    struct qformer_unit *u;
    int rc;

    *ret_code = "model";
    rc = check_tasks(*work, shape, err);
    if (rc < 0)
        return rc;
    *ret_code = "memory";
    u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, -ENOMEM, "no memory for the unit");
    if ((*work)->tasks & (MSG_TASK_SCORE | MSG_TASK_ITC_TEXT)) {
        rc = unit_texts_collect(&u->texts, *work, t, shape->max_text, shape->n_words, err);
        if (rc == 0 && u->texts.n) {
            u->text_embeds = calloc(u->texts.n, shape->embed_width * sizeof(float));
            rc = u->text_embeds ? 0 : err_set(err, -ENOMEM, "no memory for the unit's texts");
        }
    }
    if (rc < 0) {
        qformer_unit_free(u);
        return rc;
    }
    u->work = *work;
    *work = NULL;
    *ret = u;
    return 0;
}

void qformer_unit_free(struct qformer_unit *u)
{
    if (!u)
        return;
    unit_texts_release(&u->texts);
    free(u->text_embeds);
    free(u);
}

/* Appends one item's embedding in the recipe's type. */
static int add_embedding(struct row_record *record, const struct msg_embedding_spec *spec, uint32_t rows, uint32_t cols,
                         const float *from, struct buf *bytes)
{
    const enum dtype dtype = spec->dtype;
    const size_t n = (size_t)rows * cols, size = n * dtype_size_bytes(dtype);
    struct row_embedding *e = &record->embeddings[record->n_embeddings++];
    int rc = buf_reserve(bytes, size);

    if (rc < 0)
        return rc;
    tensor_from_f32(bytes->data + bytes->size_bytes, dtype, from, n);
    *e = (struct row_embedding){
        .kind = spec->kind, .dtype = spec->dtype, .rows = rows, .cols = cols, .data_bytes = (uint32_t)size};
    bytes->size_bytes += size;
    return 0;
}

/* Adds the embeddings that the node requests. Sets their addresses at the end, since the buffer may move. */
static int add_embeddings(const struct qformer_unit *u, const struct qformer_shape *shape,
                          const struct qformer_results *r, uint32_t row, size_t first_text, size_t n_texts,
                          struct row_record *record, struct buf *bytes)
{
    const struct msg_recipe *recipe = &u->work->recipe;
    const size_t image = u->first_image + row, q = shape->n_queries;
    size_t at = 0;
    int rc = 0;

    buf_clear(bytes);
    for (uint32_t i = 0; rc == 0 && i < recipe->n_embeddings; i++) {
        const struct msg_embedding_spec *s = &recipe->embeddings[i];

        if (s->kind == MSG_EMBEDDING_QUERY && (u->work->tasks & MSG_TASK_QUERY))
            rc = add_embedding(record, s, shape->n_queries, shape->width, r->queries + image * q * shape->width, bytes);
        else if (s->kind == MSG_EMBEDDING_ITC && (u->work->tasks & MSG_TASK_ITC))
            rc = add_embedding(record, s, s->first_row ? 1 : shape->n_queries, shape->embed_width,
                               r->itc + image * q * shape->embed_width, bytes);
        else if (s->kind == MSG_EMBEDDING_ITC_TEXT && (u->work->tasks & MSG_TASK_ITC_TEXT))
            rc = add_embedding(record, s, (uint32_t)n_texts, shape->embed_width,
                               n_texts ? u->text_embeds + first_text * shape->embed_width : NULL, bytes);
        else if (s->kind == MSG_EMBEDDING_CLS && (u->work->tasks & MSG_TASK_CLS))
            rc = add_embedding(record, s, 1, shape->image_width, r->cls + image * shape->image_width, bytes);
    }
    for (uint32_t i = 0; i < record->n_embeddings; i++) {
        record->embeddings[i].data = bytes->data + at;
        at += record->embeddings[i].data_bytes;
    }
    return rc;
}

int qformer_unit_rows(const struct qformer_unit *u, const struct qformer_shape *shape, const struct qformer_results *r,
                      struct buf *ret, uint32_t *ret_n_failed)
{
    struct row_record record;
    struct buf bytes;
    size_t text = 0;
    int rc = 0;

    buf_init(&bytes, 0);
    *ret_n_failed = 0;
    for (uint32_t row = 0; rc == 0 && row < u->work->n_items; row++) {
        const struct item_error *p = u->texts.errors ? &u->texts.errors[row] : NULL;
        const size_t first = text;

        while (text < u->texts.n && u->texts.texts[text].row == row)
            text++;
        if (p && p->code) {
            item_error_record(p, u->work->items[row].item, &record);
        } else {
            memset(&record, 0, sizeof(record));
            record.item = u->work->items[row].item;
            for (size_t i = first; i < text; i++)
                record.captions[record.n_captions++] = u->texts.texts[i].caption;
            rc = add_embeddings(u, shape, r, row, first, text - first, &record, &bytes);
        }
        if (rc == 0)
            rc = item_record_append(ret, &record, ret_n_failed);
    }
    buf_release(&bytes);
    return rc;
}
