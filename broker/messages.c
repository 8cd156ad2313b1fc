/* messages.c - what peers say becomes core events or job requests. Nothing a peer sends can end the broker. */
#include "broker/shell.h"

#include "base/log.h"
#include "proto/row.h"
#include "wire/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_BAD_MESSAGES = 3 };

static struct broker_peer *peer_of(struct broker *b, uint64_t number)
{
    struct broker_peer *p = core_map_get(&b->peers, number);

    if (p)
        return p;
    p = calloc(1, sizeof(*p));
    if (!p || core_map_put(&b->peers, number, p) < 0) {
        free(p);
        return NULL;
    }
    p->number = number;
    return p;
}

void broker_forget_peer(struct broker *b, uint64_t number)
{
    free(core_map_take(&b->peers, number));
}

static struct core_lease_ref ref_of(uint64_t peer, const struct msg_lease *lease)
{
    return (struct core_lease_ref){.peer = peer, .epoch = lease->epoch, .lease = lease->id};
}

/* -- workers -- */

static void on_hello(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);
    const struct msg_hello *h = &m->hello;
    struct core_event event = {.type = CORE_EVENT_HELLO,
                               .hello = {.peer = p->number,
                                         .host = XXH3_64bits(h->host, strlen(h->host)),
                                         .nonce = h->boot_nonce,
                                         .stage = h->stage,
                                         .window_items = h->window_items,
                                         .window_bytes = h->window_bytes}};

    if (h->min_version > MSG_VERSION || h->max_version < MSG_VERSION) {
        broker_refuse(b, p->number, m->seq, MSG_REASON_VERSION, "this broker speaks version %d, you speak %u to %u",
                      MSG_VERSION, h->min_version, h->max_version);
        return;
    }
    p->role = h->role;
    p->stage = h->stage;
    if (h->role == MSG_ROLE_WORKER) {
        memcpy(event.hello.fingerprint, h->fingerprint.bytes, sizeof(event.hello.fingerprint));
        log_info("event=worker_hello peer=%llu stage=%s host=%s pid=%u device=%s model=%s",
                 (unsigned long long)p->number, msg_stage_name(h->stage), h->host, h->pid, h->device, h->model);
        broker_feed(b, &event);
        return;
    }
    broker_welcome(b, p->number, m->seq);
}

static void on_credit(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const struct msg_credit *c = &wire_message_envelope(*message)->credit;

    broker_feed(b,
                &(struct core_event){
                    .type = CORE_EVENT_CREDIT,
                    .credit = {.peer = p->number, .window_items = c->window_items, .window_bytes = c->window_bytes}});
}

static void on_heartbeat(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const struct msg_heartbeat *h = &wire_message_envelope(*message)->heartbeat;
    const uint64_t number = p->number;
    struct msg answer;

    broker_feed(b, &(struct core_event){
                       .type = CORE_EVENT_HEARTBEAT,
                       .heartbeat = {.peer = number, .epoch = h->epoch, .leases = h->lease_ids, .n = h->n_lease_ids}});
    if (!core_map_get(&b->peers, number))
        return; /* the core knew it no more */
    msg_init(&answer, MSG_HEARTBEAT);
    answer.heartbeat.epoch = b->epoch;
    broker_send(b, number, &answer);
}

static void on_failure(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const struct msg_failure *f = &wire_message_envelope(*message)->failure;

    log_warn("event=unit_failed unit=%u node=%u peer=%llu code=%s text=\"%s\"", f->lease.unit, f->lease.node,
             (unsigned long long)p->number, f->code, f->text);
    broker_feed(
        b, &(struct core_event){.type = CORE_EVENT_FAILURE,
                                .failure = {.lease = ref_of(p->number, &f->lease), .code = f->code, .text = f->text}});
}

static void on_return(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    broker_feed(b,
                &(struct core_event){.type = CORE_EVENT_RETURN,
                                     .lease = ref_of(p->number, &wire_message_envelope(*message)->return_lease.lease)});
}

