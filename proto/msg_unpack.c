#include "proto/msg_pb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/budget.h"
#include "proto/recipe_pb.h"

#define UNPACK_BUDGET_BYTES ((size_t)1 << 20) /* for one envelope of <= 64 KiB */

int msg_text_from_pb(char *dst, size_t dst_size, const ProtobufCBinaryData *from, const char *field, struct err *err)
{
    if (from->len >= dst_size)
        return err_set(err, -EMSGSIZE, "%s of %zu bytes, the limit is %zu", field, from->len, dst_size - 1);
    if (from->len && memchr(from->data, 0, from->len))
        return err_set(err, -EBADMSG, "%s contains a NUL byte", field);
    if (from->len)
        memcpy(dst, from->data, from->len);
    dst[from->len] = '\0';
    return 0;
}

int msg_fingerprint_from_pb(const ProtobufCBinaryData *from, struct fingerprint *to, struct err *err)
{
    if (from->len != 0 && from->len != FINGERPRINT_BYTES)
        return err_set(err, -EBADMSG, "fingerprint of %zu bytes, not 16 or none", from->len);
    *to = (struct fingerprint){{0}};
    if (from->len)
        memcpy(to->bytes, from->data, from->len);
    return 0;
}

int msg_node_from_pb(const Blipline__Node *from, struct msg_node *to, struct err *err)
{
    int rc;

    to->stage = (enum stage)from->stage;
    to->needs = from->needs;
    to->out_bytes = from->out_bytes;
    to->tasks = from->tasks;
    rc = msg_fingerprint_from_pb(&from->fingerprint, &to->fingerprint, err);
    return rc < 0 ? rc : TEXT_FROM_PB(to->model, from->model, "node model", err);
}

static int lease_from_pb(const Blipline__Lease *from, struct msg_lease *to, struct err *err)
{
    if (!from)
        return err_set(err, -EBADMSG, "lease is missing");
    *to = (struct msg_lease){
        .epoch = from->epoch,
        .id = from->id,
        .job = from->job,
        .unit = from->unit,
        .node = from->node,
        .attempt = from->attempt,
        .first = from->first,
        .count = from->count,
    };
    return 0;
}

static int hello_from_pb(const Blipline__Hello *from, struct msg_hello *to, struct err *err)
{
    int rc;

    if (from->n_lease_ids > MSG_MAX_LEASE_IDS)
        return err_set(err, -EMSGSIZE, "hello with %zu leases, the limit is %d", from->n_lease_ids, MSG_MAX_LEASE_IDS);
    to->epoch = from->epoch;
    to->n_lease_ids = (uint32_t)from->n_lease_ids;
    to->lease_ids = from->lease_ids; /* in the budget as yet: keep_variable_parts() copies */
    to->role = (enum msg_role)from->role;
    to->min_version = from->min_version;
    to->max_version = from->max_version;
    to->boot_nonce = from->boot_nonce;
    to->pid = from->pid;
    to->stage = (enum stage)from->stage;
    to->dtype = (enum dtype)from->dtype;
    to->window_items = from->window_items;
    to->window_bytes = from->window_bytes;
    if ((rc = TEXT_FROM_PB(to->host, from->host, "host", err)) < 0 ||
        (rc = TEXT_FROM_PB(to->device, from->device, "device", err)) < 0 ||
        (rc = TEXT_FROM_PB(to->model, from->model, "model", err)) < 0)
        return rc;
    return msg_fingerprint_from_pb(&from->fingerprint, &to->fingerprint, err);
}

static int refuse_from_pb(const Blipline__Refuse *from, struct msg_refuse *to, struct err *err)
{
    /* accept reasons of later versions */
    to->reason = (unsigned)from->reason <= MSG_REASON_BUSY ? (enum msg_reason)from->reason : (enum msg_reason)0;
    to->has_recipe = from->recipe != NULL;
    if (to->has_recipe && msg_recipe_from_pb(from->recipe, &to->recipe, err) < 0)
        to->has_recipe = false; /* of a later version */
    return TEXT_FROM_PB(to->text, from->text, "refuse text", err);
}

