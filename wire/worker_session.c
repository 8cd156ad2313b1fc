#include "wire/worker_session.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "wire/context.h"
#include "wire/endpoint.h"
#include "wire/worker_private.h"

enum { INBOX = 8192, OUTBOX = 16384, STATES = 64 };

/* -- start and stop */

static int check_conf(const struct worker_session_conf *c, struct err *err)
{
    static const struct wire_keys none;
    int rc = wire_endpoint_check_connect(c->endpoint, c->keys ? c->keys : &none, err);

    if (rc < 0)
        return rc;
    if (!wire_context())
        return err_set(err, -EINVAL, "wire_init was not called");
    if (c->stage < STAGE_ENCODE || c->stage > STAGE_LLM ||
        (dtype_size_bytes(c->dtype) == 0 && c->dtype != DTYPE_F8_E4M3)) /* which no tensor is of */
        return err_set(err, -EINVAL, "the stage or the dtype is unknown");
    if (c->window_items == 0 || c->window_items > MSG_MAX_ROWS)
        return err_set(err, -EINVAL, "a window of %u items, not 1 to %d", c->window_items, MSG_MAX_ROWS);
    if (strlen(c->endpoint) >= sizeof(((struct worker_session *)0)->endpoint))
        return err_set(err, -ENAMETOOLONG, "endpoint: too long");
    return 0;
}

static void copy_conf(struct worker_session *s, const struct worker_session_conf *conf)
{
    s->conf = *conf;
    s->conf.keys = NULL; /* copied below */
    if (conf->keys)
        s->keys = *conf->keys;
    (void)msg_text_set(s->endpoint, sizeof(s->endpoint), conf->endpoint);
    (void)msg_text_set(s->device, sizeof(s->device), conf->device && conf->device[0] ? conf->device : "cpu");
    (void)msg_text_set(s->model, sizeof(s->model), conf->model ? conf->model : "");
    if (conf->offer && msg_text_set(s->folder, sizeof(s->folder), conf->folder))
        s->offer = *conf->offer;
    s->conf.offer = NULL;
    s->conf.folder = NULL;
    if (gethostname(s->host, sizeof(s->host)) < 0)
        s->host[0] = '\0';
    s->host[sizeof(s->host) - 1] = '\0';
    if (s->offer.n_stages)
        memcpy(s->offer.stages[0].host, s->host, sizeof(s->host));
    s->conf.endpoint = s->endpoint;
    s->conf.device = s->device;
    s->conf.model = s->model;
    s->conf.retry_min_ms = conf->retry_min_ms ? conf->retry_min_ms : 100;
    s->conf.retry_max_ms = conf->retry_max_ms ? conf->retry_max_ms : 5000;
    randombytes_buf(&s->boot_nonce, sizeof(s->boot_nonce));
    s->last.state = WORKER_SESSION_CONNECTING;
}

static void session_free(struct worker_session *s)
{
    mailbox_free(s->inbox, NULL);
    mailbox_free(s->outbox, NULL);
    mailbox_free(s->states, free);
    wire_keys_wipe(&s->keys);
    free(s);
}

int worker_session_start(const struct worker_session_conf *conf, struct worker_session **ret, struct err *err)
{
    struct worker_session *s;
    int rc = check_conf(conf, err);

    if (rc < 0)
        return rc;
    if (sodium_init() < 0)
        return err_set(err, -EIO, "no random numbers on this machine");
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "no memory for a session");
    copy_conf(s, conf);
    if ((rc = mailbox_new(INBOX, &s->inbox)) < 0 || (rc = mailbox_new(OUTBOX, &s->outbox)) < 0 ||
        (rc = mailbox_new(STATES, &s->states)) < 0 ||
        (rc = -pthread_create(&s->thread, NULL, worker_link_main, s)) < 0) {
        session_free(s);
        return err_set(err, rc, "cannot start the socket thread: %s", strerror(-rc));
    }
    *ret = s;
    return 0;
}

void worker_session_stop(struct worker_session **sp)
{
    struct worker_session *s = *sp;
    struct returned *r;
    struct held *h;
    void *message;

    if (!s)
        return;
    *sp = NULL;
    atomic_store(&s->stop, true);
    if (mailbox_post(s->outbox, s) < 0) {
        /* full, so the thread is awake */
    }
    (void)pthread_join(s->thread, NULL);
    while ((message = mailbox_take(s->outbox)))
        if (message != s)
            returned_free(message);
    while ((r = s->unsent)) {
        s->unsent = r->next;
        returned_free(r);
    }
    while ((h = s->held)) { /* those in the inbox and those still out are on this list too */
        s->held = h->next;
        held_free(h);
    }
    while (mailbox_take(s->inbox))
        ;
    session_free(s);
}

/* -- taking and giving back */

static struct held *held_of(const struct worker_work *w)
{
    return (struct held *)(uintptr_t)w;
}

bool worker_work_stale(const struct worker_work *w)
{
    return atomic_load(&held_of(w)->stale);
}

int worker_session_take(struct worker_session *s, int64_t timeout_ms, struct worker_work **ret)
{
    bool closed = atomic_load(&s->inbox_closed); /* before looking: closed and then empty stays empty */
    struct held *h = mailbox_take(s->inbox);

    if (!h && timeout_ms != 0) {
        atomic_fetch_add(&s->n_waiting, 1);
        h = mailbox_take_wait(s->inbox, timeout_ms);
        atomic_fetch_sub(&s->n_waiting, 1);
        closed = atomic_load(&s->inbox_closed);
    }
    if (!h)
        return closed ? -EPIPE : 0;
    atomic_fetch_add(&s->n_taken, 1);
    atomic_fetch_add(&s->progress, 1);
    *ret = &h->work;
    return 1;
}

