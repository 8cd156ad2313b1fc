#include "broker/work.h"

#include "broker/jobs.h"

#include "broker/mask.h"
#include "proto/row.h"
#include "proto/stored.h"

#include <errno.h>

/* -- captions of nodes without a tensor -- */

/* The records of one such node, in item order. */
struct caption_source {
    const struct records *records;
    uint32_t row;             /* the next one */
    struct row_memory memory; /* of record */
    struct row_record record; /* the latest one with captions */
    bool more;                /* `record` is valid; false: the end */
};

struct caption_sources {
    uint32_t n;
    struct caption_source at[CORE_MAX_NODES]; /* in node order */
};

static int source_next(struct caption_source *s, struct err *err)
{
    const struct records *r = s->records;

    while (s->row < r->n && !r->rows[s->row].captions)
        s->row++;
    s->more = s->row < r->n;
    if (!s->more)
        return 0;
    s->row++;
    return stored_record_decode(&s->memory, r->bytes.data + r->rows[s->row - 1].start, r->rows[s->row - 1].size_bytes,
                                &s->record, err);
}

static int source_open(const struct payloads *payloads, const struct core_input *input, struct caption_sources *ret,
                       struct err *err)
{
    const struct payload *p = payloads_find(payloads, input->payload);
    struct caption_source *s = &ret->at[ret->n];

    if (!p)
        return err_set(err, -EINVAL, "the rows of node %u are gone", input->node);
    *s = (struct caption_source){.records = &p->records};
    ret->n++;
    return source_next(s, err);
}

static void sources_release(struct caption_sources *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        row_memory_release(&s->at[i].memory);
}

/* Captions of a later node replace those of an earlier one, as they do at the commit. */
static int set_captions(struct caption_sources *sources, struct row_item *item, struct err *err)
{
    item->n_captions = 0;
    for (uint32_t i = 0; i < sources->n; i++) {
        struct caption_source *s = &sources->at[i];

        while (s->more && s->record.item < item->item) {
            int rc = source_next(s, err);

            if (rc < 0)
                return rc;
        }
        if (s->more && s->record.item == item->item) {
            item->n_captions = s->record.n_captions;
            item->captions = s->record.captions;
        }
    }
    return 0;
}

/* -- rows -- */

/* The row of one item, with captions. */
static int append_with_captions(struct buf *rows, const struct row_frame *frame, struct caption_sources *sources,
                                struct err *err)
{
    struct row_cursor cursor;
    struct row_item item;
    int rc;

    row_cursor_init(&cursor, frame, 1, 1);
    rc = row_cursor_next_item(&cursor, &item, err);
    if (rc == 1)
        rc = set_captions(sources, &item, err);
    if (rc == 0) {
        rc = row_item_append(rows, &item);
        if (rc < 0)
            (void)err_set(err, rc, "item %llu: its fields and captions make a row of more than %d bytes",
                          (unsigned long long)item.item, ROW_MAX_BYTES);
    }
    row_cursor_release(&cursor);
    return rc;
}

/* Rows of the lease's items, without those that an earlier node has failed. */
static int append_rows(struct buf *rows, const struct unit_rows *unit, const struct core_work *work,
                       struct caption_sources *sources, struct err *err)
{
    int rc = 0;

    if (!sources->n && work->n_items == work->count) {
        const uint32_t start = unit_rows_start(unit, work->first);

        return buf_append(rows, unit->bytes + start, unit->ends[work->first + work->count - 1] - start);
    }
    for (uint32_t i = 0; rc == 0 && i < work->count; i++) {
        const uint32_t start = unit_rows_start(unit, work->first + i);
        const struct row_frame frame = {unit->bytes + start, unit->ends[work->first + i] - start};

        if (!mask_has(work->items, i))
            continue;
        rc = sources->n ? append_with_captions(rows, &frame, sources, err)
                        : buf_append(rows, frame.data, frame.size_bytes);
    }
    return rc;
}

static int open_sources(const struct payloads *payloads, const struct broker_job *job, const struct core_work *work,
                        struct caption_sources *ret, struct err *err)
{
    int rc = 0;

    ret->n = 0;
    for (uint32_t i = 0; rc == 0 && i < work->n_inputs; i++)
        if (job->open.nodes[work->inputs[i].node].out_bytes == 0)
            rc = source_open(payloads, &work->inputs[i], ret, err);
    return rc;
}

/* Of a job whose client has sent them. */
static int add_pictures(const struct broker_job *job, const struct core_work *work, const struct buf *rows,
                        struct wire_message *m, struct err *err)
{
    const struct row_frame frame = {.data = rows->data, .size_bytes = rows->size_bytes};
    struct wire_tensor *pictures;
    int rc = push_tensor(job, work, &frame, &pictures, err);

    if (rc < 0 || !pictures)
        return rc;
    rc = wire_message_add_tensor(m, pictures);
    wire_tensor_free(pictures);
    return rc < 0 ? err_set(err, rc, "the pictures of unit %u do not fit a message", work->unit) : 0;
}

static int add_rows(const struct payloads *payloads, const struct broker_job *job, const struct core_work *work,
                    struct wire_message *m, struct err *err)
{
    const struct unit_rows *unit = units_find(&job->units, work->unit);
    struct caption_sources sources;
    struct buf rows;
    int rc;

    if (!unit || work->first + work->count > unit->n_items)
        return err_set(err, -EINVAL, "unit %u has no such items", work->unit);
    buf_init(&rows, ROW_MAX_ROWS_BYTES);
    rc = open_sources(payloads, job, work, &sources, err);
    if (rc == 0)
        rc = append_rows(&rows, unit, work, &sources, err);
    sources_release(&sources);
    if (rc == 0 && job->open.nodes[work->node].needs == 0 && store_info(job->store)->push)
        rc = add_pictures(job, work, &rows, m, err);
    if (rc == 0) {
        rc = wire_message_add_rows(m, &rows, work->n_items);
        if (rc < 0)
            (void)err_set(err, rc, "unit %u: its rows do not fit a message: choose a smaller --unit", work->unit);
    }
    buf_release(&rows);
    return rc;
}

/* -- tensors -- */

/* The tensor has a row for each item of in->ok. Select the rows whose items are in the WORK. */
static void select_rows(const struct core_work *work, const struct core_input *in, struct msg_selection *ret)
{
    uint32_t row = 0;

    ret->n_bytes = (in->n_tensor + 7) / 8;
    for (uint32_t i = 0; i < work->count; i++) {
        if (!mask_has(in->ok, i))
            continue;
        if (mask_has(work->items, i))
            ret->rows[row / 8] |= (uint8_t)(1 << row % 8);
        row++;
    }
}

static int add_tensors(const struct payloads *payloads, const struct broker_job *job, const struct core_work *work,
                       struct wire_message *m, struct err *err)
{
    struct msg_work *body = &wire_message_envelope(m)->work;
    uint32_t n = 0;

    for (uint32_t i = 0; i < work->n_inputs; i++) {
        const struct core_input *in = &work->inputs[i];
        const struct payload *p = payloads_find(payloads, in->payload);
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

int work_message(const struct jobs *jobs, const struct payloads *payloads, const struct core_work *work,
                 struct wire_message **ret, struct err *err)
{
    const struct broker_job *job = broker_job_find(jobs, work->job);
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
    rc = add_rows(payloads, job, work, m, err);
    if (rc == 0)
        rc = add_tensors(payloads, job, work, m, err);
    if (rc < 0) {
        wire_message_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}
