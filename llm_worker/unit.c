#include "llm_worker/unit.h"

#include "base/clock.h"
#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>

int llm_unit_new(struct worker_work **work, uint64_t serial, struct unit **ret)
{
    struct unit *u = calloc(1, sizeof(*u));

    if (!u)
        return -ENOMEM;
    buf_init(&u->texts, MSG_MAX_ROW_FRAME_BYTES);
    u->captions = calloc((*work)->n_items, sizeof(*u->captions));
    if (!u->captions) {
        free(u);
        return -ENOMEM;
    }
    u->work = *work;
    *work = NULL;
    u->serial = serial;
    u->started_ns = clock_mono_ns();
    *ret = u;
    return 0;
}

void llm_unit_free(struct unit *u)
{
    if (!u)
        return;
    free(u->image_rows);
    free(u->captions);
    buf_release(&u->texts);
    free(u);
}

int llm_unit_rows(const struct unit *u, struct buf *ret)
{
    struct row_record record = {.n_captions = 1};

    for (uint32_t i = 0; i < u->work->n_items; i++) {
        const struct unit_caption *c = &u->captions[i];
        int rc;

        record.item = u->work->items[i].item;
        record.captions[0] = (struct row_caption){.text = u->texts.data + c->start,
                                                  .text_bytes = (uint32_t)c->size_bytes,
                                                  .logprob = c->logprob,
                                                  .score = c->logprob,
                                                  .tokens = c->tokens};
        rc = row_record_append(ret, &record);
        if (rc < 0)
            return rc;
    }
    return 0;
}
