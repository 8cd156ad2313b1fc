#include "broker/messages.h"

#include "broker/broker.h"
#include "broker/progress.h"
#include "broker/results.h"

#include "base/log.h"
#include "proto/rights.h"
#include "proto/row.h"
#include "wire/message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_BAD_MESSAGES = 3 };

static struct core_lease_ref ref_of(uint64_t peer, const struct msg_lease *lease)
{
    return (struct core_lease_ref){.peer = peer, .epoch = lease->epoch, .lease = lease->id};
}

/* -- workers -- */

static bool refuse_if_too_many(struct broker *b, const struct peer *p, const struct msg *m)
{
    const bool workers = m->hello.role == MSG_ROLE_WORKER;
    const size_t limit = (size_t)(workers ? b->conf->max_workers : b->conf->max_clients);
    const size_t limit_of_one = (size_t)b->conf->max_connections;

    if (peers_count(&b->peers, workers, NULL, p) >= limit)
        answer_refuse(&b->answers, p->number, m->seq, MSG_REASON_LIMIT,
                      "%zu %s are connected, and no more may be (%s of the broker's configuration)", limit,
                      workers ? "workers" : "clients", workers ? "max_workers" : "max_clients");
    else if (!workers && peers_count(&b->peers, workers, p->name, p) >= limit_of_one)
        answer_refuse(&b->answers, p->number, m->seq, MSG_REASON_LIMIT,
                      "%s has %zu connections, and no more may be (max_connections of the broker's configuration)",
                      p->name, limit_of_one);
    else
        return false;
    return true;
}

static void on_hello(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);
    const struct msg_hello *h = &m->hello;
    struct core_event event = {.type = CORE_EVENT_HELLO,
                               .hello = {.peer = p->number,
                                         .host = XXH3_64bits(h->host, strlen(h->host)),
                                         .nonce = h->boot_nonce,
                                         .stage = h->stage,
                                         .window_items = h->window_items,
                                         .window_bytes = h->window_bytes,
                                         .epoch = h->epoch,
                                         .leases = h->lease_ids,
                                         .n_leases = h->n_lease_ids}};

    if (h->min_version > MSG_VERSION || h->max_version < MSG_VERSION) {
        answer_refuse(&b->answers, p->number, m->seq, MSG_REASON_VERSION,
                      "this broker speaks version %d, you speak %u to %u", MSG_VERSION, h->min_version, h->max_version);
        return;
    }
    if (p->entitled != MSG_ROLE_ADMIN && p->entitled != h->role) {
        answer_refuse(&b->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                      "the key of %s is that of a %s; it may not connect as a %s", p->name, msg_role_name(p->entitled),
                      msg_role_name(h->role));
        return;
    }
    if (refuse_if_too_many(b, p, m))
        return;
    broker_socket_admit(b->answers.socket, p->number, h->role == MSG_ROLE_WORKER ? 0 : (uint64_t)b->conf->client_bytes);
    p->role = h->role == MSG_ROLE_WORKER ? h->role : p->entitled;
    p->stage = h->stage;
    p->dtype = h->dtype;
    p->fingerprint = h->fingerprint;
    memcpy(p->model, h->model, sizeof(p->model));
    memcpy(p->host, h->host, sizeof(p->host));
    memcpy(p->device, h->device, sizeof(p->device));
    p->hello_pid = h->pid;
    if (h->role == MSG_ROLE_WORKER) {
        p->pid = lost_pid(h);
        event.hello.fingerprint = h->fingerprint;
        log_info("event=worker_hello peer=%llu key=%s stage=%s host=%s pid=%u device=%s dtype=%s model=%s",
                 (unsigned long long)p->number, p->name, stage_name(h->stage), h->host, h->pid, h->device,
                 dtype_word(h->dtype), h->model);
        driver_feed(&b->driver, &event);
        return;
    }
    answer_welcome(&b->answers, p->number, m->seq);
}

