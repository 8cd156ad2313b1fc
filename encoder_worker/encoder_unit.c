#include "encoder_worker/encoder_unit.h"

#include "base/clock.h"
#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Put the frames of the tensor together, since a picture may lie in two of them. */
static int gather_pictures(struct unit *u, const struct worker_work *work, struct err *err)
{
    const struct wire_tensor *t = work->n_tensors ? work->tensors[0] : NULL;
    uint8_t *to;
    int rc;

    if (!t)
        return 0;
    if (work->n_tensors > 1 || !msg_tensor_is_pictures(wire_tensor_desc(t)))
        return err_set(err, -EBADMSG, "the unit has tensors that are no pictures");
    rc = wire_tensor_verify(t, DTYPE_U8, NULL, 0, err);
    if (rc < 0)
        return rc;
    u->n_pictures = wire_tensor_size_bytes(t);
    u->pictures = to = malloc(u->n_pictures);
    if (!to)
        return err_set(err, -ENOMEM, "no memory for %zu bytes of pictures", u->n_pictures);
    for (uint32_t i = 0; i < wire_tensor_n_frames(t); i++) {
        size_t n;
        const uint8_t *from = wire_tensor_frame(t, i, &n);

        memcpy(to, from, n);
        to += n;
    }
    return 0;
}

int encoder_unit_new(struct worker_work **work, uint64_t serial, struct unit **ret, struct err *err)
{
    struct unit *u = calloc(1, sizeof(*u));
    int rc;

    if (!u)
        return err_set(err, -ENOMEM, "no memory for the unit");
    u->slots = calloc((*work)->n_items, sizeof(*u->slots));
    u->failed = calloc((*work)->n_items, sizeof(*u->failed));
    u->failures = calloc((*work)->n_items, sizeof(*u->failures));
    if (!u->slots || !u->failed || !u->failures) {
        encoder_unit_free(u);
        return err_set(err, -ENOMEM, "no memory for the unit");
    }
    rc = gather_pictures(u, *work, err);
    if (rc < 0) {
        encoder_unit_free(u);
        return rc;
    }
    u->work = *work;
    u->n_items = (*work)->n_items;
    *work = NULL;
    u->serial = serial;
    u->started_ns = clock_mono_ns();
    *ret = u;
    return 0;
}

void encoder_unit_free(struct unit *u)
{
    if (!u)
        return;
    for (uint32_t i = 0; i < u->n_items; i++)
        decoder_slot_free(u->slots[i]);
    free(u->slots);
    free(u->failed);
    free(u->failures);
    free(u->pictures);
    free(u->features);
    free(u);
}

/* A picture that came with the unit has no path. */
static int submit_item(struct unit *u, uint32_t i, struct pool *pool, struct err *err)
{
    const struct row_item *item = &u->work->items[i];
    const uint64_t at = item->pushed_at - u->work->items[0].pushed_at;
    int rc;

    if (item->path_bytes)
        rc = pool_submit(pool, u->serial << 16 | i, (const char *)item->path, item->path_bytes);
    else if (item->pushed_bytes && (at > u->n_pictures || item->pushed_bytes > u->n_pictures - at))
        return err_set(err, -EINVAL, "its bytes did not come with the unit");
    else
        rc = pool_submit_bytes(pool, u->serial << 16 | i, item->pushed_bytes ? u->pictures + at : NULL,
                               item->pushed_bytes);
    return rc < 0 && rc != -EAGAIN ? err_set(err, rc, "cannot be requested: %s", strerror(-rc)) : rc;
}

bool encoder_unit_submit(struct unit *u, struct pool *pool)
{
    for (; u->n_submitted < u->work->n_items; u->n_submitted++) {
        const uint32_t i = u->n_submitted;
        const struct row_item *item = &u->work->items[i];
        struct pool_result bad = {.code = IMAGE_UNREADABLE};
        int rc = 0;

        if (item->error_code[0]) { /* the list has reported an error */
            bad.code = image_error_of(item->error_code);
            rc = err_set(&bad.message, -EILSEQ, "%.*s", (int)item->error_message_bytes,
                         item->error_message_bytes ? (const char *)item->error_message : "");
        } else {
            rc = submit_item(u, i, pool, &bad.message);
            if (rc == -EAGAIN)
                return false;
        }
        if (rc < 0)
            encoder_unit_note(u, i, &bad);
    }
    return true;
}

void encoder_unit_note(struct unit *u, uint32_t row, const struct pool_result *r)
{
    u->n_decoded++;
    u->decode_ns += r->decode_ns + r->fetch_ns;
    u->resize_ns += r->resize_ns;
    u->slots[row] = r->slot;
    if (r->code == IMAGE_OK) {
        u->n_ok++;
        return;
    }
    if (r->code == IMAGE_NO_MEMORY)
        u->no_memory = true;
    u->failed[row] = true;
    u->failures[u->n_failures++] = (struct unit_failure){.row = row, .code = r->code, .message = r->message};
}

int encoder_unit_rows(const struct unit *u, struct buf *ret)
{
    for (uint32_t i = 0; i < u->work->n_items; i++) {
        struct row_record record = {.item = u->work->items[i].item};
        int rc;

        for (uint32_t k = 0; u->failed[i] && k < u->n_failures; k++) {
            const struct unit_failure *f = &u->failures[k];

            if (f->row != i)
                continue;
            record.failed = true;
            (void)msg_text_set(record.error_code, sizeof(record.error_code), image_error_name(f->code));
            record.error_message = (const uint8_t *)f->message.text;
            record.error_message_bytes = (uint32_t)strlen(f->message.text);
        }
        rc = row_record_append(ret, &record);
        if (rc < 0)
            return rc;
    }
    return 0;
}
