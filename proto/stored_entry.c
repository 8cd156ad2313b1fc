/* stored_entry.c - the rows of a broker's job table. */
#include "proto/stored.h"

#include "proto/msg_pb.h"
#include "proto/row_pb.h"
#include "proto/stored_pb.h"
#include "proto/store.pb-c.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* `codes`: [MSG_MAX_RETRY_CODES] */
static Blipline__JobEntry to_pb(const struct stored_job_entry *e, ProtobufCBinaryData *codes)
{
    Blipline__JobEntry pb = BLIPLINE__JOB_ENTRY__INIT;

    pb.job = e->job;
    if (e->has_token)
        pb.token = (ProtobufCBinaryData){.len = sizeof(e->token), .data = (uint8_t *)(uintptr_t)e->token};
    pb.name = msg_text_to_pb(e->name);
    pb.owner = msg_text_to_pb(e->owner);
    pb.recipe = msg_text_to_pb(e->recipe);
    pb.model = msg_text_to_pb(e->model);
    pb.priority = e->priority;
    pb.wanted = e->wanted;
    pb.max_failures = e->max_failures;
    pb.max_failed_per_mille = e->max_failed_per_mille;
    pb.created_ms = e->created_ms;
    pb.ended_ms = e->ended_ms;
    pb.text = msg_text_to_pb(e->text);
    pb.n_items = e->n_items;
    pb.n_done = e->n_done;
    pb.n_failed = e->n_failed;
    pb.sealed = e->sealed;
    pb.n_again = e->n_again;
    pb.retrying = e->retrying;
    msg_codes_to_pb(e->n_retry_codes, e->retry_codes, codes);
    pb.n_retry_codes = e->n_retry_codes;
    pb.retry_codes = codes;
    pb.push = e->push;
    return pb;
}

void stored_job_entry_set_model(struct stored_job_entry *e, uint32_t n_nodes, const struct msg_node *nodes)
{
    size_t n = 0;

    e->model[0] = '\0';
    for (uint32_t i = 0; i < n_nodes && n < sizeof(e->model); i++)
        if (!strstr(e->model, nodes[i].model))
            n += (size_t)snprintf(e->model + n, sizeof(e->model) - n, "%s%s", n ? ", " : "", nodes[i].model);
}

int stored_job_entry_encode(const struct stored_job_entry *e, struct buf *out)
{
    ProtobufCBinaryData codes[MSG_MAX_RETRY_CODES];
    const Blipline__JobEntry pb = to_pb(e, codes);

    return e->job && e->wanted <= STORED_WANTED_REMOVED ? stored_append_pb(out, &pb.base) : -EINVAL;
}

int row_job_entry_append(struct buf *frame, const struct stored_job_entry *e)
{
    ProtobufCBinaryData codes[MSG_MAX_RETRY_CODES];
    Blipline__JobEntry pb = to_pb(e, codes);

    pb.state = e->state;
    return row_append_pb(frame, &pb.base);
}

static int from_pb(const ProtobufCMessage *pb, struct stored_job_entry *ret, struct err *err)
{
    const Blipline__JobEntry *from = (const Blipline__JobEntry *)(const void *)pb;
    struct stored_job_entry e;
    int rc;

    if (from->job == 0 || from->wanted > STORED_WANTED_REMOVED || from->state > MSG_JOB_CANCELLED ||
        (from->token.len && from->token.len != sizeof(e.token)))
        return err_set(err, -EBADMSG, "a field of the job is out of range");
    e = (struct stored_job_entry){.job = from->job,
                                  .has_token = from->token.len > 0,
                                  .priority = from->priority,
                                  .wanted = from->wanted,
                                  .max_failures = from->max_failures,
                                  .max_failed_per_mille = from->max_failed_per_mille,
                                  .created_ms = from->created_ms,
                                  .ended_ms = from->ended_ms,
                                  .n_items = from->n_items,
                                  .n_done = from->n_done,
                                  .n_failed = from->n_failed,
                                  .n_again = from->n_again,
                                  .retrying = from->retrying,
                                  .push = from->push,
                                  .sealed = from->sealed,
                                  .state = (enum msg_job_state)from->state};
    if (from->token.len)
        memcpy(e.token, from->token.data, sizeof(e.token));
    if ((rc = msg_text_from_pb(e.name, sizeof(e.name), &from->name, "name", err)) < 0 ||
        (rc = msg_text_from_pb(e.owner, sizeof(e.owner), &from->owner, "owner", err)) < 0 ||
        (rc = msg_text_from_pb(e.recipe, sizeof(e.recipe), &from->recipe, "recipe", err)) < 0 ||
        (rc = msg_text_from_pb(e.model, sizeof(e.model), &from->model, "model", err)) < 0 ||
        (rc = msg_text_from_pb(e.text, sizeof(e.text), &from->text, "text", err)) < 0 ||
        (rc = msg_codes_from_pb(from->n_retry_codes, from->retry_codes, "the job", &e.n_retry_codes, e.retry_codes,
                                err)) < 0 ||
        (rc = msg_check_codes(e.n_retry_codes, e.retry_codes, "the job", err)) < 0)
        return rc;
    *ret = e;
    return 0;
}

int stored_job_entry_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct stored_job_entry *ret,
                            struct err *err)
{
    ProtobufCMessage *pb;
    int rc = stored_unpack_pb(memory, &blipline__job_entry__descriptor, data, n_bytes, &pb, err);

    return rc < 0 ? rc : from_pb(pb, ret, err);
}

int row_cursor_next_job_entry(struct row_cursor *c, struct stored_job_entry *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    int rc = row_cursor_next_pb(c, &blipline__job_entry__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    rc = from_pb(row, ret, err);
    return rc < 0 ? rc : 1;
}