static void on_bye(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const uint64_t number = p->number;

    (void)message;
    if (p->role == MSG_ROLE_WORKER)
        broker_feed(b, &(struct core_event){.type = CORE_EVENT_GONE, .gone = {.peer = number, .clean = true}});
    broker_forget_peer(b, number);
}

/* -- RESULT: check rows and tensor against the lease before the core hears of it -- */

struct row_check {
    uint64_t ok[CORE_MASK_WORDS];
    uint32_t n_rows, n_ok;
    bool keep;
};

static int check_rows(const struct wire_message *message, const struct core_lease_info *lease, uint64_t first_item,
                      struct row_check *ret, struct err *err)
{
    struct row_record record;
    struct row_cursor cursor;
    uint32_t bit = 0;
    int rc;

    wire_message_rows(message, &cursor);
    while ((rc = row_cursor_next_record(&cursor, &record, err)) == 1) {
        while (bit < lease->count && !broker_bit(lease->items, bit))
            bit++;
        if (bit == lease->count || record.item != first_item + lease->first + bit) {
            rc = err_set(err, -EBADMSG, "row %u is of item %llu, which is not its place", ret->n_rows,
                         (unsigned long long)record.item);
            break;
        }
        if (!record.failed) {
            ret->ok[ret->n_rows / 64] |= UINT64_C(1) << (ret->n_rows % 64);
            ret->n_ok++;
        }
        ret->keep |= record.failed || record.n_captions > 0;
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

static int check_result(struct broker *b, const struct wire_message *message, const struct core_lease_info *lease,
                        struct row_check *ret, struct err *err)
{
    const struct broker_job *job = broker_job_find(b, lease->job);
    const uint64_t first = (uint64_t)(uintptr_t)core_map_get(&job->unit_first, (uint64_t)lease->unit + 1);
    int rc = check_rows(message, lease, first - 1, ret, err);

    return rc < 0 ? rc : check_tensor(message, &job->open.nodes[lease->node], ret, err);
}

static void note_timing(struct broker *b, const struct core_lease_info *lease, const struct msg_timing *t)
{
    struct msg_timing *total = &broker_job_find(b, lease->job)->totals[lease->node];

    total->compute_ns += t->compute_ns;
    total->decode_ns += t->decode_ns;
    total->resize_ns += t->resize_ns;
    total->wait_ns += t->wait_ns;
}

static void on_result(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const struct msg_result result = wire_message_envelope(*message)->result;
    struct core_event event = {.type = CORE_EVENT_RESULT, .result = {.lease = ref_of(p->number, &result.lease)}};
    struct row_check check = {{0}, 0, 0, false};
    struct core_lease_info lease;
    struct err err = {""};

    if (core_lease_get(b->core, &event.result.lease, &lease) == 0) {
        if (check_result(b, *message, &lease, &check, &err) < 0) {
            log_warn("event=bad_result unit=%u peer=%llu reason=\"%s\" taken as a failure", lease.unit,
                     (unsigned long long)p->number, err.text);
            broker_feed(b, &(struct core_event){
                               .type = CORE_EVENT_FAILURE,
                               .failure = {.lease = event.result.lease, .code = "bad_result", .text = err.text}});
            return;
        }
        note_timing(b, &lease, &result.timing);
    }
    event.result.payload = broker_payload_add(b, message); /* a stale one too: the core counts it and drops it */
    if (!event.result.payload) {
        broker_fail(b, -ENOMEM, "no memory for results");
        return;
    }
    event.result.n_rows = check.n_rows;
    event.result.ok = check.ok;
    event.result.keep_rows = check.keep;
    broker_feed(b, &event);
}

/* -- clients -- */

static void on_job_open(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    broker_job_open(b, p->number, wire_message_envelope(*message));
}

static void on_job_rows(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    broker_job_rows(b, p->number, *message);
}

static void on_job_seal(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    broker_job_seal(b, p->number, wire_message_envelope(*message));
}

static void on_job_query(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    broker_job_query(b, p->number, wire_message_envelope(*message));
}

static void on_job_stop(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    broker_job_stop(b, p->number, wire_message_envelope(*message));
}

static void on_shutdown(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    struct msg answer;

    msg_init(&answer, MSG_BYE);
    answer.seq = wire_message_envelope(*message)->seq;
    broker_send(b, p->number, &answer);
    broker_begin_shutdown(b);
}

/* -- dispatch -- */

static const struct {
    enum msg_role role; /* who may say it; 0: anyone */
    void (*handle)(struct broker *, struct broker_peer *, struct wire_message **);
} handlers[] = {
    [MSG_HELLO] = {0, on_hello},
    [MSG_CREDIT] = {MSG_ROLE_WORKER, on_credit},
    [MSG_RESULT] = {MSG_ROLE_WORKER, on_result},
    [MSG_FAILURE] = {MSG_ROLE_WORKER, on_failure},
    [MSG_RETURN] = {MSG_ROLE_WORKER, on_return},
    [MSG_HEARTBEAT] = {MSG_ROLE_WORKER, on_heartbeat},
    [MSG_BYE] = {0, on_bye},
    [MSG_JOB_OPEN] = {MSG_ROLE_CLIENT, on_job_open},
    [MSG_JOB_ROWS] = {MSG_ROLE_CLIENT, on_job_rows},
    [MSG_JOB_SEAL] = {MSG_ROLE_CLIENT, on_job_seal},
    [MSG_JOB_QUERY] = {MSG_ROLE_CLIENT, on_job_query},
    [MSG_JOB_STOP] = {MSG_ROLE_CLIENT, on_job_stop},
    [MSG_SHUTDOWN] = {MSG_ROLE_CLIENT, on_shutdown},
};

static void on_gone(struct broker *b, uint64_t number)
{
    const struct broker_peer *p = core_map_get(&b->peers, number);
    const bool worker = p && p->role == MSG_ROLE_WORKER;

    if (worker)
        log_info("event=peer_gone peer=%llu stage=%s", (unsigned long long)number, msg_stage_name(p->stage));
    broker_forget_peer(b, number);
    if (worker)
        broker_feed(b, &(struct core_event){.type = CORE_EVENT_GONE, .gone = {.peer = number}});
}

static void on_bad(struct broker *b, struct broker_peer *p, const struct err *why, int code)
{
    broker_refuse(b, p->number, 0, code == -EPROTONOSUPPORT ? MSG_REASON_VERSION : MSG_REASON_BAD_MESSAGE, "%s",
                  why->text);
    if (++p->n_bad < MAX_BAD_MESSAGES)
        return;
    broker_socket_drop(b->socket, p->number);
    on_gone(b, p->number);
}

static void on_message(struct broker *b, struct broker_peer *p, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);
    const bool known = (size_t)m->type < sizeof(handlers) / sizeof(handlers[0]) && handlers[m->type].handle;

    if (!p->role && m->type != MSG_HELLO && m->type != MSG_BYE) {
        log_debug("event=stranger peer=%llu type=%s ignored until it says HELLO", (unsigned long long)p->number,
                  msg_type_name(m->type));
        return; /* silence makes a worker connect again */
    }
    if (!known || (handlers[m->type].role && handlers[m->type].role != p->role)) {
        broker_refuse(b, p->number, m->seq, MSG_REASON_NOT_ALLOWED, "%s is not yours to say", msg_type_name(m->type));
        return;
    }
    handlers[m->type].handle(b, p, message);
}

void broker_handle(struct broker *b, struct broker_socket_event *event)
{
    struct broker_peer *p;

    if (event->type == BROKER_SOCKET_GONE) {
        on_gone(b, event->peer);
        return;
    }
    p = peer_of(b, event->peer);
    if (!p)
        broker_fail(b, -ENOMEM, "no memory for peers");
    else if (event->type == BROKER_SOCKET_BAD)
        on_bad(b, p, &event->why, event->why_code);
    else
        on_message(b, p, &event->message);
    if (event->type == BROKER_SOCKET_MESSAGE)
        wire_message_free(event->message);
}
