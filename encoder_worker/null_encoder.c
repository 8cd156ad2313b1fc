#include "encoder_worker/null_encoder.h"

#include "base/buf.h"
#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int result_of(const struct worker *w, const struct worker_work *work, uint32_t n_tokens, uint32_t width,
                     struct worker_result *ret, struct err *err)
{
    const enum dtype dtype = worker_tensor_dtype(w);
    uint32_t shape[3] = {0, n_tokens, width};
    void *zeros = calloc(work->n_items, (size_t)n_tokens * width * dtype_size_bytes(dtype));
    int rc = zeros ? 0 : err_set(err, -ENOMEM, "no memory for zeros");

    for (uint32_t i = 0; rc == 0 && i < work->n_items; i++) {
        const struct row_item *item = &work->items[i];
        struct row_record record = {.item = item->item, .failed = item->error_code[0] != '\0'};

        memcpy(record.error_code, item->error_code, sizeof(record.error_code));
        record.error_message = item->error_message;
        record.error_message_bytes = item->error_message_bytes;
        shape[0] += !record.failed;
        rc = row_record_append(&ret->rows, &record);
    }
    ret->n_rows = work->n_items;
    if (rc == 0 && shape[0] == 0) {
        free(zeros);
        return 0;
    }
    if (rc == 0)
        rc = wire_tensor_new(dtype, shape, 3, zeros, free, zeros, &ret->tensors[0], err);
    if (rc != 0) {
        free(zeros);
        return rc;
    }
    ret->n_tensors = 1;
    return 0;
}

int null_run(struct worker *w, uint32_t n_tokens, uint32_t width)
{
    struct worker_result result = {0};
    struct worker_work *work;
    struct err err = {""};
    int rc = worker_session_take(w->session, 200, &work);

    if (rc != 1)
        return rc;
    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    if (result_of(w, work, n_tokens, width, &result, &err) < 0) {
        buf_release(&result.rows);
        worker_fail_unit(w, &work, "null", err.text);
        return 1;
    }
    worker_session_count(w->session, result.n_rows);
    worker_send_result(w, &work, &result);
    return 1;
}
