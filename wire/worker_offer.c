/* worker_offer.c - tells a broker which model this worker has, and sends the model's small files if it wants them. */
#include "wire/worker_private.h"

#include "wire/model_files.h"

#include <stdlib.h>

static void queue(struct worker_session *s, struct wire_message *message)
{
    struct returned *r = calloc(1, sizeof(*r));

    if (!r) {
        wire_message_free(message);
        return;
    }
    r->message = message;
    held_queue_unsent(s, r);
}

void worker_offer_send(struct worker_session *s)
{
    struct wire_message *m = NULL;
    struct buf row;
    int rc;

    if (s->offer.n_files == 0)
        return;
    buf_init(&row, MSG_MAX_ROW_FRAME_BYTES);
    rc = row_model_append(&row, &s->offer);
    if (rc == 0)
        rc = wire_message_new(MSG_MODEL_OFFER, &m);
    if (rc == 0)
        rc = wire_message_add_rows(m, &row, 1);
    buf_release(&row);
    if (rc == 0)
        queue(s, m);
    else
        wire_message_free(m);
}

/* Files that have changed since are not sent; the broker asks again when another worker connects. */
void worker_offer_send_files(struct worker_session *s, const struct fingerprint *id)
{
    struct model_contents files = {0};
    struct wire_message *m;

    if (!fingerprint_equal(id, &s->offer.id) || model_contents_read(s->folder, &s->offer, &files, NULL) < 0)
        return;
    if (model_files_message(&s->offer, &files, &m, NULL) == 0)
        queue(s, m);
    model_contents_release(&files);
}
