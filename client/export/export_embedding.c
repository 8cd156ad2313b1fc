#include "client/export/export_embedding.h"

#include "client/export/export_row.h"
#include "client/export/npy.h"
#include "client/export/sink.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { FLUSH_BYTES = 1 << 20 };

struct writer {
    const struct export_fields *fields;
    struct sink array, keys;
    enum msg_embedding kind;
    enum dtype dtype;
    uint32_t rows, cols; /* of the first item's block; all must be alike, but for the rows of itc_text */
    struct export_embedding_counts *counts;
};

int export_embedding_parse(const char *word, enum msg_embedding *ret)
{
    for (int k = MSG_EMBEDDING_QUERY; k <= MSG_EMBEDDING_CLS; k++)
        if (strcmp(word, msg_embedding_name((enum msg_embedding)k)) == 0) {
            *ret = (enum msg_embedding)k;
            return 0;
        }
    return -EINVAL;
}

static int append_head(struct writer *w, uint8_t head[NPY_HEAD_BYTES])
{
    uint64_t shape[NPY_MAX_DIMS] = {w->counts->n_rows};
    int n_dims = 1;

    if (w->kind != MSG_EMBEDDING_ITC_TEXT && w->rows > 1)
        shape[n_dims++] = w->rows;
    shape[n_dims++] = w->cols;
    return npy_head(w->dtype, n_dims, shape, head);
}

static int check_shape(struct writer *w, const struct row_embedding *e, uint64_t item, struct err *err)
{
    if (w->cols == 0) {
        w->dtype = e->dtype;
        w->rows = e->rows;
        w->cols = e->cols;
        return 0;
    }
    if (e->dtype == w->dtype && e->cols == w->cols && (e->rows == w->rows || w->kind == MSG_EMBEDDING_ITC_TEXT))
        return 0;
    return err_set(err, -EBADMSG, "item %" PRIu64 ": a block of %u x %u %s, the first one is %u x %u %s", item, e->rows,
                   e->cols, dtype_word(e->dtype), w->rows, w->cols, dtype_word(w->dtype));
}

/* A line of the list; `text` -1: the row is the item's. */
static int add_key(struct writer *w, const struct reader_row *row, int64_t text)
{
    const struct row_record empty = {.item = row->item};
    const uint32_t picked = (uint32_t)text;
    struct export_row e = {.key = row->listed.key,
                           .key_bytes = row->listed.key_bytes,
                           .record = &empty,
                           .listed = &row->listed,
                           .fields = w->fields};
    json_t *object;
    int rc = -ENOMEM;

    if (text >= 0 && picked < row->record.n_captions) {
        e.record = &row->record;
        e.picked = &picked;
        e.n_picked = 1;
    }
    object = export_row_json(&e);
    if (object && json_object_set_new(object, "row", json_integer((json_int_t)w->counts->n_rows)) == 0 &&
        (text < 0 || json_object_set_new(object, "text", json_integer((json_int_t)text)) == 0))
        rc = export_json_line(object, &w->keys.rows);
    json_decref(object);
    w->counts->n_rows++;
    return rc;
}

static int add_item(struct writer *w, struct reader *r, const struct reader_row *row, struct err *err)
{
    struct row_embedding e;
    int rc = 0;

    if (row->has_record && !row->record.failed)
        rc = reader_embedding(r, w->kind, row->item, &e, err);
    if (rc == 0)
        w->counts->n_without++;
    if (rc <= 0)
        return rc;
    rc = check_shape(w, &e, row->item, err);
    if (rc == 0)
        rc = buf_append(&w->array.rows, e.data, e.data_bytes);
    w->counts->n_items++;
    if (rc == 0 && w->kind != MSG_EMBEDDING_ITC_TEXT)
        rc = add_key(w, row, -1);
    for (uint32_t i = 0; rc == 0 && w->kind == MSG_EMBEDDING_ITC_TEXT && i < e.rows; i++)
        rc = add_key(w, row, (int64_t)i);
    if (rc == 0)
        rc = sink_flush(&w->array, FLUSH_BYTES, err);
    return rc < 0 ? rc : sink_flush(&w->keys, FLUSH_BYTES, err);
}

static int write_items(struct writer *w, struct reader *r, struct err *err)
{
    struct reader_row row;
    int rc;

    reader_seek(r, 0);
    while ((rc = reader_next(r, &row, err)) != 0) {
        if (rc == 1)
            rc = add_item(w, r, &row, err);
        if (rc == -EBADMSG) { /* of this item alone */
            w->counts->n_damaged++;
            continue;
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The array's path with another ending. */
static int keys_path(const char *path, char *ret, size_t size, struct err *err)
{
    size_t n = strlen(path);

    if (n > 4 && strcmp(path + n - 4, ".npy") == 0)
        n -= 4;
    if ((size_t)snprintf(ret, size, "%.*s.keys.jsonl", (int)n, path) >= size)
        return err_set(err, -ENAMETOOLONG, "%s: the path is too long", path);
    return 0;
}

static int write_array(struct writer *w, struct reader *r, struct err *err)
{
    uint8_t head[NPY_HEAD_BYTES] = {0};
    int rc = buf_append(&w->array.rows, head, sizeof(head));

    if (rc == 0)
        rc = write_items(w, r, err);
    if (rc == 0 && w->cols == 0)
        rc = err_set(err, -ENODATA, "no item has %s embeddings yet", msg_embedding_name(w->kind));
    if (rc == 0)
        rc = append_head(w, head);
    if (rc == 0)
        rc = sink_flush(&w->array, 0, err);
    if (rc == 0)
        rc = sink_rewrite_head(&w->array, head, sizeof(head), err);
    if (rc == 0)
        rc = sink_finish(&w->keys, err);
    return rc < 0 ? rc : sink_finish(&w->array, err);
}

int export_embedding(struct reader *r, enum msg_embedding kind, const struct export_fields *fields, const char *path,
                     struct export_embedding_counts *ret, struct err *err)
{
    struct writer w = {.array = {.fd = -1}, .keys = {.fd = -1}, .kind = kind, .fields = fields, .counts = ret};
    char keys[PATH_MAX];
    int rc = keys_path(path, keys, sizeof(keys), err);

    *ret = (struct export_embedding_counts){0};
    if (rc == 0)
        rc = sink_open(&w.keys, keys, false, err);
    if (rc == 0)
        rc = sink_open(&w.array, path, true, err);
    if (rc == 0)
        rc = write_array(&w, r, err);
    sink_release(&w.array);
    sink_release(&w.keys);
    return rc;
}
