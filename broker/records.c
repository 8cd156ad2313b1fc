#include "broker/records.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "broker/mask.h"
#include "proto/stored.h"

void records_release(struct records *r)
{
    free(r->rows);
    free(r->embedding_list);
    buf_release(&r->bytes);
    buf_release(&r->embeddings);
    *r = (struct records){0};
}

uint64_t records_size_bytes(const struct records *r)
{
    return r->bytes.size_bytes + r->embeddings.size_bytes + r->n * sizeof(*r->rows) +
           r->n_embeddings * sizeof(*r->embedding_list);
}

static int add_embedding(struct records *r, const struct row_embedding *e)
{
    const size_t start = r->embeddings.size_bytes;
    int rc = grow_array(&r->embedding_list, &r->embeddings_capacity, r->n_embeddings, sizeof(*r->embedding_list), 16);

    if (rc == 0)
        rc = stored_embedding_encode(e, &r->embeddings);
    if (rc < 0)
        return rc;
    r->embedding_list[r->n_embeddings++] =
        (struct store_embedding){.index = r->n,
                                 .kind = e->kind,
                                 .start = (uint32_t)start,
                                 .size_bytes = (uint32_t)(r->embeddings.size_bytes - start)};
    return 0;
}

int records_add(struct records *r, const struct row_record *record)
{
    struct record row = {.failed = record->failed,
                         .captions = record->n_captions > 0,
                         .first_embedding = (uint32_t)r->n_embeddings,
                         .n_embeddings = record->n_embeddings,
                         .start = (uint32_t)r->bytes.size_bytes};
    int rc;

    if (r->n == 0) {
        buf_init(&r->bytes, UINT32_MAX);
        buf_init(&r->embeddings, UINT32_MAX);
    }
    rc = grow_array(&r->rows, &r->capacity, r->n, sizeof(*r->rows), 64);
    if (rc == 0 && (row.failed || row.captions))
        rc = stored_record_encode(record, &r->bytes);
    for (uint32_t i = 0; rc == 0 && i < record->n_embeddings; i++)
        rc = add_embedding(r, &record->embeddings[i]);
    if (rc < 0)
        return rc;
    row.size_bytes = (uint32_t)(r->bytes.size_bytes - row.start);
    r->rows[r->n++] = row;
    return 0;
}

/* -- a unit's commit -- */

/* What is known of an item so far. */
struct slot {
    const uint8_t *data; /* its record; NULL: none yet */
    uint32_t size_bytes;
    bool failed, has_embeddings;
    const struct core_quarantined *quarantined;
    struct {
        const uint8_t *data; /* NULL: none */
        uint32_t size_bytes;
    } embeddings[MSG_EMBEDDING_CLS + 1];
};

static void put_row(struct slot *slot, const struct records *r, const struct record *row)
{
    if (slot->failed)
        return;
    if (row->size_bytes) {
        slot->data = r->bytes.data + row->start;
        slot->size_bytes = row->size_bytes;
        slot->failed = row->failed;
    }
    for (uint32_t i = 0; i < row->n_embeddings; i++) {
        const struct store_embedding *e = &r->embedding_list[row->first_embedding + i];

        slot->embeddings[e->kind].data = r->embeddings.data + e->start;
        slot->embeddings[e->kind].size_bytes = e->size_bytes;
        slot->has_embeddings = true;
    }
}