static void on_credit(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg_credit *c = &wire_message_envelope(*message)->credit;

    (void)driver_feed(&b->driver, &(struct core_event){.type = CORE_EVENT_CREDIT,
                                                       .credit = {.peer = p->number,
                                                                  .window_items = c->window_items,
                                                                  .window_bytes = c->window_bytes}});
}

static void on_heartbeat(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg_heartbeat *h = &wire_message_envelope(*message)->heartbeat;
    const uint64_t number = p->number;
    struct msg answer;

    driver_feed(
        &b->driver,
        &(struct core_event){
            .type = CORE_EVENT_HEARTBEAT,
            .heartbeat = {
                .peer = number, .epoch = h->epoch, .leases = h->lease_ids, .n = h->n_lease_ids, .items = h->n_items}});
    if (!peers_find(&b->peers, number))
        return; /* the core did not know it any more */
    msg_init(&answer, MSG_HEARTBEAT);
    answer.heartbeat.epoch = b->answers.epoch;
    answer_send(&b->answers, number, &answer);
}

static void on_failure(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg_failure *f = &wire_message_envelope(*message)->failure;
    struct core_event event = {.type = CORE_EVENT_FAILURE,
                               .failure = {.lease = ref_of(p->number, &f->lease), .code = f->code, .text = f->text}};

    if (strcmp(f->code, "bad_tensor") == 0)
        event.failure.refused = results_refused_inputs(b->driver.core, &b->payloads, &event.failure.lease);
    log_warn("event=unit_failed unit=%u node=%u peer=%llu code=%s msg=\"%s\"", f->lease.unit, f->lease.node,
             (unsigned long long)p->number, f->code, f->text);
    driver_feed(&b->driver, &event);
}

static void on_return(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg_return *r = &wire_message_envelope(*message)->return_lease;
    struct core_event event = {.type = CORE_EVENT_RETURN, .lease = ref_of(p->number, &r->lease)};

    if (r->unseen[0]) {
        broker_job_unseen(&b->jobs, p, &event.lease, r->unseen);
        event.type = CORE_EVENT_UNSEEN;
    }
    (void)driver_feed(&b->driver, &event);
}

static void forget(struct broker *b, uint64_t number)
{
    peers_forget(&b->peers, number);
    models_let_go(&b->models, number);
    broker_jobs_let_go(&b->jobs, number);
    readings_let_go(&b->readings, number);
}

static void on_bye(struct broker *b, struct peer *p, struct wire_message **message)
{
    const uint64_t number = p->number;

    (void)message;
    if (p->role == MSG_ROLE_WORKER)
        driver_feed(&b->driver, &(struct core_event){.type = CORE_EVENT_GONE, .gone = {.peer = number, .clean = true}});
    forget(b, number);
}

static void on_result(struct broker *b, struct peer *p, struct wire_message **message)
{
    results_take(&b->jobs, &b->payloads, p->number, *message);
}

static void note_bad(struct peer *p)
{
    p->drop |= ++p->n_bad >= MAX_BAD_MESSAGES;
}

/* A refusal would make the worker connect again. */
static void on_model(struct broker *b, struct peer *p, struct wire_message **message)
{
    struct err err = {""};
    int rc = wire_message_envelope(*message)->type == MSG_MODEL_OFFER ? models_offer(&b->models, p, *message, &err)
                                                                      : models_files(&b->models, p, *message, &err);

    if (rc == 0)
        return;
    b->answers.n_bad_messages++;
    log_warn("event=bad_model peer=%llu msg=\"%s\"", (unsigned long long)p->number, err.text);
    note_bad(p);
}

/* -- clients -- */

static void on_job_open(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_open(&b->jobs, p->number, wire_message_envelope(*message));
}

static void on_job_rows(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_rows(&b->jobs, p->number, *message);
}

static void on_job_find(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_find_rows(&b->jobs, p->number, *message);
}

static void on_job_seal(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_seal(&b->jobs, p->number, wire_message_envelope(*message));
}

static void on_job_query(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);
    const struct broker_job *job = broker_job_or_refuse(&b->jobs, p->number, m);

    if (job)
        progress_answer(&b->jobs, job, p->number, m->seq);
}

