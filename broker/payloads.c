#include "broker/shell.h"

#include "proto/row.h"
#include "proto/stored.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t broker_payload_add(struct broker *b, struct wire_message **message)
{
    struct broker_payload *p = calloc(1, sizeof(*p));

    if (!p || core_map_put(&b->payloads, b->next_handle + 1, p) < 0) {
        free(p);
        return 0;
    }
    p->handle = ++b->next_handle;
    p->message = *message;
    *message = NULL;
    if (wire_message_n_tensors(p->message) > 0)
        p->tensor = wire_message_take_tensor(p->message, 0);
    return p->handle;
}

struct broker_payload *broker_payload_find(struct broker *b, uint64_t handle)
{
    return core_map_get(&b->payloads, handle);
}

void broker_payload_drop_tensor(struct broker *b, uint64_t handle)
{
    struct broker_payload *p = broker_payload_find(b, handle);

    if (!p)
        return;
    wire_tensor_free(p->tensor);
    p->tensor = NULL;
}

static void payload_free(struct broker_payload *p)
{
    if (!p)
        return;
    wire_tensor_free(p->tensor);
    wire_message_free(p->message);
    free(p);
}

void broker_payload_drop(struct broker *b, uint64_t handle)
{
    payload_free(core_map_take(&b->payloads, handle));
}

void broker_payloads_free(struct broker *b)
{
    for (size_t i = 0; i < b->payloads.capacity; i++)
        if (b->payloads.slots[i].key)
            payload_free(b->payloads.slots[i].value);
    core_map_release(&b->payloads);
}

/* -- a unit's records -- */

/* Where the encoded record of each item lies in `bytes`; end 0: none yet. */
struct record_slot {
    size_t start, end;
    bool failed;
};

struct records {
    struct buf bytes;
    struct record_slot slots[CORE_MAX_UNIT_ITEMS];
};

static int put_record(struct records *r, uint32_t index, struct row_record *record, uint64_t first_item)
{
    const size_t start = r->bytes.size_bytes;
    int rc;

    record->item = first_item + index;
    rc = stored_record_encode(record, &r->bytes);
    if (rc == 0)
        r->slots[index] = (struct record_slot){start, r->bytes.size_bytes, record->failed};
    return rc;
}

static int put_failure(struct records *r, uint32_t index, const char *code, const char *text, uint64_t first_item)
{
    struct row_record record = {
        .failed = true, .error_message = (const uint8_t *)text, .error_message_bytes = (uint32_t)strlen(text)};

    (void)msg_text_set(record.error_code, sizeof(record.error_code), code);
    return put_record(r, index, &record, first_item);
}

/* The rows of one payload. The first error of an item stands; rows that add nothing are passed over. */
static int add_payload(struct broker *b, struct records *r, const struct core_commit_payload *part, uint64_t first_item,
                       struct err *err)
{
    struct broker_payload *p = broker_payload_find(b, part->payload);
    struct row_record record;
    struct row_cursor cursor;
    uint32_t bit = 0;
    int rc;

    if (!p)
        return err_set(err, -EINVAL, "the rows of node %u are gone", part->node);
    wire_message_rows(p->message, &cursor);
    while ((rc = row_cursor_next_record(&cursor, &record, err)) == 1) {
        while (bit < part->count && !broker_bit(part->items, bit))
            bit++;
        if (bit == part->count) {
            rc = err_set(err, -EBADMSG, "more rows than items");
            break;
        }
        if ((record.failed || record.n_captions) && !r->slots[part->first + bit].failed)
            rc = put_record(r, part->first + bit, &record, first_item);
        if (rc < 0)
            break;
        bit++;
    }
    row_cursor_release(&cursor);
    return rc < 0 ? rc : 0;
}

/* Into the request, in item order. */
static int gather(const struct records *r, uint32_t n_items, struct committer_request *ret)
{
    assert(n_items >= 1);
    ret->ends = malloc(n_items * sizeof(*ret->ends));
    if (!ret->ends)
        return -ENOMEM;
    for (uint32_t i = 0; i < n_items; i++) {
        const struct record_slot *slot = &r->slots[i];
        int rc = buf_append(&ret->records, r->bytes.data + slot->start, slot->end - slot->start);

        if (rc < 0)
            return rc;
        ret->ends[i] = (uint32_t)ret->records.size_bytes;
        ret->n_failed += slot->failed;
    }
    ret->n_records = n_items;
    return 0;
}

int broker_commit_records(struct broker *b, const struct core_commit *commit, uint64_t first_item,
                          struct committer_request *ret, struct err *err)
{
    struct records *r = calloc(1, sizeof(*r));
    int rc = 0;

    if (!r)
        return err_set(err, -ENOMEM, "no memory for the records of unit %u", commit->unit);
    buf_init(&r->bytes, 0);
    for (uint32_t i = 0; rc == 0 && i < commit->n_payloads; i++)
        rc = add_payload(b, r, &commit->payloads[i], first_item, err);
    for (uint32_t i = 0; rc == 0 && i < commit->n_quarantined; i++) {
        const struct core_quarantined *q = &commit->quarantined[i];
        char text[CORE_CODE_BYTES + CORE_TEXT_BYTES + 8];

        (void)snprintf(text, sizeof(text), "%s%s%s", q->code, *q->code && *q->text ? ": " : "", q->text);
        rc = put_failure(r, q->item, "quarantined", text, first_item);
    }
    for (uint32_t i = 0; rc == 0 && i < commit->n_items; i++)
        if (r->slots[i].end == 0)
            rc = put_failure(r, i, "lost", "no stage left a result for this item", first_item);
    if (rc == 0)
        rc = gather(r, commit->n_items, ret);
    if (rc < 0 && err && !err->text[0])
        rc = err_set(err, rc, "unit %u: %s", commit->unit, strerror(-rc));
    buf_release(&r->bytes);
    free(r);
    return rc;
}
