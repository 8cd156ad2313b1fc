/* work.c - the WORK message of a lease: rows of its items, with the captions that the node waits for, and tensors. */
#include "broker/shell.h"

#include "proto/row.h"
#include "store/store.h"

#include <errno.h>

/* -- captions of nodes without a tensor ---------------------------------------------------------------------------- */

/* The rows that one of these nodes left, in order of items. */
struct caption_source {
    struct row_cursor cursor;
    struct row_record record;
    int more; /* 1: record is one; 0: the end */
};

struct caption_sources {
    uint32_t n;
    struct caption_source at[CORE_MAX_NODES]; /* in node order */
};

static int source_open(struct broker *b, const struct core_input *input, struct caption_sources *ret, struct err *err)
{
    const struct broker_payload *p = broker_payload_find(b, input->payload);
    struct caption_source *s = &ret->at[ret->n];

    if (!p)
        return err_set(err, -EINVAL, "the rows of node %u are gone", input->node);
    wire_message_rows(p->message, &s->cursor);
    ret->n++;
    s->more = row_cursor_next_record(&s->cursor, &s->record, err);
    return s->more < 0 ? s->more : 0;
}

static void sources_release(struct caption_sources *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        row_cursor_release(&s->at[i].cursor);
}

/* A later node's captions take the place of an earlier one's, as they do at the commit. */
static int set_captions(struct caption_sources *sources, struct row_item *item, struct err *err)
{
    item->n_captions = 0;
    for (uint32_t i = 0; i < sources->n; i++) {
        struct caption_source *s = &sources->at[i];

        while (s->more == 1 && s->record.item < item->item)
            s->more = row_cursor_next_record(&s->cursor, &s->record, err);
        if (s->more < 0)
            return s->more;
        if (s->more == 1 && s->record.item == item->item && s->record.n_captions) {
            item->n_captions = s->record.n_captions;
            item->captions = s->record.captions;
        }
    }
    return 0;
}

/* -- rows ---------------------------------------------------------------------------------------------------------- */

/* `rows` without the items that an earlier node has failed, and with captions. */
static int rewrite_rows(struct buf *rows, const struct core_work *work, struct caption_sources *sources,
                        struct err *err)
{
    const struct row_frame frame = {rows->data, rows->size_bytes};
    struct row_cursor cursor;
    struct row_item item;
    struct buf kept;
    int rc;

    buf_init(&kept, ROW_MAX_ROWS_BYTES);
    row_cursor_init(&cursor, &frame, 1, work->count);
    for (uint32_t i = 0; (rc = row_cursor_next_item(&cursor, &item, err)) == 1; i++) {
        if (!broker_bit(work->items, i))
            continue;
        rc = set_captions(sources, &item, err);
        if (rc < 0)
            break;
        rc = row_item_append(&kept, &item);
        if (rc < 0) {
            rc = err_set(err, rc, "item %llu: its fields and captions make a row of more than %d bytes",
                         (unsigned long long)item.item, ROW_MAX_BYTES);
            break;
        }
    }
    row_cursor_release(&cursor);
    if (rc < 0) {
        buf_release(&kept);
        return rc;
    }
    buf_release(rows);
    *rows = kept;
    return 0;
}

static int open_sources(struct broker *b, const struct broker_job *job, const struct core_work *work,
                        struct caption_sources *ret, struct err *err)
{
    int rc = 0;

    ret->n = 0;
    for (uint32_t i = 0; rc == 0 && i < work->n_inputs; i++)
        if (job->open.nodes[work->inputs[i].node].out_bytes == 0)
            rc = source_open(b, &work->inputs[i], ret, err);
    return rc;
}

static int add_rows(struct broker *b, struct broker_job *job, const struct core_work *work, struct wire_message *m,
                    struct err *err)
{
    struct caption_sources sources;
    struct buf rows;
    uint32_t n = 0;
    int rc;

    buf_init(&rows, MSG_MAX_ROW_FRAME_BYTES);
    rc = store_unit_items(job->store, work->unit, work->first, work->count, &rows, &n, err);
    if (rc == 0 && n != work->count)
        rc = err_set(err, -EBADMSG, "unit %u has %u items, not the %u of the lease", work->unit, n, work->count);
    if (rc == 0) {
        rc = open_sources(b, job, work, &sources, err);
        if (rc == 0 && (sources.n || work->n_items != work->count))
            rc = rewrite_rows(&rows, work, &sources, err);
        sources_release(&sources);
    }
    if (rc == 0) {
        rc = wire_message_add_rows(m, &rows, work->n_items);
        if (rc < 0)
            (void)err_set(err, rc, "unit %u: its rows do not fit a message: choose a smaller --unit", work->unit);
    }
    buf_release(&rows);
    return rc;
}

/* -- tensors ------------------------------------------------------------------------------------------------------- */

/* The tensor has a row for each item of in->ok; which of them are still in the WORK? */
static void select_rows(const struct core_work *work, const struct core_input *in, struct msg_selection *ret)
{
    uint32_t row = 0;

    ret->n_bytes = (in->n_tensor + 7) / 8;
    for (uint32_t i = 0; i < work->count; i++) {
        if (!broker_bit(in->ok, i))
            continue;
        if (broker_bit(work->items, i))
            ret->rows[row / 8] |= (uint8_t)(1 << row % 8);
        row++;
    }
}

static int add_tensors(struct broker *b, const struct broker_job *job, const struct core_work *work,
                       struct wire_message *m, struct err *err)
{
    struct msg_work *body = &wire_message_envelope(m)->work;
    uint32_t n = 0;

    for (uint32_t i = 0; i < work->n_inputs; i++) {
        const struct core_input *in = &work->inputs[i];
        const struct broker_payload *p = broker_payload_find(b, in->payload);
        int rc;

        if (job->open.nodes[in->node].out_bytes == 0)
            continue;
        if (!p || !p->tensor)
            return err_set(err, -EINVAL, "the output of node %u is gone", in->node);
        rc = wire_message_add_tensor(m, p->tensor);
        if (rc < 0)
            return err_set(err, rc, "the output of node %u does not fit the message", in->node);
        if (in->n_tensor != work->n_items) {
            body->selections[body->n_selections].tensor = n;
            select_rows(work, in, &body->selections[body->n_selections++]);
        }
        n++;
    }
    return 0;
}

int broker_work_message(struct broker *b, const struct core_work *work, struct wire_message **ret, struct err *err)
{
    struct broker_job *job = broker_job_find(b, work->job);
    struct wire_message *m;
    struct msg_work *body;
    int rc = wire_message_new(MSG_WORK, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for unit %u", work->unit);
    body = &wire_message_envelope(m)->work;
    body->recipe = job->open.recipe;
    body->tasks = job->open.nodes[work->node].tasks;
    body->lease = (struct msg_lease){.epoch = work->epoch,
                                     .id = work->lease,
                                     .job = work->job,
                                     .unit = work->unit,
                                     .node = work->node,
                                     .attempt = work->attempt,
                                     .first = work->first,
                                     .count = work->n_items};
    rc = add_rows(b, job, work, m, err);
    if (rc == 0)
        rc = add_tensors(b, job, work, m, err);
    if (rc < 0) {
        wire_message_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}
