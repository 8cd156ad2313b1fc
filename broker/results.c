#include "broker/results.h"

#include "broker/jobs.h"
#include "broker/graph.h"

#include "base/log.h"
#include "broker/mask.h"
#include "proto/row.h"
#include "wire/message.h"

#include <errno.h>
#include <string.h>

struct row_check {
    uint64_t ok[CORE_MASK_WORDS];
    uint32_t n_rows, n_ok;
    bool keep;              /* there is something in them to keep */
    struct records records; /* then */
};

/* The row must have exactly the embeddings that the node makes, each once and as the recipe describes it. */
static int check_row_embeddings(const struct row_record *r, const struct msg_recipe *recipe, uint32_t tasks,
                                struct err *err)
{
    uint32_t have = 0;

    for (uint32_t i = 0; i < r->n_embeddings; i++) {
        const struct row_embedding *e = &r->embeddings[i];
        const struct msg_embedding_spec *spec = msg_recipe_embedding(recipe, e->kind);
        const char *name = msg_embedding_name(e->kind);

        if (!spec || !(tasks & msg_embedding_task(e->kind)))
            return err_set(err, -EBADMSG, "item %llu: embedding %s was not asked for", (unsigned long long)r->item,
                           name);
        if (have & msg_embedding_task(e->kind))
            return err_set(err, -EBADMSG, "item %llu: embedding %s twice", (unsigned long long)r->item, name);
        if (e->dtype != spec->dtype || (spec->first_row && e->rows != 1))
            return err_set(err, -EBADMSG, "item %llu: embedding %s of %u rows in %s, the recipe says %s%s",
                           (unsigned long long)r->item, name, e->rows, dtype_word(e->dtype), dtype_word(spec->dtype),
                           spec->first_row ? ", one row" : "");
        if (e->rows == 0 && e->kind != MSG_EMBEDDING_ITC_TEXT)
            return err_set(err, -EBADMSG, "item %llu: embedding %s without rows", (unsigned long long)r->item, name);
        have |= msg_embedding_task(e->kind);
    }
    if (!r->failed && have != (tasks & GRAPH_EMBEDDING_TASKS))
        return err_set(err, -EBADMSG, "item %llu: an embedding is missing", (unsigned long long)r->item);
    return 0;
}

static int check_rows(const struct wire_message *message, const struct core_lease_info *lease, struct broker_job *job,
                      uint64_t first_item, struct row_check *ret, struct err *err)
{
    struct row_record record;
    struct row_cursor cursor;
    uint32_t bit = 0;
    int rc;

    wire_message_rows(message, &cursor);
    while ((rc = row_cursor_next_record(&cursor, &record, err)) == 1) {
        while (bit < lease->count && !mask_has(lease->items, bit))
            bit++;
        if (bit == lease->count || record.item != first_item + lease->first + bit) {
            rc = err_set(err, -EBADMSG, "row %u is of item %llu: out of order", ret->n_rows,
                         (unsigned long long)record.item);
            break;
        }
        rc = check_row_embeddings(&record, &job->open.recipe, job->open.nodes[lease->node].tasks, err);
        if (rc < 0)
            break;
        if (!record.failed) {
            ret->ok[ret->n_rows / 64] |= UINT64_C(1) << (ret->n_rows % 64);
            ret->n_ok++;
        } else {
            failures_note(&job->failures, lease->unit, lease->first + bit, &record);
        }
        rc = records_add(&ret->records, &record);
        if (rc < 0) {
            (void)err_set(err, rc, "item %llu: cannot be kept: %s", (unsigned long long)record.item, strerror(-rc));
            break;
        }
        ret->keep |= record.failed || record.n_captions > 0 || record.n_embeddings > 0;
        ret->n_rows++;
        bit++;
    }
    row_cursor_release(&cursor);
    if (rc == 0 && ret->n_rows != lease->n_items)
        rc = err_set(err, -EBADMSG, "%u rows for %u items", ret->n_rows, lease->n_items);
    return rc < 0 ? rc : 0;
}

static int check_tensor(const struct wire_message *message, const struct msg_node *node, const struct row_check *rows,
                        struct err *err)
{
    const bool want = node->out_bytes > 0 && rows->n_ok > 0;
    const struct wire_tensor *t;

