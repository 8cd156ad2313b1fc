#include "wire/worker_private.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"

enum {
    MAX_HELD = 4096,
    TAKE_AT_ONCE = 64,
    GREETING_MS = 5000,
    CONNECTING_MS = 5000,
    LAST_WORDS_MS = 5000,
    ALIVE_MS = 1000
};

enum link_state {
    LINK_DOWN,     /* no socket; the next one at retry_at_ms */
    LINK_GREETING, /* HELLO is out or waits for the connection */
    LINK_UP,       /* WELCOME was heard */
    LINK_ENDED,    /* final */
};

/* State of the socket thread, on its stack. */
struct link {
    struct worker_session *s;
    struct dealer dealer;
    enum link_state state;
    struct worker_session_status status;
    bool hello_sent, draining, credit_withdrawn;
    unsigned n_failures; /* connections in a row that did not come to WELCOME */
    int64_t now_ms, retry_at_ms, greeting_until_ms, heartbeat_at_ms, heard_at_ms, last_words_until_ms;
    uint64_t epoch; /* of the last WELCOME; 0: none yet */
    uint32_t heartbeat_ms;
    int64_t silence_ms, alive_at_ms;
    uint64_t progress_seen, progress_alive; /* at the last heartbeat, at the last look of say_alive */
};

/* -- status for the main thread */

static void tell(struct link *l, enum worker_session_state state)
{
    struct worker_session_status *copy;

    l->status.state = state;
    l->status.epoch = l->epoch;
    copy = malloc(sizeof(*copy));
    if (!copy)
        return;
    *copy = l->status;
    while (mailbox_post(l->s->states, copy) < 0) /* nobody reads them: drop the oldest */
        free(mailbox_take(l->s->states));
}

static void close_inbox(struct link *l)
{
    atomic_store(&l->s->inbox_closed, true);
    mailbox_close(l->s->inbox);
}

static void end(struct link *l, enum worker_session_state state)
{
    close_inbox(l);
    dealer_close(&l->dealer);
    l->state = LINK_ENDED;
    tell(l, state);
}

/* -- connecting */

static void lose(struct link *l, const char *why)
{
    int64_t wait = l->s->conf.retry_min_ms;

    for (unsigned i = 0; i < l->n_failures && wait < l->s->conf.retry_max_ms; i++)
        wait *= 2;
    if (wait > l->s->conf.retry_max_ms)
        wait = l->s->conf.retry_max_ms;
    /* half fixed, half random: the workers of a cluster must not reconnect at the same moment */
    wait = wait / 2 + (int64_t)randombytes_uniform((uint32_t)(wait / 2 + 1));
    dealer_close(&l->dealer);
    l->n_failures++;
    l->state = LINK_DOWN;
    l->retry_at_ms = l->now_ms + wait;
    (void)msg_text_set(l->status.text, sizeof(l->status.text), why);
    if (!l->draining)
        tell(l, WORKER_SESSION_CONNECTING);
}

static void connect_again(struct link *l)
{
    struct err err;

    l->hello_sent = l->credit_withdrawn = false;
    l->state = LINK_GREETING;
    l->greeting_until_ms = l->now_ms + CONNECTING_MS;
    if (dealer_open(&l->dealer, l->s->endpoint, &l->s->keys, &err) < 0)
        lose(l, err.text);
}

static int send_msg(struct link *l, const struct msg *envelope)
{
    struct wire_message *m;
    int rc = wire_message_new(envelope->type, &m);

    if (rc < 0)
        return rc;
    *wire_message_envelope(m) = *envelope;
    rc = wire_message_send(l->dealer.socket, NULL, m, NULL);
    wire_message_envelope(m)->memory = NULL; /* the caller's */
    wire_message_free(m);
    return rc;
}