static int work_from_pb(const Blipline__Work *from, struct msg_work *to, struct err *err)
{
    int rc = lease_from_pb(from->lease, &to->lease, err);

    if (rc < 0)
        return rc;
    if (from->n_selections > MSG_MAX_TENSORS)
        return err_set(err, -EMSGSIZE, "work: %zu selections, the limit is %d", from->n_selections, MSG_MAX_TENSORS);
    to->tasks = from->tasks;
    to->n_selections = (uint32_t)from->n_selections;
    for (size_t i = 0; i < from->n_selections; i++) {
        const Blipline__Selection *s = from->selections[i];

        if (s->rows.len > MSG_MAX_SELECTION_BYTES)
            return err_set(err, -EMSGSIZE, "work: a selection of %zu bytes, the limit is %d", s->rows.len,
                           MSG_MAX_SELECTION_BYTES);
        to->selections[i].tensor = s->tensor;
        to->selections[i].n_bytes = (uint32_t)s->rows.len;
        if (s->rows.len)
            memcpy(to->selections[i].rows, s->rows.data, s->rows.len);
    }
    return msg_recipe_from_pb(from->recipe, &to->recipe, err);
}

static int result_from_pb(const Blipline__Result *from, struct msg_result *to, struct err *err)
{
    if (from->timing)
        to->timing = (struct msg_timing){
            .compute_ns = from->timing->compute_ns,
            .decode_ns = from->timing->decode_ns,
            .resize_ns = from->timing->resize_ns,
            .wait_ns = from->timing->wait_ns,
        };
    return lease_from_pb(from->lease, &to->lease, err);
}

static int failure_from_pb(const Blipline__Failure *from, struct msg_failure *to, struct err *err)
{
    int rc;

    if ((rc = TEXT_FROM_PB(to->code, from->code, "failure code", err)) < 0 ||
        (rc = TEXT_FROM_PB(to->text, from->text, "failure text", err)) < 0)
        return rc;
    return lease_from_pb(from->lease, &to->lease, err);
}

static int return_from_pb(const Blipline__Return *from, struct msg_return *to, struct err *err)
{
    int rc = TEXT_FROM_PB(to->unseen, from->unseen, "return unseen", err);

    return rc < 0 ? rc : lease_from_pb(from->lease, &to->lease, err);
}

static int heartbeat_from_pb(const Blipline__Heartbeat *from, struct msg_heartbeat *to, struct err *err)
{
    if (from->n_lease_ids > MSG_MAX_LEASE_IDS)
        return err_set(err, -EMSGSIZE, "heartbeat of %zu leases, the limit is %d", from->n_lease_ids,
                       MSG_MAX_LEASE_IDS);
    to->epoch = from->epoch;
    to->progress = from->progress;
    to->n_lease_ids = (uint32_t)from->n_lease_ids;
    to->lease_ids = from->lease_ids; /* in the budget as yet: keep_variable_parts() copies */
    if (from->counters)
        to->n_items = from->counters->items;
    return 0;
}

static int submission_from_pb(const Blipline__Submission *from, struct msg_submission *to, struct err *err)
{
    to->given = from != NULL;
    if (!from)
        return 0;
    if (from->token.len != MSG_TOKEN_BYTES)
        return err_set(err, -EBADMSG, "submission: a token of %zu bytes, not %d", from->token.len, MSG_TOKEN_BYTES);
    memcpy(to->token, from->token.data, MSG_TOKEN_BYTES);
    to->push = from->push;
    return TEXT_FROM_PB(to->name, from->name, "name", err);
}

static int job_open_from_pb(const Blipline__JobOpen *from, struct msg_job_open *to, struct err *err)
{
    int rc;

    if (from->n_nodes > MSG_MAX_NODES)
        return err_set(err, -EMSGSIZE, "%zu nodes, the limit is %d", from->n_nodes, MSG_MAX_NODES);
    to->n_nodes = (uint32_t)from->n_nodes;
    to->unit_items = from->unit_items;
    to->create = from->create;
    to->priority = from->priority;
    to->max_failures = from->max_failures;
    to->max_failed_per_mille = from->max_failed_per_mille;
    to->check = from->check;
    to->job = from->job;
    for (size_t i = 0; i < from->n_nodes; i++)
        if ((rc = msg_node_from_pb(from->nodes[i], &to->nodes[i], err)) < 0)
            return rc;
    if ((rc = TEXT_FROM_PB(to->path, from->path, "path", err)) < 0 ||
        (rc = TEXT_FROM_PB(to->source, from->source, "source", err)) < 0 ||
        (rc = submission_from_pb(from->submission, &to->submission, err)) < 0 || (from->job && !from->recipe))
        return rc;
    return msg_recipe_from_pb(from->recipe, &to->recipe, err);
}