static void on_job_list(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_jobs_list(&b->jobs, p, wire_message_envelope(*message));
}

static void on_job_control(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_control(&b->jobs, p, wire_message_envelope(*message));
}

static void on_model_list(struct broker *b, struct peer *p, struct wire_message **message)
{
    models_answer_list(&b->models, p, wire_message_envelope(*message));
}

static void on_model_get(struct broker *b, struct peer *p, struct wire_message **message)
{
    models_answer_get(&b->models, p, wire_message_envelope(*message));
}

static void on_fleet_query(struct broker *b, struct peer *p, struct wire_message **message)
{
    fleet_answer(&b->fleet, p, wire_message_envelope(*message));
}

static void on_store_read(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_read(&b->jobs, &b->readings, p, wire_message_envelope(*message));
}

static void on_job_close(struct broker *b, struct peer *p, struct wire_message **message)
{
    broker_job_close(&b->jobs, p->number, wire_message_envelope(*message));
}

static void on_job_stop(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);
    const struct broker_job *job = broker_job_or_refuse(&b->jobs, p->number, m);

    if (!job)
        return;
    driver_feed(&b->driver, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = job->id});
    progress_answer(&b->jobs, job, p->number, m->seq);
}

void messages_begin_shutdown(struct broker *b)
{
    if (b->jobs.shutting_down)
        return;
    log_info("event=draining");
    b->jobs.shutting_down = true;
    (void)driver_feed(&b->driver, &(struct core_event){.type = CORE_EVENT_SHUTDOWN});
}

static void on_shutdown(struct broker *b, struct peer *p, struct wire_message **message)
{
    const uint64_t seq = wire_message_envelope(*message)->seq;
    struct msg answer;

    msg_init(&answer, MSG_BYE);
    answer.seq = seq;
    answer_send(&b->answers, p->number, &answer);
    messages_begin_shutdown(b);
}

/* -- dispatch -- */

static void (*const handlers[])(struct broker *, struct peer *, struct wire_message **) = {
    [MSG_HELLO] = on_hello,
    [MSG_CREDIT] = on_credit,
    [MSG_RESULT] = on_result,
    [MSG_FAILURE] = on_failure,
    [MSG_RETURN] = on_return,
    [MSG_HEARTBEAT] = on_heartbeat,
    [MSG_BYE] = on_bye,
    [MSG_JOB_OPEN] = on_job_open,
    [MSG_JOB_ROWS] = on_job_rows,
    [MSG_JOB_AGAIN] = on_job_rows,
    [MSG_JOB_PUSH] = on_job_rows,
    [MSG_JOB_SEAL] = on_job_seal,
    [MSG_JOB_QUERY] = on_job_query,
    [MSG_JOB_STOP] = on_job_stop,
    [MSG_JOB_CLOSE] = on_job_close,
    [MSG_SHUTDOWN] = on_shutdown,
    [MSG_JOB_FIND] = on_job_find,
    [MSG_JOB_LIST] = on_job_list,
    [MSG_JOB_CONTROL] = on_job_control,
    [MSG_FLEET_QUERY] = on_fleet_query,
    [MSG_STORE_READ] = on_store_read,
    [MSG_MODEL_OFFER] = on_model,
    [MSG_MODEL_FILES] = on_model,
    [MSG_MODEL_LIST] = on_model_list,
    [MSG_MODEL_GET] = on_model_get,
};

static void on_gone(struct broker *b, uint64_t number)
{
    const struct peer *p = peers_find(&b->peers, number);
    const bool worker = p && p->role == MSG_ROLE_WORKER;
    const pid_t pid = p ? p->pid : 0;
    struct core_event gone = {.type = CORE_EVENT_GONE, .gone = {.peer = number}};

    if (worker)
        log_info("event=peer_gone peer=%llu stage=%s", (unsigned long long)number, stage_name(p->stage));
    forget(b, number);
    if (!worker)
        return;
    gone.gone.ended = lost_add(&b->lost, number, pid);
    (void)driver_feed(&b->driver, &gone); /* which may forget it again */
}

