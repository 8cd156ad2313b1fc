#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "wire/broker_socket.h"
#include "wire/context.h"
#include "wire/worker_session.h"
#include "tests/unit/tensor_gather.h"

enum { HEARTBEAT_MS = 40, PATIENCE_MS = 20000 /* a loaded machine is no silent broker */ };

/* A broker that the test plays by hand, and one worker. */
struct fixture {
    char folder[64], path[96], endpoint[128];
    struct broker_socket *b;
    struct worker_session *s;
    uint64_t peer, epoch;
    int64_t silence_ms;
    struct wire_message *heard;
};

static void open_broker(struct fixture *f)
{
    struct broker_socket_conf conf = {.endpoint = f->endpoint};
    struct err err = {""};

    if (broker_socket_open(&conf, &f->b, &err) < 0)
        fail_msg("%s", err.text);
}

static int setup(void **state)
{
    static struct fixture f;
    struct err err;

    memset(&f, 0, sizeof(f));
    strcpy(f.folder, "/tmp/test_worker_session.XXXXXX");
    if (!mkdtemp(f.folder) || wire_init(1, &err) < 0)
        return -1;
    (void)snprintf(f.path, sizeof(f.path), "%s/b.sock", f.folder);
    (void)snprintf(f.endpoint, sizeof(f.endpoint), "ipc://%s", f.path);
    f.epoch = 7;
    f.silence_ms = PATIENCE_MS;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    worker_session_stop(&f->s);
    wire_message_free(f->heard);
    broker_socket_close(&f->b);
    return rmdir(f->folder);
}

static atomic_uint n_alive;

static void note_alive(void)
{
    atomic_fetch_add(&n_alive, 1);
}

static void start_worker(struct fixture *f)
{
    struct worker_session_conf conf = {.endpoint = f->endpoint,
                                       .stage = STAGE_QFORMER,
                                       .device = "null",
                                       .dtype = DTYPE_F8_E4M3, /* of a stage, though of no tensor */
                                       .model = "demo",
                                       .window_items = 64,
                                       .window_bytes = 1 << 20,
                                       .retry_min_ms = 20,
                                       .retry_max_ms = 100,
                                       .silence_ms = f->silence_ms,
                                       .alive = note_alive};
    struct err err = {""};

    if (worker_session_start(&conf, &f->s, &err) < 0)
        fail_msg("%s", err.text);
}

static void send_msg(struct fixture *f, const struct msg *m)
{
    struct err err = {""};

    if (broker_socket_send_msg(f->b, f->peer, m, &err) < 0)
        fail_msg("%s: %s", msg_type_name(m->type), err.text);
}

/* Answer a heartbeat, as brokers do. The worker may have closed the connection since. */
static void answer_heartbeat(struct fixture *f)
{
    struct msg m;

    msg_init(&m, MSG_HEARTBEAT);
    m.heartbeat.epoch = f->epoch;
    (void)(broker_socket_send_msg(f->b, f->peer, &m, NULL) < 0);
}

/* The next event within timeout_ms: its kind of message, 0 for none. GONE is 1. Heartbeats are answered. */
static int hear_any(struct fixture *f, int64_t timeout_ms)
{
    int64_t until = clock_mono_ms() + timeout_ms;
    struct broker_socket_event e;

    wire_message_free(f->heard);
    f->heard = NULL;
    do {
        if (broker_socket_next(f->b, &e) == 1) {
            f->heard = e.message;
            assert_int_not_equal(e.type, BROKER_SOCKET_BAD);
            if (e.type == BROKER_SOCKET_GONE)
                return 1;
            f->peer = e.peer;
            if (wire_message_envelope(e.message)->type == MSG_HEARTBEAT)
                answer_heartbeat(f);
            return (int)wire_message_envelope(e.message)->type;
        }
        assert_int_equal(broker_socket_wait(f->b, NULL, 0, 10), 0);
    } while (clock_mono_ms() < until);
    return 0;
}

/* Wait for a message of `type`; heartbeats and losses in between do not matter. */
static const struct msg *hear(struct fixture *f, enum msg_type type)
{
    int64_t until = clock_mono_ms() + PATIENCE_MS;

    while (clock_mono_ms() < until) {
        int got = hear_any(f, 100);

        if (got == (int)type)
            return wire_message_envelope(f->heard);
        if (got > 1 && got != MSG_HEARTBEAT)
            fail_msg("heard %s, not %s", msg_type_name((enum msg_type)got), msg_type_name(type));
    }
    fail_msg("no %s within %d ms", msg_type_name(type), PATIENCE_MS);
    return NULL;
}