int msg_codes_from_pb(size_t n, const ProtobufCBinaryData *from, const char *message, uint32_t *ret_n,
                      char ret[][MSG_CODE_SIZE], struct err *err)
{
    int rc = 0;

    if (n > MSG_MAX_RETRY_CODES)
        return err_set(err, -EMSGSIZE, "%s: %zu codes, the limit is %d", message, n, MSG_MAX_RETRY_CODES);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = msg_text_from_pb(ret[i], MSG_CODE_SIZE, &from[i], "code", err);
    *ret_n = (uint32_t)n;
    return rc;
}

/* Bodies that consist of numbers only. */
static int rows_from_pb(const Blipline__JobRows *from, struct msg_job_rows *to, struct err *err)
{
    const Blipline__Comparison *begin = from->begin;

    *to = (struct msg_job_rows){.job = from->job, .sources = from->sources, .compare = from->compare, .begin = begin};
    if (!begin)
        return 0;
    to->comparison.refresh = begin->refresh;
    to->comparison.all_failed = begin->all_failed;
    return msg_codes_from_pb(begin->n_codes, begin->codes, "job_rows", &to->comparison.n_codes, to->comparison.codes,
                             err);
}

static int control_from_pb(const Blipline__JobControl *from, struct msg_job_control *to, struct err *err)
{
    *to = (struct msg_job_control){
        .job = from->job, .action = (enum msg_job_action)from->action, .priority = from->priority};
    return msg_codes_from_pb(from->n_codes, from->codes, "job_control", &to->n_codes, to->codes, err);
}

static int rows_ok_from_pb(const Blipline__JobRowsOk *from, struct msg_job_rows_ok *to, struct err *err)
{
    const Blipline__Compared *c = from->compared;
    size_t n_codes = c ? c->n_n_failed_with : 0, n_key = c ? c->other_fields_key.len : 0;

    *to = (struct msg_job_rows_ok){.job = from->job, .n_items = from->n_items, .is_compared = c};
    if (!c)
        return 0;
    if (n_codes > MSG_MAX_RETRY_CODES || n_key > MSG_OTHER_KEY_BYTES)
        return err_set(err, -EMSGSIZE, "job_rows_ok: %zu codes and a key of %zu bytes, the limits are %d and %d",
                       n_codes, n_key, MSG_MAX_RETRY_CODES, MSG_OTHER_KEY_BYTES);
    to->compared = (struct msg_compared){.n_new = c->n_new,
                                         .n_damaged = c->n_damaged,
                                         .n_retried = c->n_retried,
                                         .n_refreshed = c->n_refreshed,
                                         .n_changed = c->n_changed,
                                         .n_other_fields = c->n_other_fields,
                                         .other_fields_key_bytes = (uint32_t)n_key,
                                         .n_codes = (uint32_t)n_codes};
    if (n_key)
        memcpy(to->compared.other_fields_key, c->other_fields_key.data, n_key);
    if (n_codes)
        memcpy(to->compared.n_failed_with, c->n_failed_with, n_codes * sizeof(uint64_t));
    return 0;
}

static int plain_body_from_pb(const Blipline__Envelope *e, struct msg *m, struct err *err)
{
    switch (e->body_case) {
    case BLIPLINE__ENVELOPE__BODY_WELCOME:
        m->welcome = (struct msg_welcome){e->welcome->epoch, e->welcome->version, e->welcome->heartbeat_ms,
                                          e->welcome->lease_ms, e->welcome->takes_models};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_CREDIT:
        m->credit = (struct msg_credit){e->credit->window_items, e->credit->window_bytes};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_OPENED:
        m->job_opened = (struct msg_job_opened){.job = e->job_opened->job,
                                                .n_items = e->job_opened->n_items,
                                                .n_done = e->job_opened->n_done,
                                                .n_again = e->job_opened->n_again,
                                                .n_redone = e->job_opened->n_redone,
                                                .n_units = e->job_opened->n_units};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_ROWS_OK:
        return rows_ok_from_pb(e->job_rows_ok, &m->job_rows_ok, err);
    case BLIPLINE__ENVELOPE__BODY_JOB_ACCEPTED:
        m->job_accepted = (struct msg_job_accepted){e->job_accepted->job, e->job_accepted->n_items,
                                                    e->job_accepted->disk_room, e->job_accepted->n_units};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_ROWS:
        return rows_from_pb(e->job_rows, &m->job_rows, err);
    case BLIPLINE__ENVELOPE__BODY_JOB_FIND:
        m->job_find = (struct msg_job_find){.job = e->job_find->job, .sources = e->job_find->sources};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_FOUND:
        m->job_ref.job = e->job_found->job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_LIST:
        m->job_list.from_job = e->job_list->from_job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_LISTED:
        m->job_listed.next_job = e->job_listed->next_job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_CONTROL:
        return control_from_pb(e->job_control, &m->job_control, err);
    case BLIPLINE__ENVELOPE__BODY_JOB_PUSH:
        m->job_push = (struct msg_job_push){e->job_push->job, e->job_push->offset};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_PUSHED:
        m->job_pushed = (struct msg_job_pushed){e->job_pushed->job, e->job_pushed->n_items};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_AGAIN:
        m->job_ref.job = e->job_again->job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_SEAL:
        m->job_seal = (struct msg_job_seal){e->job_seal->job, e->job_seal->disk_bytes};
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_QUERY:
        m->job_ref.job = e->job_query->job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_CLOSE:
        m->job_ref.job = e->job_close->job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_JOB_STOP:
        m->job_ref.job = e->job_stop->job;
        return 0;
    case BLIPLINE__ENVELOPE__BODY_DRAIN:
    case BLIPLINE__ENVELOPE__BODY_BYE:
    case BLIPLINE__ENVELOPE__BODY_SHUTDOWN:
    case BLIPLINE__ENVELOPE__BODY_MODEL_OFFER:
    case BLIPLINE__ENVELOPE__BODY_MODEL_LIST:
    case BLIPLINE__ENVELOPE__BODY_MODEL_LISTED:
        return 0;
    default:
        return err_set(err, -EBADMSG, "unknown or missing message type");
    }
}