    if (wire_message_n_tensors(message) != (want ? 1U : 0U))
        return err_set(err, -EBADMSG, "%u tensors, %d wanted", wire_message_n_tensors(message), want);
    if (!want)
        return 0;
    t = wire_message_tensor(message, 0);
    if (wire_tensor_desc(t)->shape[0] != rows->n_ok)
        return err_set(err, -EBADMSG, "a tensor of %u rows for %u items", wire_tensor_desc(t)->shape[0], rows->n_ok);
    if (wire_tensor_size_bytes(t) > node->out_bytes * rows->n_ok)
        return err_set(err, -EMSGSIZE, "a tensor of %llu bytes, the job reserved %llu",
                       (unsigned long long)wire_tensor_size_bytes(t),
                       (unsigned long long)(node->out_bytes * rows->n_ok));
    return 0;
}

static int check_result(struct jobs *jobs, const struct wire_message *message, const struct core_lease_info *lease,
                        struct row_check *ret, struct err *err)
{
    struct broker_job *job = broker_job_find(jobs, lease->job);
    const struct unit_rows *unit = units_find(&job->units, lease->unit);
    int rc = unit ? check_rows(message, lease, job, unit->first_item, ret, err) : err_set(err, -EINVAL, "no such unit");

    return rc < 0 ? rc : check_tensor(message, &job->open.nodes[lease->node], ret, err);
}

static void note_timing(struct jobs *jobs, const struct core_lease_info *lease, const struct msg_timing *t)
{
    struct msg_timing *total = &broker_job_find(jobs, lease->job)->totals[lease->node];

    total->compute_ns += t->compute_ns;
    total->decode_ns += t->decode_ns;
    total->resize_ns += t->resize_ns;
    total->wait_ns += t->wait_ns;
}

uint32_t results_refused_inputs(const struct core *core, const struct payloads *payloads,
                                const struct core_lease_ref *ref)
{
    struct core_lease_info lease;
    uint32_t refused = 0;

    if (core_lease_get(core, ref, &lease) < 0)
        return 0;
    for (uint32_t k = 0; k < CORE_MAX_NODES; k++) {
        const struct payload *p = lease.inputs[k] ? payloads_find(payloads, lease.inputs[k]) : NULL;

        if (p && p->tensor && wire_tensor_verify(p->tensor, wire_tensor_desc(p->tensor)->dtype, NULL, 0, NULL) < 0)
            refused |= 1U << k;
    }
    return refused;
}

void results_take(struct jobs *jobs, struct payloads *payloads, uint64_t peer, struct wire_message *message)
{
    const struct msg_result result = wire_message_envelope(message)->result;
    struct core_event event = {
        .type = CORE_EVENT_RESULT,
        .result = {.lease = {.peer = peer, .epoch = result.lease.epoch, .lease = result.lease.id}}};
    struct row_check check = {.n_rows = 0};
    struct peer *worker = peers_find(jobs->peers, peer);
    struct wire_tensor *tensor = NULL;
    struct core_lease_info lease;
    struct err err = {""};

    if (core_lease_get(jobs->driver->core, &event.result.lease, &lease) == 0) {
        if (check_result(jobs, message, &lease, &check, &err) < 0) {
            log_warn("event=bad_result unit=%u peer=%llu msg=\"%s; counted as a failure\"", lease.unit,
                     (unsigned long long)peer, err.text);
            driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_FAILURE,
                                                           .failure = {.lease = event.result.lease,
                                                                       .code = "bad_result",
                                                                       .text = err.text,
                                                                       .bad_result = true}});
            records_release(&check.records);
            return;
        }
        note_timing(jobs, &lease, &result.timing);
        if (worker)
            worker->n_items += check.n_rows;
    }
    if (!check.keep)
        records_release(&check.records);
    if (wire_message_n_tensors(message) > 0)
        tensor = wire_message_take_tensor(message, 0);
    event.result.row_bytes = records_size_bytes(&check.records);
    /* also if the lease is stale: the core counts it and drops it */
    event.result.payload = payloads_add(payloads, tensor, &check.records);
    if (!event.result.payload) {
        wire_tensor_free(tensor);
        records_release(&check.records);
        driver_fail(jobs->driver, -ENOMEM, "no memory for results");
        return;
    }
    event.result.n_rows = check.n_rows;
    event.result.ok = check.ok;
    event.result.keep_rows = check.keep;
    driver_feed(jobs->driver, &event);
}