static void say_hello(struct link *l)
{
    const struct worker_session *s = l->s;
    uint64_t ids[MSG_MAX_LEASE_IDS];
    uint32_t n_ids = 0;
    struct msg m;

    for (const struct held *h = s->held; h && n_ids < MSG_MAX_LEASE_IDS; h = h->next)
        if (!atomic_load(&h->stale))
            ids[n_ids++] = h->work.lease.id;
    msg_init(&m, MSG_HELLO);
    m.hello = (struct msg_hello){
        .role = MSG_ROLE_WORKER,
        .min_version = MSG_VERSION,
        .max_version = MSG_VERSION,
        .boot_nonce = s->boot_nonce,
        .pid = (uint32_t)getpid(),
        .stage = s->conf.stage,
        .dtype = s->conf.dtype,
        .fingerprint = s->conf.fingerprint,
        .window_items = s->conf.window_items,
        .window_bytes = s->conf.window_bytes,
        .epoch = l->epoch,
        .n_lease_ids = n_ids,
        .lease_ids = ids,
    };
    (void)msg_text_set(m.hello.host, sizeof(m.hello.host), s->host);
    (void)msg_text_set(m.hello.device, sizeof(m.hello.device), s->device);
    (void)msg_text_set(m.hello.model, sizeof(m.hello.model), s->model);
    if (send_msg(l, &m) == 0) {
        l->hello_sent = true;
        l->greeting_until_ms = l->now_ms + GREETING_MS;
    }
}

/* -- messages of the broker */

static void on_welcome(struct link *l, const struct msg_welcome *w)
{
    if (w->version != MSG_VERSION) {
        l->status.reason = MSG_REASON_VERSION;
        (void)msg_text_set(l->status.text, sizeof(l->status.text),
                           "the broker speaks another version of the protocol than this worker");
        end(l, WORKER_SESSION_REFUSED);
        return;
    }
    if (l->epoch != 0 && w->epoch != l->epoch)
        held_drop_all(l->s);
    l->epoch = w->epoch;
    l->heartbeat_ms = w->heartbeat_ms;
    l->silence_ms = l->s->conf.silence_ms ? l->s->conf.silence_ms : 5 * (int64_t)w->heartbeat_ms;
    l->heartbeat_at_ms = l->now_ms + w->heartbeat_ms;
    l->state = LINK_UP;
    l->n_failures = 0;
    l->status.n_connects++;
    l->status.text[0] = '\0';
    if (w->takes_models)
        worker_offer_send(l->s);
    tell(l, l->draining ? WORKER_SESSION_DRAINING : WORKER_SESSION_CONNECTED);
}

static void on_refuse(struct link *l, const struct msg_refuse *r)
{
    char why[MSG_TEXT_SIZE];

    if (r->reason == MSG_REASON_VERSION || r->reason == MSG_REASON_NOT_ALLOWED || r->reason == MSG_REASON_STALLED) {
        l->status.reason = r->reason;
        memcpy(l->status.text, r->text, sizeof(l->status.text));
        end(l, WORKER_SESSION_REFUSED);
        return;
    }
    /* a temporary refusal: a limit, a draining broker, one that has forgotten us. Try again with growing delays. */
    memcpy(why, r->text, sizeof(why));
    lose(l, why);
}

static void on_work(struct link *l, struct wire_message **message)
{
    const struct msg_lease lease = wire_message_envelope(*message)->work.lease;
    struct held *h;
    struct err err;

    if (lease.epoch != l->epoch || held_has(l->s, lease.id))
        return; /* of another epoch, or a repetition */
    if (l->draining || atomic_load(&l->s->n_held) >= MAX_HELD) {
        held_answer(l->s, NULL, MSG_RETURN, &lease, NULL);
        return;
    }
    h = held_new(*message);
    if (!h) {
        held_answer(l->s, NULL, MSG_RETURN, &lease, NULL);
        return;
    }
    *message = NULL;
    if (held_decode_items(h, &err) < 0) {
        held_answer(l->s, NULL, MSG_FAILURE, &lease, err.text);
        held_free(h);
        return;
    }
    held_add(l->s, h);
    if (mailbox_post(l->s->inbox, h) < 0)
        held_answer(l->s, h, MSG_RETURN, &lease, NULL);
}

static void start_draining(struct link *l)
{
    struct held *h;

    if (l->draining)
        return;
    l->draining = true;
    l->last_words_until_ms = l->now_ms + LAST_WORDS_MS;
    close_inbox(l);
    while ((h = mailbox_take(l->s->inbox)))
        held_answer(l->s, h, MSG_RETURN, &h->work.lease, NULL);
    tell(l, WORKER_SESSION_DRAINING);
}