static int body_from_pb(const Blipline__Envelope *e, struct msg *m, struct err *err)
{
    switch (e->body_case) {
    case BLIPLINE__ENVELOPE__BODY_HELLO:
        return hello_from_pb(e->hello, &m->hello, err);
    case BLIPLINE__ENVELOPE__BODY_REFUSE:
        return refuse_from_pb(e->refuse, &m->refuse, err);
    case BLIPLINE__ENVELOPE__BODY_WORK:
        return work_from_pb(e->work, &m->work, err);
    case BLIPLINE__ENVELOPE__BODY_RESULT:
        return result_from_pb(e->result, &m->result, err);
    case BLIPLINE__ENVELOPE__BODY_FAILURE:
        return failure_from_pb(e->failure, &m->failure, err);
    case BLIPLINE__ENVELOPE__BODY_RETURN_LEASE:
        return return_from_pb(e->return_lease, &m->return_lease, err);
    case BLIPLINE__ENVELOPE__BODY_HEARTBEAT:
        return heartbeat_from_pb(e->heartbeat, &m->heartbeat, err);
    case BLIPLINE__ENVELOPE__BODY_JOB_OPEN:
        return job_open_from_pb(e->job_open, &m->job_open, err);
    case BLIPLINE__ENVELOPE__BODY_JOB_PROGRESS:
        return msg_progress_from_pb(e->job_progress, &m->job_progress, err);
    case BLIPLINE__ENVELOPE__BODY_MODEL_WANT:
        return msg_fingerprint_from_pb(&e->model_want->model, &m->model_ref.model, err);
    case BLIPLINE__ENVELOPE__BODY_MODEL_FILES:
        return msg_fingerprint_from_pb(&e->model_files->model, &m->model_ref.model, err);
    case BLIPLINE__ENVELOPE__BODY_MODEL_GET:
        return msg_fingerprint_from_pb(&e->model_get->model, &m->model_ref.model, err);
    case BLIPLINE__ENVELOPE__BODY_FLEET_QUERY:
        msg_fleet_query_from_pb(e->fleet_query, &m->fleet_query);
        return 0;
    case BLIPLINE__ENVELOPE__BODY_FLEET:
        msg_fleet_from_pb(e->fleet, &m->fleet);
        return 0;
    case BLIPLINE__ENVELOPE__BODY_STORE_READ:
        return msg_store_read_from_pb(e->store_read, &m->store_read, err);
    case BLIPLINE__ENVELOPE__BODY_STORE_ROWS:
        return msg_store_rows_from_pb(e->store_rows, &m->store_rows, err);
    default:
        return plain_body_from_pb(e, m, err);
    }
}

