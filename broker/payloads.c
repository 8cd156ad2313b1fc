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

/* What is known of an item so far. */
struct record_slot {
    size_t start, end; /* its encoded record in records.bytes; end 0: none yet */
    bool failed;
    struct {
        uint32_t start, size_bytes; /* in records.embeddings; 0: none */
    } embeddings[MSG_EMBEDDING_CLS + 1];
    bool has_embeddings;
};

struct records {
    struct buf bytes, embeddings;
    struct record_slot *slots; /* [n_items] */
    uint32_t n_items;
};

static int put_record(struct records *r, uint32_t index, struct row_record *record, uint64_t first_item)
{
    const size_t start = r->bytes.size_bytes;
    int rc;

    record->item = first_item + index;
    rc = stored_record_encode(record, &r->bytes);
    if (rc == 0) {
        r->slots[index].start = start;
        r->slots[index].end = r->bytes.size_bytes;
        r->slots[index].failed = record->failed;
    }
    return rc;
}

static int put_failure(struct records *r, uint32_t index, const char *code, const char *text, uint64_t first_item)
{
    struct row_record record = {
        .failed = true, .error_message = (const uint8_t *)text, .error_message_bytes = (uint32_t)strlen(text)};

    (void)msg_text_set(record.error_code, sizeof(record.error_code), code);
    return put_record(r, index, &record, first_item);
}

static int put_embeddings(struct records *r, uint32_t index, const struct row_record *record)
{
    struct record_slot *slot = &r->slots[index];

    for (uint32_t i = 0; i < record->n_embeddings; i++) {
        const struct row_embedding *e = &record->embeddings[i];
        const size_t start = r->embeddings.size_bytes;
        int rc = stored_embedding_encode(e, &r->embeddings);

        if (rc < 0)
            return rc;
        slot->embeddings[e->kind].start = (uint32_t)start;
        slot->embeddings[e->kind].size_bytes = (uint32_t)(r->embeddings.size_bytes - start);
        slot->has_embeddings = true;
    }
    return 0;
}

/* An error stands, the first of them, whatever other nodes say. A later node's captions replace an earlier one's.
 * Embeddings of all nodes come together. */
static int put_row(struct records *r, uint32_t index, struct row_record *record, uint64_t first_item)
{
    int rc = 0;

    if (r->slots[index].failed)
        return 0;
    if (record->failed || record->n_captions)
        rc = put_record(r, index, record, first_item);
    return rc < 0 ? rc : put_embeddings(r, index, record);
}

/* The rows of one payload. */
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
        rc = put_row(r, part->first + bit, &record, first_item);
        if (rc < 0)
            break;
        bit++;
    }
    row_cursor_release(&cursor);
    return rc < 0 ? rc : 0;
}

/* Items that no node said anything about; those with embeddings alone get an empty record. */
static int fill_gaps(struct records *r, const uint64_t *again, uint64_t first_item)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->n_items; i++) {
        struct row_record empty = {0};

        if (r->slots[i].end || (again && !broker_bit(again, i)))
            continue;
        if (r->slots[i].has_embeddings)
            rc = put_record(r, i, &empty, first_item);
        else
            rc = put_failure(r, i, "lost", "no stage left a result for this item", first_item);
    }
    return rc;
}

/* Into the request, in item order. */
static int gather_records(const struct records *r, struct committer_request *ret)
{
    assert(r->n_items >= 1);
    ret->ends = malloc(r->n_items * sizeof(*ret->ends));
    if (!ret->ends)
        return -ENOMEM;
    for (uint32_t i = 0; i < r->n_items; i++) {
        const struct record_slot *slot = &r->slots[i];
        int rc = buf_append(&ret->records, r->bytes.data + slot->start, slot->end - slot->start);

        if (rc < 0)
            return rc;
        if (slot->end == 0)
            continue; /* not one of those that are done again */
        ret->ends[ret->n_records++] = (uint32_t)ret->records.size_bytes;
        ret->n_failed += slot->failed;
    }
    return 0;
}

/* Those of the items that did not fail. */
static int gather_embeddings(struct records *r, struct committer_request *ret)
{
    if (r->embeddings.size_bytes == 0)
        return 0;
    ret->embedding_list = malloc((size_t)r->n_items * MSG_MAX_EMBEDDINGS * sizeof(*ret->embedding_list));
    if (!ret->embedding_list)
        return -ENOMEM;
    for (uint32_t i = 0; i < r->n_items; i++)
        for (enum msg_embedding kind = MSG_EMBEDDING_QUERY; kind <= MSG_EMBEDDING_CLS; kind++)
            if (!r->slots[i].failed && r->slots[i].embeddings[kind].size_bytes)
                ret->embedding_list[ret->n_embeddings++] =
                    (struct store_embedding){.index = i,
                                             .kind = kind,
                                             .start = r->slots[i].embeddings[kind].start,
                                             .size_bytes = r->slots[i].embeddings[kind].size_bytes};
    ret->embeddings = r->embeddings;
    buf_init(&r->embeddings, 0);
    return 0;
}

/* What an item's record says when its worker could not say anything of it. Some of that passes. */
static const char *record_code(const char *failure)
{
    static const struct {
        const char *failure, *code;
    } passing[] = {{"expired", "timed_out"},
                   {"stalled", "timed_out"},
                   {"memory", "no_memory"},
                   {"returned", "lost"},
                   {"lost", "lost"}};

    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        if (strcmp(passing[i].failure, failure) == 0)
            return passing[i].code;
    return "quarantined";
}

static int collect(struct broker *b, const struct core_commit *commit, uint64_t first_item, struct records *r,
                   struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < commit->n_payloads; i++)
        rc = add_payload(b, r, &commit->payloads[i], first_item, err);
    for (uint32_t i = 0; rc == 0 && i < commit->n_quarantined; i++) {
        const struct core_quarantined *q = &commit->quarantined[i];
        char text[CORE_CODE_BYTES + CORE_TEXT_BYTES + 8];

        (void)snprintf(text, sizeof(text), "%s%s%s", q->code, *q->code && *q->text ? ": " : "", q->text);
        rc = put_failure(r, q->item, record_code(q->code), text, first_item);
    }
    return rc < 0 ? rc : fill_gaps(r, commit->again, first_item);
}

int broker_commit_records(struct broker *b, const struct core_commit *commit, uint64_t first_item,
                          struct committer_request *ret, struct err *err)
{
    struct records r = {.n_items = commit->n_items, .slots = calloc(commit->n_items, sizeof(*r.slots))};
    int rc;

    if (!r.slots)
        return err_set(err, -ENOMEM, "no memory for the records of unit %u", commit->unit);
    buf_init(&r.bytes, 0);
    buf_init(&r.embeddings, UINT32_MAX);
    rc = collect(b, commit, first_item, &r, err);
    if (rc == 0)
        rc = gather_records(&r, ret);
    if (rc == 0)
        rc = gather_embeddings(&r, ret);
    if (rc < 0 && err && !err->text[0])
        rc = err_set(err, rc, "unit %u: %s", commit->unit, strerror(-rc));
    buf_release(&r.bytes);
    buf_release(&r.embeddings);
    free(r.slots);
    return rc;
}