static void on_message(struct link *l, struct wire_message **message)
{
    const struct msg *m = wire_message_envelope(*message);

    l->heard_at_ms = l->now_ms;
    if (m->type == MSG_REFUSE) {
        on_refuse(l, &m->refuse);
    } else if (l->state == LINK_GREETING) {
        if (m->type == MSG_WELCOME)
            on_welcome(l, &m->welcome);
    } else if (m->type == MSG_WORK) {
        on_work(l, message);
    } else if (m->type == MSG_HEARTBEAT && m->heartbeat.epoch != l->epoch) {
        lose(l, "the broker has started again");
    } else if (m->type == MSG_DRAIN) {
        start_draining(l);
    } else if (m->type == MSG_MODEL_WANT) {
        worker_offer_send_files(l->s, &m->model_ref.model);
    }
}

static void receive(struct link *l)
{
    for (int i = 0; i < TAKE_AT_ONCE && l->state != LINK_ENDED && dealer_is_open(&l->dealer); i++) {
        struct wire_message *message = NULL;
        int rc = wire_message_receive(l->dealer.socket, NULL, NULL, &message, NULL);

        if (rc == -EAGAIN)
            return;
        if (rc == 0)
            on_message(l, &message); /* a malformed message is dropped; if it was work, its lease expires */
        wire_message_free(message);
    }
}

/* -- messages to the broker */

/* Take the answers of the compute side out of the outbox. */
static void collect(struct link *l)
{
    void *message;

    while ((message = mailbox_take(l->s->outbox))) {
        struct returned *r = message;

        if (message == l->s)
            continue; /* it only wakes this thread */
        l->last_words_until_ms = l->now_ms + LAST_WORDS_MS;
        if (!atomic_load(&r->held->stale) && r->message) {
            held_queue_unsent(l->s, r);
            continue;
        }
        held_drop(l->s, r->held);
        returned_free(r);
    }
}

static void send_unsent(struct link *l)
{
    while (l->state == LINK_UP && l->s->unsent) {
        struct returned *r = l->s->unsent;
        struct err err;
        int rc = wire_message_send(l->dealer.socket, NULL, r->message, &err);

        if (rc == -EAGAIN)
            return;
        if (rc == -EHOSTUNREACH) {
            lose(l,
                 "the connection broke while sending"); /* it stays queued: the lease stays valid in the same epoch */
            return;
        }
        if (rc < 0 && r->held)
            held_replace_by_failure(l->dealer.socket, r, err.text);
        r = held_pop_unsent(l->s);
        if (r->held)
            held_drop(l->s, r->held);
        returned_free(r);
    }
}

/* True if the compute side is alive: it made progress since the last call, or it waits for work and holds none. */
static bool compute_lives(const struct link *l, uint64_t *seen)
{
    uint64_t progress = atomic_load(&l->s->progress);
    bool idle = atomic_load(&l->s->n_waiting) > 0 && atomic_load(&l->s->n_taken) == 0;
    bool lives = progress != *seen || idle;

    *seen = progress;
    return lives;
}

/* Tell the watchdog of the process, also while there is no broker. */
static void say_alive(struct link *l)
{
    if (!l->s->conf.alive || l->now_ms < l->alive_at_ms)
        return;
    l->alive_at_ms = l->now_ms + ALIVE_MS;
    if (compute_lives(l, &l->progress_alive))
        l->s->conf.alive();
}

static void send_heartbeats(struct link *l)
{
    const struct held *h = compute_lives(l, &l->progress_seen) ? l->s->held : NULL;
    uint64_t ids[MSG_MAX_LEASE_IDS];
    struct msg m;

    do { /* at least one, so that the broker answers; more if the leases do not fit one */
        uint32_t n = 0;

        for (; h && n < MSG_MAX_LEASE_IDS; h = h->next)
            if (!atomic_load(&h->stale))
                ids[n++] = h->work.lease.id;
        msg_init(&m, MSG_HEARTBEAT);
        m.heartbeat = (struct msg_heartbeat){
            .epoch = l->epoch,
            .n_lease_ids = n,
            .lease_ids = ids,
            .progress = l->progress_seen,
            .n_items = atomic_load(&l->s->items),
        };
    } while (send_msg(l, &m) == 0 && h);
    l->heartbeat_at_ms = l->now_ms + l->heartbeat_ms;
}

/* Units that the compute side has, or whose answers are still in the outbox. */
static uint32_t n_out(const struct link *l)
{
    uint32_t n = 0;

    for (const struct held *h = l->s->held; h; h = h->next)
        n++;
    for (const struct returned *r = l->s->unsent; r; r = r->next)
        n -= r->held != NULL;
    return n;
}