static struct msg welcome_of(const struct fixture *f)
{
    struct msg m;

    msg_init(&m, MSG_WELCOME);
    m.welcome = (struct msg_welcome){
        .epoch = f->epoch, .version = MSG_VERSION, .heartbeat_ms = HEARTBEAT_MS, .lease_ms = 10 * HEARTBEAT_MS};
    return m;
}

static void welcome(struct fixture *f)
{
    const struct msg m = welcome_of(f);

    send_msg(f, &m);
}

static void greet(struct fixture *f)
{
    (void)hear(f, MSG_HELLO);
    broker_socket_admit(f->b, f->peer, 0); /* or its connection is closed after a while */
    welcome(f);
}

static void connect_worker(struct fixture *f)
{
    open_broker(f);
    start_worker(f);
    greet(f);
}

/* Lease `id` of n items with one tensor [n, 16] f32. */
static void send_work(struct fixture *f, uint64_t id, uint32_t n)
{
    uint32_t shape[2] = {n, 16};
    struct wire_message *m;
    struct wire_tensor *t;
    struct buf rows;
    float data[16 * 64] = {1, 2, 3};

    assert_int_equal(wire_message_new(MSG_WORK, &m), 0);
    wire_message_envelope(m)->work.lease = (struct msg_lease){.epoch = f->epoch, .id = id, .unit = 5, .count = n};
    msg_recipe_init(&wire_message_envelope(m)->work.recipe);
    buf_init(&rows, 0);
    for (uint32_t i = 0; i < n; i++) {
        struct row_item item = {.item = i, .key = (const uint8_t *)"key", .key_bytes = 3};

        assert_int_equal(row_item_append(&rows, &item), 0);
    }
    assert_int_equal(wire_message_add_rows(m, &rows, n), 0);
    assert_int_equal(wire_tensor_new(DTYPE_F32, shape, 2, data, NULL, NULL, &t, NULL), 0);
    assert_int_equal(wire_message_add_tensor(m, t), 0);
    wire_tensor_free(t);
    assert_int_equal(broker_socket_send(f->b, f->peer, &m, NULL), 0);
}

static struct worker_work *take(struct fixture *f)
{
    struct worker_work *w = NULL;

    assert_int_equal(worker_session_take(f->s, PATIENCE_MS, &w), 1);
    return w;
}

static void give_result(struct fixture *f, struct worker_work **w)
{
    struct worker_result r = {.n_rows = (*w)->n_items};
    struct err err = {""};

    buf_init(&r.rows, 0);
    for (uint32_t i = 0; i < r.n_rows; i++) {
        struct row_record record = {.item = (*w)->items[i].item};

        assert_int_equal(row_record_append(&r.rows, &record), 0);
    }
    if (worker_session_result(f->s, w, &r, &err) < 0)
        fail_msg("%s", err.text);
    assert_null(*w);
}

static enum worker_session_state state_of(struct fixture *f)
{
    struct worker_session_status st;

    worker_session_status(f->s, &st);
    return st.state;
}

static void wait_state(struct fixture *f, enum worker_session_state state)
{
    int64_t until = clock_mono_ms() + PATIENCE_MS;

    while (state_of(f) != state) {
        if (clock_mono_ms() > until)
            fail_msg("state %d, not %d", (int)state_of(f), (int)state);
        (void)hear_any(f, 10);
    }
}

static void wait_held(struct fixture *f, uint32_t n)
{
    int64_t until = clock_mono_ms() + PATIENCE_MS;
    struct worker_session_status st;

    for (;;) {
        worker_session_status(f->s, &st);
        if (st.n_held == n)
            return;
        assert_true(clock_mono_ms() < until);
        (void)hear_any(f, 5);
    }
}

static void test_worker_session_hello_says_who_it_is(void **state)
{
    struct fixture *f = *state;
    const struct msg *m;

    open_broker(f);
    start_worker(f);
    m = hear(f, MSG_HELLO);
    assert_int_equal(m->hello.role, MSG_ROLE_WORKER);
    assert_int_equal(m->hello.stage, STAGE_QFORMER);
    assert_string_equal(m->hello.device, "null");
    assert_int_equal(m->hello.dtype, DTYPE_F8_E4M3);
    assert_string_equal(m->hello.model, "demo");
    assert_int_equal(m->hello.window_items, 64);
    assert_int_equal(m->hello.window_bytes, 1 << 20);
    assert_int_equal(m->hello.pid, getpid());
    assert_int_not_equal(m->hello.boot_nonce, 0);
    assert_int_equal(m->hello.epoch, 0); /* it has never been leased anything */
    assert_int_equal(m->hello.n_lease_ids, 0);
    welcome(f);
    wait_state(f, WORKER_SESSION_CONNECTED);
}