/* `message` NULL: memory is out; the lease expires in its time. */
static int give_back(struct worker_session *s, struct worker_work **work, struct wire_message *message)
{
    struct returned *r = malloc(sizeof(*r));
    int rc = -ENOMEM;

    if (r) {
        *r = (struct returned){.held = held_of(*work), .message = message};
        rc = mailbox_post_wait(s->outbox, r, -1); /* the socket thread always takes */
    }
    if (rc < 0) {
        wire_message_free(message);
        free(r);
        rc = -ENOMEM; /* the held itself is freed with the session */
    } else if (!message) {
        rc = -ENOMEM;
    }
    *work = NULL;
    atomic_fetch_sub(&s->n_taken, 1);
    atomic_fetch_add(&s->progress, 1);
    return rc;
}

static struct wire_message *failure_message(const struct msg_lease *lease, const char *code, const char *text)
{
    struct wire_message *m;
    struct msg_failure *f;

    if (wire_message_new(MSG_FAILURE, &m) < 0)
        return NULL;
    f = &wire_message_envelope(m)->failure;
    f->lease = *lease;
    (void)msg_text_set(f->code, sizeof(f->code), code);
    (void)msg_text_set(f->text, sizeof(f->text), text ? text : "");
    return m;
}

int worker_session_failure(struct worker_session *s, struct worker_work **work, const char *code, const char *text)
{
    return give_back(s, work, failure_message(&(*work)->lease, code, text));
}

int worker_session_return(struct worker_session *s, struct worker_work **work, const char *unseen)
{
    struct wire_message *m = NULL;

    if (wire_message_new(MSG_RETURN, &m) == 0) {
        struct msg_return *body = &wire_message_envelope(m)->return_lease;

        body->lease = (*work)->lease;
        (void)msg_text_set(body->unseen, sizeof(body->unseen), unseen ? unseen : "");
    }
    return give_back(s, work, m);
}

static int fill_result(struct wire_message *m, const struct worker_work *work, struct worker_result *result,
                       struct err *err)
{
    struct msg_result *body = &wire_message_envelope(m)->result;
    int rc;

    body->lease = work->lease;
    body->timing = result->timing;
    if (result->n_rows != work->n_items)
        return err_set(err, -EINVAL, "a result of %u rows for %u items", result->n_rows, work->n_items);
    rc = wire_message_add_rows(m, &result->rows, result->n_rows);
    if (rc < 0)
        return err_set(err, rc, "%zu bytes of rows do not fit a message of %d frames: choose a smaller --unit",
                       result->rows.size_bytes, MSG_MAX_ROW_FRAMES);
    for (uint32_t i = 0; i < result->n_tensors; i++) {
        rc = wire_message_add_tensor(m, result->tensors[i]);
        if (rc < 0)
            return err_set(err, rc, "the result's tensors do not fit");
    }
    return 0;
}

int worker_session_result(struct worker_session *s, struct worker_work **work, struct worker_result *result,
                          struct err *err)
{
    struct wire_message *m = NULL;
    struct err why;
    int rc = wire_message_new(MSG_RESULT, &m), rc_back;

    if (rc == 0)
        rc = fill_result(m, *work, result, &why);
    else
        rc = err_set(&why, rc, "no memory for a result");
    if (rc < 0) {
        wire_message_free(m);
        m = failure_message(&(*work)->lease, "bad_result", why.text);
        (void)err_set(err, rc, "%s", why.text);
    }
    for (uint32_t i = 0; i < result->n_tensors; i++) {
        wire_tensor_free(result->tensors[i]);
        result->tensors[i] = NULL;
    }
    result->n_tensors = 0;
    buf_release(&result->rows);
    rc_back = give_back(s, work, m);
    if (rc == 0 && rc_back < 0)
        return err_set(err, rc_back, "no memory for a result");
    return rc;
}

/* -- signs of life, state */

void worker_session_progress(struct worker_session *s)
{
    atomic_fetch_add_explicit(&s->progress, 1, memory_order_relaxed);
}

void worker_session_count(struct worker_session *s, uint64_t n_items)
{
    atomic_fetch_add_explicit(&s->items, n_items, memory_order_relaxed);
}

void worker_session_drain(struct worker_session *s)
{
    atomic_store(&s->drain, true);
    if (mailbox_post(s->outbox, s) < 0) {
        /* full, so the thread is awake */
    }
}

static void look(struct worker_session *s, struct worker_session_status *newest)
{
    while (newest) {
        s->last = *newest;
        free(newest);
        newest = mailbox_take(s->states);
    }
}

void worker_session_status(struct worker_session *s, struct worker_session_status *ret)
{
    look(s, mailbox_take(s->states));
    *ret = s->last;
    ret->n_held = atomic_load(&s->n_held);
}

int worker_session_wait(struct worker_session *s, int64_t timeout_ms)
{
    int64_t until = clock_mono_ms() + timeout_ms, left;

    for (;;) {
        look(s, mailbox_take(s->states));
        if (s->last.state == WORKER_SESSION_DRAINED || s->last.state == WORKER_SESSION_REFUSED)
            return 0;
        left = timeout_ms < 0 ? -1 : until - clock_mono_ms();
        if (timeout_ms >= 0 && left <= 0)
            return -ETIMEDOUT;
        look(s, mailbox_take_wait(s->states, left));
    }
}