/* Sent before units are handed back, so that the broker does not send new ones. */
static void withdraw_credit(struct link *l)
{
    struct msg m;

    if (l->state != LINK_UP || l->credit_withdrawn)
        return;
    msg_init(&m, MSG_CREDIT);
    l->credit_withdrawn = send_msg(l, &m) == 0;
}

static void drain_step(struct link *l)
{
    struct msg m;

    if (n_out(l))
        return; /* the compute side has not finished */
    if (l->state == LINK_UP && !l->s->unsent && l->credit_withdrawn) {
        msg_init(&m, MSG_BYE);
        if (send_msg(l, &m) == 0)
            end(l, WORKER_SESSION_DRAINED);
    } else if (l->state != LINK_UP && (!l->s->unsent || l->now_ms >= l->last_words_until_ms)) {
        end(l, WORKER_SESSION_DRAINED); /* there is nobody to send BYE to */
    }
}

/* -- the loop */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static const char *why_lost(const struct link *l)
{
    const char *key_error = dealer_key_error(&l->dealer);

    if (l->state == LINK_UP)
        return "the connection to the broker is lost";
    return key_error ? key_error : "no broker answers";
}

/* Do everything that is due. Returns the time of the next deadline. */
static int64_t tick(struct link *l)
{
    int64_t next = l->now_ms + 1000;

    say_alive(l);
    if (dealer_is_open(&l->dealer) && dealer_is_lost(&l->dealer)) {
        receive(l); /* a REFUSE may have come just before the connection was closed */
        if (l->state != LINK_ENDED && l->state != LINK_DOWN)
            lose(l, why_lost(l));
    }
    if (l->state == LINK_DOWN && l->now_ms >= l->retry_at_ms)
        connect_again(l);
    if (l->state == LINK_GREETING && !l->hello_sent)
        say_hello(l);
    if (l->state == LINK_GREETING && l->now_ms >= l->greeting_until_ms)
        lose(l, "the broker does not answer");
    if (l->state == LINK_UP && l->now_ms - l->heard_at_ms >= l->silence_ms)
        lose(l, "the broker is silent");
    if (l->state == LINK_UP && l->now_ms >= l->heartbeat_at_ms)
        send_heartbeats(l);
    if (atomic_load(&l->s->drain) && l->state != LINK_ENDED)
        start_draining(l);
    if (l->draining)
        withdraw_credit(l);
    send_unsent(l);
    if (l->draining && l->state != LINK_ENDED) {
        drain_step(l);
        next = l->now_ms + 50;
    }
    if (l->state == LINK_DOWN)
        next = earlier(next, l->retry_at_ms);
    else if (l->state == LINK_GREETING)
        next = earlier(next, l->greeting_until_ms);
    else if (l->state == LINK_UP)
        next = earlier(next, earlier(l->heartbeat_at_ms, l->heard_at_ms + l->silence_ms));
    return next;
}

static void wait_for_news(struct link *l, int64_t until_ms)
{
    bool writing = (l->state == LINK_GREETING && !l->hello_sent) || (l->state == LINK_UP && l->s->unsent);
    zmq_pollitem_t items[3] = {{.fd = mailbox_fd(l->s->outbox), .events = ZMQ_POLLIN}};
    int64_t timeout = until_ms - clock_mono_ms();
    int n = 1;

    if (dealer_is_open(&l->dealer)) {
        items[n++] =
            (zmq_pollitem_t){.socket = l->dealer.socket, .events = (short)(ZMQ_POLLIN | (writing ? ZMQ_POLLOUT : 0))};
        items[n++] = (zmq_pollitem_t){.socket = l->dealer.monitor, .events = ZMQ_POLLIN};
    }
    (void)zmq_poll(items, n, timeout < 0 ? 0 : timeout); /* EINTR: the next round checks everything anyway */
}

void *worker_link_main(void *session)
{
    struct link l = {.s = session, .state = LINK_DOWN};

    l.now_ms = l.retry_at_ms = clock_mono_ms();
    while (l.state != LINK_ENDED && !atomic_load(&l.s->stop)) {
        int64_t next = tick(&l);

        if (l.state == LINK_ENDED)
            break;
        wait_for_news(&l, next);
        l.now_ms = clock_mono_ms();
        collect(&l);
        receive(&l);
    }
    dealer_close(&l.dealer);
    /* units given back after the end (the worker was refused) are freed by _stop */
    return NULL;
}