static void test_worker_session_starts_before_its_broker(void **state)
{
    struct fixture *f = *state;

    start_worker(f);
    (void)usleep(150000); /* long enough for some attempts to fail */
    open_broker(f);
    greet(f);
    wait_state(f, WORKER_SESSION_CONNECTED);
}

static void test_worker_session_refused_by_name_is_final(void **state)
{
    struct fixture *f = *state;
    struct worker_session_status st;
    struct worker_work *w;
    struct msg m;

    open_broker(f);
    start_worker(f);
    (void)hear(f, MSG_HELLO);
    msg_init(&m, MSG_REFUSE);
    m.refuse.reason = MSG_REASON_NOT_ALLOWED;
    strcpy(m.refuse.text, "no workers here");
    send_msg(f, &m);
    assert_int_equal(worker_session_wait(f->s, PATIENCE_MS), 0);
    worker_session_status(f->s, &st);
    assert_int_equal(st.state, WORKER_SESSION_REFUSED);
    assert_int_equal(st.reason, MSG_REASON_NOT_ALLOWED);
    assert_string_equal(st.text, "no workers here");
    assert_int_equal(worker_session_take(f->s, -1, &w), -EPIPE);
}

static void test_worker_session_welcome_of_another_version_is_refused(void **state)
{
    struct fixture *f = *state;
    struct worker_session_status st;
    struct msg m;

    open_broker(f);
    start_worker(f);
    (void)hear(f, MSG_HELLO);
    msg_init(&m, MSG_WELCOME);
    m.welcome = (struct msg_welcome){.epoch = 1, .version = MSG_VERSION + 1, .heartbeat_ms = 10, .lease_ms = 100};
    send_msg(f, &m);
    assert_int_equal(worker_session_wait(f->s, PATIENCE_MS), 0);
    worker_session_status(f->s, &st);
    assert_int_equal(st.reason, MSG_REASON_VERSION);
}

static void test_worker_session_holds_several_units(void **state)
{
    struct fixture *f = *state;
    struct worker_work *w[3], *none = NULL;
    const uint32_t want[2] = {0, 16};
    const struct msg *m;
    float data[3 * 16];

    connect_worker(f);
    for (uint64_t id = 1; id <= 3; id++)
        send_work(f, id, 3);
    send_work(f, 3, 3); /* said twice: once is enough */
    for (int i = 0; i < 3; i++) {
        w[i] = take(f);
        assert_int_equal(w[i]->lease.id, i + 1);
        assert_int_equal(w[i]->n_items, 3);
        assert_int_equal(w[i]->items[2].item, 2);
        assert_memory_equal(w[i]->items[2].key, "key", 3);
        assert_int_equal(w[i]->recipe.decode.max_new_tokens, 20);
        assert_int_equal(w[i]->n_tensors, 1);
        assert_int_equal(tensor_gather(w[i]->tensors[0], DTYPE_F32, want, 2, data, sizeof(data), NULL), 0);
        assert_true(data[2] == 3.0F);
    }
    assert_int_equal(worker_session_take(f->s, 50, &none), 0);
    give_result(f, &w[1]); /* in any order */
    m = hear(f, MSG_RESULT);
    assert_int_equal(m->result.lease.id, 2);
    assert_int_equal(m->n_rows, 3);
    assert_int_equal(worker_session_failure(f->s, &w[0], "out_of_memory", "no room for the batch"), 0);
    m = hear(f, MSG_FAILURE);
    assert_int_equal(m->failure.lease.id, 1);
    assert_string_equal(m->failure.code, "out_of_memory");
    assert_int_equal(worker_session_return(f->s, &w[2], NULL), 0);
    assert_int_equal(hear(f, MSG_RETURN)->return_lease.lease.id, 3);
}

