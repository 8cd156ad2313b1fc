#include "worker/item_error.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tensor/tensor.h"

void item_error_set(struct item_error *p, const char *code, const char *fmt, ...)
{
    va_list ap;

    if (p->code)
        return;
    p->code = code;
    va_start(ap, fmt);
    (void)vsnprintf(p->text, sizeof(p->text), fmt, ap);
    va_end(ap);
}

void item_error_record(const struct item_error *p, uint64_t item, struct row_record *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->item = item;
    ret->failed = true;
    (void)msg_text_set(ret->error_code, sizeof(ret->error_code), p->code);
    ret->error_message = (const uint8_t *)p->text;
    ret->error_message_bytes = (uint32_t)strlen(p->text);
}

static bool is_finite(const struct row_embedding *e)
{
    const enum dtype dtype = e->dtype;
    const size_t size = dtype_size_bytes(dtype), n = e->data_bytes / size;
    float part[256];

    for (size_t i = 0; i < n; i += 256) {
        const size_t count = n - i < 256 ? n - i : 256;

        tensor_to_f32(part, dtype, e->data + i * size, count);
        for (size_t j = 0; j < count; j++)
            if (!isfinite(part[j]))
                return false;
    }
    return true;
}

/* Makes sure that only finite numbers reach the store. */
static void check_finite(const struct row_record *r, struct item_error *error)
{
    for (uint32_t i = 0; i < r->n_captions; i++) {
        const struct row_caption *c = &r->captions[i];

        if (!isfinite(c->logprob) || !isfinite(c->score) || !isfinite(c->itc) || !isfinite(c->itm))
            item_error_set(error, "not_finite", "a log-probability or score is not a finite number");
    }
    for (uint32_t i = 0; i < r->n_embeddings; i++)
        if (!is_finite(&r->embeddings[i]))
            item_error_set(error, "not_finite", "embedding %s contains a number that is not finite",
                           msg_embedding_name(r->embeddings[i].kind));
}

int item_record_append(struct buf *rows, const struct row_record *record, uint32_t *n_failed)
{
    struct item_error error = {0};
    struct row_record instead;
    int rc = -EINVAL;

    check_finite(record, &error);
    if (!error.code)
        rc = row_record_append(rows, record);
    if (rc == -EINVAL && !record->failed) {
        item_error_set(&error, "large_record",
                       "%u captions and %u embeddings: the limit is %d bytes per text and %d per record",
                       record->n_captions, record->n_embeddings, ROW_MAX_CAPTION_BYTES, ROW_MAX_BYTES);
        item_error_record(&error, record->item, &instead);
        ++*n_failed;
        return row_record_append(rows, &instead);
    }
    *n_failed += rc == 0 && record->failed;
    return rc;
}