static int put_part(struct slot *slots, const struct records_part *part, struct err *err)
{
    const struct core_commit_payload *p = part->payload;
    uint32_t row = 0;

    for (uint32_t i = 0; i < p->count; i++)
        if (mask_has(p->items, i)) {
            if (row == part->records->n)
                return err_set(err, -EINVAL, "node %u left fewer rows than items", p->node);
            put_row(&slots[p->first + i], part->records, &part->records->rows[row++]);
        }
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

static int append_failure(struct buf *ret, uint64_t item, const char *code, const char *text)
{
    struct row_record record = {.item = item,
                                .failed = true,
                                .error_message = (const uint8_t *)text,
                                .error_message_bytes = (uint32_t)strlen(text)};

    (void)msg_text_set(record.error_code, sizeof(record.error_code), code);
    return stored_record_encode(&record, ret);
}

static int append_record(struct slot *slot, uint64_t item, struct buf *ret)
{
    const struct core_quarantined *q = slot->quarantined;
    char text[CORE_CODE_BYTES + CORE_TEXT_BYTES + 8];

    if (q) {
        (void)snprintf(text, sizeof(text), "%s%s%s", q->code, *q->code && *q->text ? ": " : "", q->text);
        return append_failure(ret, item, record_code(q->code), text);
    }
    if (slot->data)
        return buf_append(ret, slot->data, slot->size_bytes);
    if (slot->has_embeddings) /* these alone: the record is empty */
        return stored_record_encode(&(struct row_record){.item = item}, ret);
    slot->failed = true;
    return append_failure(ret, item, "lost", "no stage left a result for this item");
}

static int append_embeddings(const struct slot *slot, uint32_t index, struct committer_request *ret)
{
    for (enum msg_embedding kind = MSG_EMBEDDING_QUERY; kind <= MSG_EMBEDDING_CLS; kind++) {
        const uint32_t start = (uint32_t)ret->embeddings.size_bytes;

        if (!slot->embeddings[kind].data)
            continue;
        if (buf_append(&ret->embeddings, slot->embeddings[kind].data, slot->embeddings[kind].size_bytes) < 0)
            return -ENOMEM;
        ret->embedding_list[ret->n_embeddings++] = (struct store_embedding){
            .index = index, .kind = kind, .start = start, .size_bytes = slot->embeddings[kind].size_bytes};
    }
    return 0;
}

/* In item order; of a unit that was done before, those alone that are done again. */
static int gather(struct slot *slots, const struct core_commit *commit, uint64_t first_item,
                  struct committer_request *ret)
{
    bool embeddings = false;
    int rc = 0;

    for (uint32_t i = 0; i < commit->n_items; i++)
        embeddings |= slots[i].has_embeddings;
    ret->ends = malloc(commit->n_items * sizeof(*ret->ends));
    if (embeddings)
        ret->embedding_list = malloc((size_t)commit->n_items * MSG_MAX_EMBEDDINGS * sizeof(*ret->embedding_list));
    if (!ret->ends || (embeddings && !ret->embedding_list))
        return -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < commit->n_items; i++) {
        if (commit->again && !mask_has(commit->again, i))
            continue;
        rc = append_record(&slots[i], first_item + i, &ret->records);
        if (rc == 0 && !slots[i].failed)
            rc = append_embeddings(&slots[i], i, ret);
        ret->ends[ret->n_records++] = (uint32_t)ret->records.size_bytes;
        ret->n_failed += slots[i].failed;
    }
    return rc;
}

int records_merge(const struct records_part *parts, const struct core_commit *commit, uint64_t first_item,
                  struct committer_request *ret, struct err *err)
{
    struct slot *slots = calloc(commit->n_items, sizeof(*slots));
    int rc = 0;

    if (!slots)
        return err_set(err, -ENOMEM, "no memory for the records of unit %u", commit->unit);
    buf_init(&ret->records, UINT32_MAX);
    buf_init(&ret->embeddings, UINT32_MAX);
    for (uint32_t i = 0; rc == 0 && i < commit->n_payloads; i++)
        rc = put_part(slots, &parts[i], err);
    for (uint32_t i = 0; i < commit->n_quarantined; i++) {
        slots[commit->quarantined[i].item].quarantined = &commit->quarantined[i];
        slots[commit->quarantined[i].item].failed = true;
    }
    if (rc == 0 && (rc = gather(slots, commit, first_item, ret)) < 0)
        (void)err_set(err, rc, "unit %u: %s", commit->unit, strerror(-rc));
    free(slots);
    return rc;
}