static void test_worker_session_bad_result_becomes_a_failure(void **state)
{
    struct fixture *f = *state;
    struct worker_result r = {.n_rows = 0};
    struct worker_work *w;
    struct err err = {""};
    const struct msg *m;

    connect_worker(f);
    send_work(f, 1, 2);
    w = take(f);
    buf_init(&r.rows, 0);
    assert_int_equal(worker_session_result(f->s, &w, &r, &err), -EINVAL);
    assert_null(w);
    assert_non_null(strstr(err.text, "0 rows for 2 items"));
    m = hear(f, MSG_FAILURE);
    assert_string_equal(m->failure.code, "bad_result");
}

/* How many leases are named by the next heartbeat that reports `progress`; those before it report less. */
static uint32_t leases_at(struct fixture *f, uint64_t progress)
{
    const struct msg_heartbeat *h;

    do {
        h = &hear(f, MSG_HEARTBEAT)->heartbeat;
    } while (h->progress < progress);
    assert_int_equal(h->progress, progress);
    return h->n_lease_ids;
}

/* Taking a unit was progress. The unit hangs after that: connected, but its lease is extended once only. */
static void expect_one_extension(struct fixture *f)
{
    assert_int_equal(leases_at(f, 1), 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(leases_at(f, 1), 0);
}

static void test_worker_session_heartbeats_name_leases_only_while_compute_moves(void **state)
{
    struct fixture *f = *state;
    struct worker_work *w;

    connect_worker(f);
    send_work(f, 1, 1);
    w = take(f);
    expect_one_extension(f);
    for (uint64_t progress = 2; progress <= 6; progress++) {
        worker_session_progress(f->s);
        assert_int_equal(leases_at(f, progress), 1);
    }
    assert_int_equal(worker_session_return(f->s, &w, "/pictures (No such file or directory)"), 0);
    (void)hear(f, MSG_RETURN);
}

struct taker {
    struct worker_session *s;
    struct worker_work *w;
    atomic_bool done;
};

static void *take_for_ever(void *arg)
{
    struct taker *t = arg;
    struct worker_work *second;

    if (worker_session_take(t->s, -1, &t->w) == 1) /* then hangs, in a take of one more */
        (void)(worker_session_take(t->s, -1, &second) == 1);
    atomic_store(&t->done, true);
    return NULL;
}

static void test_worker_session_waiting_in_take_is_no_excuse_for_a_hung_unit(void **state)
{
    struct fixture *f = *state;
    struct taker t = {.s = NULL};
    pthread_t thread;

    connect_worker(f);
    t.s = f->s;
    assert_int_equal(pthread_create(&thread, NULL, take_for_ever, &t), 0);
    send_work(f, 1, 1);
    expect_one_extension(f);
    worker_session_drain(f->s);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(atomic_load(&t.done));
    assert_non_null(t.w);
}

/* Reads on: ZeroMQ (4.3.4) ends the process when a peer goes whose messages nobody takes, and a heartbeat is due. */
static bool is_alive_within(struct fixture *f, int64_t ms)
{
    const unsigned before = atomic_load(&n_alive);
    const int64_t until = clock_mono_ms() + ms;

    while (atomic_load(&n_alive) == before && clock_mono_ms() < until)
        (void)hear_any(f, 10);
    return atomic_load(&n_alive) != before;
}

/* Also where there is no broker; not while a unit stands still. */
static void test_worker_session_says_that_it_lives_only_while_compute_moves(void **state)
{
    struct fixture *f = *state;
    struct worker_work *work = NULL;
    const int64_t until = clock_mono_ms() + PATIENCE_MS;
    const unsigned before = atomic_load(&n_alive);

    start_worker(f);
    while (atomic_load(&n_alive) == before) {
        assert_int_equal(worker_session_take(f->s, 1500, &work), 0);
        assert_true(clock_mono_ms() < until);
    }
    open_broker(f);
    greet(f);
    send_work(f, 1, 4);
    work = take(f);
    for (int n = 0; is_alive_within(f, 2500); n++)
        assert_true(n < 2); /* taking was a sign of life, and so was waiting just before */
    worker_session_progress(f->s);
    assert_true(is_alive_within(f, PATIENCE_MS));
    assert_int_equal(worker_session_return(f->s, &work, NULL), 0);
}

static void test_worker_session_new_epoch_makes_work_stale(void **state)
{
    struct fixture *f = *state;
    struct worker_work *old, *fresh;

    connect_worker(f);
    send_work(f, 1, 1);
    send_work(f, 2, 1); /* stays in the inbox */
    old = take(f);
    assert_false(worker_work_stale(old));
    broker_socket_close(&f->b);
    f->epoch = 8;
    open_broker(f);
    greet(f);
    wait_held(f, 1);    /* the one in the inbox is dropped */
    send_work(f, 1, 1); /* the same number, another lease */
    fresh = take(f);
    assert_int_equal(fresh->lease.epoch, 8);
    assert_true(worker_work_stale(old));
    assert_false(worker_work_stale(fresh));
    give_result(f, &old); /* nobody hears of it */
    give_result(f, &fresh);
    assert_int_equal(hear(f, MSG_RESULT)->result.lease.epoch, 8);
    assert_int_equal(hear(f, MSG_HEARTBEAT)->heartbeat.epoch, 8);
}

static void test_worker_session_result_survives_a_broken_connection(void **state)
{
    struct fixture *f = *state;
    struct worker_session_status st;
    struct worker_work *w;

    connect_worker(f);
    send_work(f, 1, 1);
    w = take(f);
    broker_socket_close(&f->b);
    while (state_of(f) != WORKER_SESSION_CONNECTING)
        (void)usleep(1000);
    give_result(f, &w);
    open_broker(f); /* the same epoch: only the connection was lost */
    greet(f);
    assert_int_equal(hear(f, MSG_RESULT)->result.lease.id, 1);
    worker_session_status(f->s, &st);
    assert_int_equal(st.n_connects, 2);
}

static void test_worker_session_hello_names_what_is_held(void **state)
{
    struct fixture *f = *state;
    struct worker_work *done, *held;
    const struct msg *m;

    connect_worker(f);
    send_work(f, 1, 1);
    done = take(f);
    send_work(f, 2, 1);
    held = take(f);
    give_result(f, &done);
    (void)hear(f, MSG_RESULT); /* as far as the worker knows, the broker has it */
    send_work(f, 3, 1);
    done = take(f);
    broker_socket_close(&f->b);
    while (state_of(f) != WORKER_SESSION_CONNECTING)
        (void)usleep(1000);
    give_result(f, &done);
    open_broker(f);
    m = hear(f, MSG_HELLO);
    assert_int_equal(m->hello.epoch, 7);
    assert_int_equal(m->hello.n_lease_ids, 2);
    assert_int_equal(m->hello.lease_ids[0] + m->hello.lease_ids[1], 2 + 3);
    welcome(f);
    assert_int_equal(hear(f, MSG_RESULT)->result.lease.id, 3);
    give_result(f, &held);
    assert_int_equal(hear(f, MSG_RESULT)->result.lease.id, 2);
}

/* Greets as often as it takes: a worker with little patience may leave a slow test before it is heard. */
static void greet_until_connected(struct fixture *f)
{
    const int64_t until = clock_mono_ms() + PATIENCE_MS;

    while (state_of(f) != WORKER_SESSION_CONNECTED) {
        assert_true(clock_mono_ms() < until);
        if (hear_any(f, 10) == MSG_HELLO) {
            struct msg m = welcome_of(f);

            broker_socket_admit(f->b, f->peer, 0);
            (void)(broker_socket_send_msg(f->b, f->peer, &m, NULL) < 0);
        }
    }
}

static void test_worker_session_silent_broker_is_left(void **state)
{
    struct fixture *f = *state;
    const int64_t until = clock_mono_ms() + PATIENCE_MS;

    f->silence_ms = 0; /* five heartbeats */
    open_broker(f);
    start_worker(f);
    greet_until_connected(f);
    while (state_of(f) == WORKER_SESSION_CONNECTED) { /* reads, but answers no heartbeat */
        struct broker_socket_event e;

        assert_true(clock_mono_ms() < until);
        assert_int_equal(broker_socket_wait(f->b, NULL, 0, 10), 0);
        while (state_of(f) == WORKER_SESSION_CONNECTED && broker_socket_next(f->b, &e) == 1)
            wire_message_free(e.message);
    }
    greet_until_connected(f);
}

static void test_worker_session_foreign_epoch_in_a_heartbeat_means_hello(void **state)
{
    struct fixture *f = *state;

    connect_worker(f);
    wait_state(f, WORKER_SESSION_CONNECTED);
    f->epoch = 9; /* of the answers from now on */
    (void)hear(f, MSG_HELLO);
}

static void test_worker_session_drain_returns_what_nobody_took(void **state)
{
    struct fixture *f = *state;
    struct worker_work *w, *none;
    const struct msg *m;
    int returned = 0;

    connect_worker(f);
    for (uint64_t id = 1; id <= 3; id++)
        send_work(f, id, 1);
    w = take(f);
    wait_held(f, 3);
    worker_session_drain(f->s);
    for (int credit = 0; !credit || returned < 2;) {
        int got = hear_any(f, 20000); /* comes at once, but for what else the machine does */

        assert_true(got == MSG_HEARTBEAT || got == MSG_RETURN || got == MSG_CREDIT);
        returned += got == MSG_RETURN;
        assert_true(credit || got != MSG_RETURN); /* or it would count against the worker */
        if (got == MSG_CREDIT) {
            assert_int_equal(wire_message_envelope(f->heard)->credit.window_items, 0);
            credit = 1;
        }
    }
    assert_int_equal(worker_session_take(f->s, -1, &none), -EPIPE);
    send_work(f, 9, 1); /* too late: goes straight back */
    m = hear(f, MSG_RETURN);
    assert_int_equal(m->return_lease.lease.id, 9);
    assert_int_equal(state_of(f), WORKER_SESSION_DRAINING);
    give_result(f, &w);
    assert_int_equal(hear(f, MSG_RESULT)->result.lease.id, 1);
    (void)hear(f, MSG_BYE); /* after the last result */
    assert_int_equal(worker_session_wait(f->s, PATIENCE_MS), 0);
    assert_int_equal(state_of(f), WORKER_SESSION_DRAINED);
}

static void test_worker_session_drains_when_the_broker_says_so(void **state)
{
    struct fixture *f = *state;
    struct worker_work *none;
    struct msg m;

    connect_worker(f);
    msg_init(&m, MSG_DRAIN);
    send_msg(f, &m);
    assert_int_equal(worker_session_take(f->s, PATIENCE_MS, &none), -EPIPE);
    (void)hear(f, MSG_CREDIT);
    (void)hear(f, MSG_BYE);
    assert_int_equal(worker_session_wait(f->s, PATIENCE_MS), 0);
}

static void test_worker_session_drains_without_a_broker(void **state)
{
    struct fixture *f = *state;

    start_worker(f);
    worker_session_drain(f->s);
    assert_int_equal(worker_session_wait(f->s, PATIENCE_MS), 0);
    assert_int_equal(state_of(f), WORKER_SESSION_DRAINED);
}

static void test_worker_session_stop_frees_what_is_held(void **state)
{
    struct fixture *f = *state;

    connect_worker(f);
    for (uint64_t id = 1; id <= 5; id++)
        send_work(f, id, 4);
    (void)take(f);
    (void)take(f);
    worker_session_stop(&f->s);
    assert_null(f->s);
}

static void test_worker_session_bad_configuration_is_refused(void **state)
{
    struct worker_session_conf conf = {
        .endpoint = "tcp://198.51.100.7:5550", .stage = 1, .dtype = 1, .window_items = 1};
    struct worker_session *s = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(worker_session_start(&conf, &s, &err), -EPERM);
    conf.endpoint = "ipc:///tmp/x";
    conf.window_items = 0;
    assert_int_equal(worker_session_start(&conf, &s, &err), -EINVAL);
    conf.window_items = 1;
    conf.dtype = 99;
    assert_int_equal(worker_session_start(&conf, &s, &err), -EINVAL);
    assert_null(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_worker_session_hello_says_who_it_is),
        TEST(test_worker_session_starts_before_its_broker),
        TEST(test_worker_session_refused_by_name_is_final),
        TEST(test_worker_session_says_that_it_lives_only_while_compute_moves),
        TEST(test_worker_session_welcome_of_another_version_is_refused),
        TEST(test_worker_session_holds_several_units),
        TEST(test_worker_session_bad_result_becomes_a_failure),
        TEST(test_worker_session_heartbeats_name_leases_only_while_compute_moves),
        TEST(test_worker_session_waiting_in_take_is_no_excuse_for_a_hung_unit),
        TEST(test_worker_session_new_epoch_makes_work_stale),
        TEST(test_worker_session_result_survives_a_broken_connection),
        TEST(test_worker_session_hello_names_what_is_held),
        TEST(test_worker_session_silent_broker_is_left),
        TEST(test_worker_session_foreign_epoch_in_a_heartbeat_means_hello),
        TEST(test_worker_session_drain_returns_what_nobody_took),
        TEST(test_worker_session_drains_when_the_broker_says_so),
        TEST(test_worker_session_drains_without_a_broker),
        TEST(test_worker_session_stop_frees_what_is_held),
        TEST(test_worker_session_bad_configuration_is_refused),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    wire_exit();
    return rc;
}