static int tensor_from_pb(const Blipline__Tensor *from, struct msg_tensor *to, struct err *err)
{
    if (from->n_shape > MSG_MAX_DIMS)
        return err_set(err, -EMSGSIZE, "tensor: %zu dimensions, the limit is %d", from->n_shape, MSG_MAX_DIMS);
    if (from->inline_data.len > MSG_MAX_INLINE_BYTES)
        return err_set(err, -EMSGSIZE, "tensor: %zu bytes inline, the limit is %d", from->inline_data.len,
                       MSG_MAX_INLINE_BYTES);
    to->dtype = (enum dtype)from->dtype;
    to->n_dims = (uint32_t)from->n_shape;
    for (size_t i = 0; i < from->n_shape; i++)
        to->shape[i] = from->shape[i];
    to->transport = (enum msg_transport)from->transport;
    to->xxh3 = from->xxh3;
    to->n_frames = from->n_frames;
    to->inline_data = from->inline_data.data; /* still in the budget: keep_variable_parts() copies */
    to->inline_bytes = (uint32_t)from->inline_data.len;
    return 0;
}

/* Copy lease ids and inline tensors from the budget to one block that the message owns. */
static int keep_variable_parts(struct msg *m)
{
    const uint64_t **ids = NULL;
    size_t n_ids = 0, n;
    uint8_t *at;

    if (m->type == MSG_HEARTBEAT) {
        ids = &m->heartbeat.lease_ids;
        n_ids = m->heartbeat.n_lease_ids * sizeof(**ids);
    } else if (m->type == MSG_HELLO) {
        ids = &m->hello.lease_ids;
        n_ids = m->hello.n_lease_ids * sizeof(**ids);
    }
    n = n_ids;
    for (uint32_t i = 0; i < m->n_tensors; i++)
        n += (m->tensors[i].inline_bytes + 15U) & ~15U;
    at = NULL; /* empty parts must not point into the budget */
    if (n) {
        at = m->memory = malloc(n);
        if (!at)
            return -ENOMEM;
    }
    if (n_ids && at)
        memcpy(at, *ids, n_ids);
    if (ids)
        *ids = (const uint64_t *)(const void *)at;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        struct msg_tensor *t = &m->tensors[i];

        if (t->inline_bytes == 0 || !at) {
            t->inline_data = NULL;
            continue;
        }
        memcpy(at, t->inline_data, t->inline_bytes);
        t->inline_data = at;
        at += (t->inline_bytes + 15U) & ~15U;
    }
    return 0;
}

static int envelope_from_pb(const Blipline__Envelope *e, struct msg *m, struct err *err)
{
    int rc;

    if (e->n_tensors > MSG_MAX_TENSORS)
        return err_set(err, -EMSGSIZE, "%zu tensors, the limit is %d", e->n_tensors, MSG_MAX_TENSORS);
    msg_init(m, (enum msg_type)e->body_case);
    m->version = e->version;
    m->seq = e->seq;
    m->n_row_frames = e->n_row_frames;
    m->n_rows = e->n_rows;
    m->n_tensors = (uint32_t)e->n_tensors;
    for (size_t i = 0; i < e->n_tensors; i++)
        if ((rc = tensor_from_pb(e->tensors[i], &m->tensors[i], err)) < 0)
            return rc;
    if (m->version == 0)
        return err_set(err, -EBADMSG, "envelope without a version");
    /* the body may differ in another version: check this first */
    if (m->version != MSG_VERSION && m->type != MSG_HELLO && m->type != MSG_REFUSE)
        return err_set(err, -EPROTONOSUPPORT, "protocol version %u, this program speaks version %d", m->version,
                       MSG_VERSION);
    if ((rc = body_from_pb(e, m, err)) < 0 || (rc = msg_check(m, err)) < 0)
        return rc;
    return keep_variable_parts(m);
}

int msg_unpack(const void *data, size_t n_bytes, struct msg *ret, struct err *err)
{
    _Alignas(16) uint8_t slab[16 * 1024];
    struct budget budget;
    Blipline__Envelope *e;
    struct msg m;
    int rc;

    if (n_bytes > MSG_MAX_BYTES)
        return err_set(err, -EMSGSIZE, "envelope of %zu bytes, the limit is %d", n_bytes, MSG_MAX_BYTES);
    budget_init(&budget, slab, sizeof(slab), UNPACK_BUDGET_BYTES);
    e = blipline__envelope__unpack(&budget.allocator, n_bytes, data);
    if (!e) {
        rc = budget.exhausted ? err_set(err, -EMSGSIZE, "envelope unpacks to more than 1 MiB")
                              : err_set(err, -EBADMSG, "not an envelope (%zu bytes)", n_bytes);
        budget_release(&budget);
        return rc;
    }
    rc = envelope_from_pb(e, &m, err);
    budget_release(&budget);
    if (rc == 0)
        *ret = m;
    return rc;
}