static void on_bad(struct broker *b, struct peer *p, const struct err *why, int code)
{
    b->answers.n_bad_messages++;
    answer_refuse(&b->answers, p->number, 0, code == -EPROTONOSUPPORT ? MSG_REASON_VERSION : MSG_REASON_BAD_MESSAGE,
                  "%s", why->text);
    note_bad(p);
    p->drop |= code == -E2BIG;
}

static void drop_if_due(struct broker *b, uint64_t number)
{
    const struct peer *p = peers_find(&b->peers, number);

    if (!p || !p->drop)
        return;
    log_warn("event=peer_dropped peer=%llu key=%s malformed=%u refused=%u msg=\"its connection is closed\"",
             (unsigned long long)number, p->name, p->n_bad, p->n_refused);
    broker_socket_drop(b->answers.socket, number);
    on_gone(b, number);
}

/* Rows have a limit of their own. */
static bool refuse_if_too_busy(struct broker *b, const struct peer *p, const struct msg *m)
{
    const bool is_request = m->type != MSG_BYE && m->type != MSG_JOB_ROWS && m->type != MSG_JOB_AGAIN;

    if (!is_request || p->role == MSG_ROLE_WORKER || p->n_asked < (uint64_t)b->conf->client_requests)
        return false;
    answer_refuse(&b->answers, p->number, m->seq, MSG_REASON_LIMIT,
                  "%u requests wait for their answers, and no more may (client_requests of the broker's configuration)",
                  p->n_asked);
    return true;
}

static void on_message(struct broker *b, struct peer *p, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);
    const bool known = (size_t)m->type < sizeof(handlers) / sizeof(handlers[0]) && handlers[m->type];

    if (!p->role && m->type != MSG_HELLO && m->type != MSG_BYE) {
        log_debug("event=stranger peer=%llu type=%s msg=\"ignored until it says HELLO\"", (unsigned long long)p->number,
                  msg_type_name(m->type));
        return; /* silence makes a worker connect again */
    }
    if (!known || (p->role && msg_right(p->role, m->type) == MSG_RIGHT_NONE)) {
        answer_refuse(&b->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED, "this role may not send %s",
                      msg_type_name(m->type));
        return;
    }
    if (!refuse_if_too_busy(b, p, m))
        handlers[m->type](b, p, message);
}

static void note_sender(struct peer *p, const struct broker_socket_event *event)
{
    p->entitled = event->role;
    (void)snprintf(p->name, sizeof(p->name), "%s", event->name);
}

/* Anybody on the network can cause these: they may not fill the log. */
static void on_denied(struct broker *b, const struct zap_denial *denial)
{
    enum { MAX_LINES = 10, LINES_MS = 10000 };

    if (b->driver.now_ms >= b->denied_at_ms + LINES_MS) {
        b->denied_at_ms = b->driver.now_ms;
        b->n_denied = 0;
    }
    if (++b->n_denied <= MAX_LINES)
        log_warn("event=key_denied address=%s key=\"%s\" msg=\"the key is not in the allow-list%s\"", denial->address,
                 denial->key, b->n_denied == MAX_LINES ? "; those that follow within 10 s are only counted" : "");
}

void messages_handle(struct broker *b, struct broker_socket_event *event)
{
    struct peer *p;

    if (event->type == BROKER_SOCKET_GONE) {
        on_gone(b, event->peer);
        return;
    }
    if (event->type == BROKER_SOCKET_DENIED) {
        on_denied(b, &event->denial);
        return;
    }
    p = peers_require(&b->peers, event->peer);
    if (p)
        note_sender(p, event);
    if (!p)
        driver_fail(&b->driver, -ENOMEM, "no memory for peers");
    else if (event->type == BROKER_SOCKET_BAD)
        on_bad(b, p, &event->why, event->why_code);
    else
        on_message(b, p, &event->message);
    if (event->type == BROKER_SOCKET_MESSAGE)
        wire_message_free(event->message);
    drop_if_due(b, event->peer);
}
