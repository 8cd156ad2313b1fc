#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "wire/broker_socket.h"
#include "wire/context.h"

enum { PATIENCE_MS = 20000 /* with a loaded machine */ };

struct fixture {
    char folder[64], path[96], endpoint[128];
    struct broker_socket *s;
};

static int setup(void **state)
{
    static struct fixture f;
    struct err err;

    strcpy(f.folder, "/tmp/test_broker_socket.XXXXXX");
    if (!mkdtemp(f.folder) || wire_init(1, &err) < 0)
        return -1;
    (void)snprintf(f.path, sizeof(f.path), "%s/b.sock", f.folder);
    (void)snprintf(f.endpoint, sizeof(f.endpoint), "ipc://%s", f.path);
    f.s = NULL;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    broker_socket_close(&f->s);
    return rmdir(f->folder);
}

static void open_socket(struct fixture *f, size_t max_peers, size_t max_queue)
{
    struct broker_socket_conf conf = {.endpoint = f->endpoint, .max_peers = max_peers, .max_queue_messages = max_queue};
    struct err err = {""};

    if (broker_socket_open(&conf, &f->s, &err) < 0)
        fail_msg("%s", err.text);
}

static void *dealer(struct fixture *f)
{
    void *d = zmq_socket(wire_context(), ZMQ_DEALER);
    int zero = 0, timeout = PATIENCE_MS, never = -1;

    assert_non_null(d);
    (void)zmq_setsockopt(d, ZMQ_LINGER, &zero, sizeof(zero));
    (void)zmq_setsockopt(d, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
    (void)zmq_setsockopt(d, ZMQ_RECONNECT_IVL, &never, sizeof(never));
    assert_int_equal(zmq_connect(d, f->endpoint), 0);
    return d;
}

static void say(void *d, enum msg_type type)
{
    struct buf b;
    struct msg m;

    buf_init(&b, 0);
    msg_init(&m, type);
    assert_int_equal(msg_pack(&m, &b, NULL), 0);
    assert_true(zmq_send(d, b.data, b.size_bytes, 0) >= 0);
    buf_release(&b);
}

/* The next event; the message, if any, is freed. */
static struct broker_socket_event next_event(struct fixture *f)
{
    int64_t until = clock_mono_ms() + PATIENCE_MS;
    struct broker_socket_event e;
    int rc;

    while ((rc = broker_socket_next(f->s, &e)) == 0 && clock_mono_ms() < until)
        assert_int_equal(broker_socket_wait(f->s, NULL, 0, 100), 0);
    if (rc != 1)
        fail_msg("no event within %d ms (%d)", PATIENCE_MS, rc);
    wire_message_free(e.message);
    return e;
}

static enum msg_type hear(void *d, struct msg *ret)
{
    uint8_t bytes[MSG_MAX_BYTES];
    int n = zmq_recv(d, bytes, sizeof(bytes), 0);

    if (n < 0)
        fail_msg("nothing heard: %s", zmq_strerror(errno));
    assert_int_equal(msg_unpack(bytes, (size_t)n, ret, NULL), 0);
    return ret->type;
}

static void test_broker_socket_peers_are_numbered_and_answered(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_event a, b;
    struct msg m;
    void *d[2];

    open_socket(f, 0, 0);
    for (int i = 0; i < 2; i++)
        d[i] = dealer(f);
    say(d[0], MSG_BYE);
    a = next_event(f);
    say(d[1], MSG_DRAIN);
    b = next_event(f);
    assert_int_equal(a.type, BROKER_SOCKET_MESSAGE);
    assert_true(a.peer != 0 && b.peer != 0 && a.peer != b.peer);
    say(d[0], MSG_BYE);
    assert_int_equal(next_event(f).peer, a.peer);
    msg_init(&m, MSG_DRAIN);
    assert_int_equal(broker_socket_send_msg(f->s, b.peer, &m, NULL), 0);
    assert_int_equal(hear(d[1], &m), MSG_DRAIN);
    assert_int_equal(broker_socket_send_msg(f->s, 999, &m, NULL), -EHOSTUNREACH);
    assert_int_equal(broker_socket_counters(f->s).messages_in, 3);
    for (int i = 0; i < 2; i++)
        (void)zmq_close(d[i]);
}

static void test_broker_socket_file_is_for_its_owner_alone(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    open_socket(f, 0, 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_broker_socket_live_path_is_refused_dead_path_is_taken(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_conf conf = {.endpoint = f->endpoint};
    struct broker_socket *second = NULL;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct err err = {""};
    int fd;

    open_socket(f, 0, 0);
    assert_int_equal(broker_socket_open(&conf, &second, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "another broker"));
    broker_socket_close(&f->s);
    fd = socket(AF_UNIX, SOCK_STREAM, 0); /* a path that its owner left behind */
    strcpy(a.sun_path, f->path);
    assert_int_equal(bind(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)), 0);
    (void)close(fd);
    open_socket(f, 0, 0);
}

static void test_broker_socket_refuses_what_would_be_open_to_all(void **state)
{
    static const struct {
        const char *endpoint;
        int code;
        const char *what;
    } cases[] = {
        {"tcp://*:5550", -EPERM, "ipc"},
        {"tcp://0.0.0.0:5550", -EPERM, "keys"},
        {"tcp://127.0.0.1:0", -EPERM, "blipline keygen"},
        {"", -EINVAL, "no endpoint"},
        {"ipc:///tmp/never-bound,tcp://127.0.0.1:0", -EPERM, "blipline keygen"},
        {"udp://127.0.0.1:1", -EINVAL, "not an endpoint"},
        {"ipc://", -EINVAL, "path"},
        {"ipc:///nowhere/at/all/b.sock", -ENOENT, "/nowhere/at/all"},
        {"ipc:///"
         "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012"
         "34567890",
         -ENAMETOOLONG, "107"},
    };
    struct broker_socket *s = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct broker_socket_conf conf = {.endpoint = cases[i].endpoint};
        struct err err = {""};
        int rc = broker_socket_open(&conf, &s, &err);

        if (rc != cases[i].code || !strstr(err.text, cases[i].what))
            fail_msg("%s: %d (%s)", cases[i].endpoint, rc, err.text);
        assert_null(s);
    }
}

static void expect_nothing(struct fixture *f, int64_t ms)
{
    const int64_t until = clock_mono_ms() + ms;
    struct broker_socket_event e;

    while (clock_mono_ms() < until) {
        assert_int_equal(broker_socket_next(f->s, &e), 0);
        assert_int_equal(broker_socket_wait(f->s, NULL, 0, until - clock_mono_ms()), 0);
    }
}

/* A bare connection: is it still there? */
static bool is_open(int fd)
{
    char greeting[64];
    ssize_t n;

    do
        n = recv(fd, greeting, sizeof(greeting), MSG_DONTWAIT);
    while (n > 0);
    return n < 0 && errno == EAGAIN;
}

static int bare_connection(const struct fixture *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, f->path, strlen(f->path) + 1);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)), 0);
    return fd;
}

static void test_broker_socket_who_is_not_admitted_is_closed(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_conf conf = {.endpoint = f->endpoint, .silent_ms = 300};
    struct broker_socket_event e;
    struct msg m;
    uint64_t admitted, stranger;
    void *d[2];
    int bare;

    assert_int_equal(broker_socket_open(&conf, &f->s, NULL), 0);
    for (int i = 0; i < 2; i++)
        d[i] = dealer(f);
    bare = bare_connection(f);
    say(d[0], MSG_BYE);
    admitted = next_event(f).peer;
    broker_socket_admit(f->s, admitted, 0);
    say(d[1], MSG_BYE);
    stranger = next_event(f).peer;
    e = next_event(f); /* its time is over */
    assert_int_equal(e.type, BROKER_SOCKET_GONE);
    assert_true(e.peer == stranger);
    assert_false(is_open(bare));
    expect_nothing(f, 400);
    msg_init(&m, MSG_DRAIN);
    assert_int_equal(broker_socket_send_msg(f->s, admitted, &m, NULL), 0);
    assert_int_equal(hear(d[0], &m), MSG_DRAIN);
    assert_int_equal(broker_socket_counters(f->s).closed, 2);
    (void)close(bare);
    for (int i = 0; i < 2; i++)
        (void)zmq_close(d[i]);
}

static void test_broker_socket_connections_past_the_limit_are_closed(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_conf conf = {.endpoint = f->endpoint, .max_connections = 4};
    int fds[8], n_open = 0;

    assert_int_equal(broker_socket_open(&conf, &f->s, NULL), 0);
    for (int i = 0; i < 8; i++)
        fds[i] = bare_connection(f);
    expect_nothing(f, 300);
    for (int i = 0; i < 8; i++) {
        n_open += is_open(fds[i]);
        (void)close(fds[i]);
    }
    assert_int_equal(n_open, 4);
    expect_nothing(f, 100);
    fds[0] = bare_connection(f); /* there is room again */
    expect_nothing(f, 100);
    assert_true(is_open(fds[0]));
    (void)close(fds[0]);
}

static void test_broker_socket_a_dropped_peer_is_heard_no_more(void **state)
{
    struct fixture *f = *state;
    uint64_t peer;
    struct msg m;
    void *d;

    open_socket(f, 0, 0);
    d = dealer(f);
    say(d, MSG_BYE);
    peer = next_event(f).peer;
    broker_socket_admit(f->s, peer, 0);
    msg_init(&m, MSG_REFUSE);
    m.refuse.reason = MSG_REASON_LIMIT;
    assert_int_equal(broker_socket_send_msg(f->s, peer, &m, NULL), 0);
    broker_socket_drop(f->s, peer);
    for (int i = 0; i < 200; i++)
        say(d, MSG_BYE);
    assert_int_equal(hear(d, &m), MSG_REFUSE); /* what was sent before arrives */
    expect_nothing(f, 500);
    assert_int_equal(broker_socket_counters(f->s).closed, 1);
    (void)zmq_close(d);
}

static void test_broker_socket_a_lost_peer_is_gone_after_its_last_words(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_event e;
    uint64_t peer;
    struct msg m;
    void *d;

    open_socket(f, 0, 0);
    for (int round = 0; round < 20; round++) { /* the kernel gives the same descriptor each time */
        d = dealer(f);
        say(d, MSG_DRAIN);
        peer = next_event(f).peer;
        say(d, MSG_BYE);
        msg_init(&m, MSG_DRAIN);
        assert_int_equal(broker_socket_send_msg(f->s, peer, &m, NULL), 0);
        assert_int_equal(hear(d, &m), MSG_DRAIN); /* so what it said before is on its way */
        (void)zmq_close(d);
        e = next_event(f);
        if (e.type == BROKER_SOCKET_MESSAGE) { /* linger 0 may lose it, never reorder it */
            assert_int_equal(e.peer, peer);
            e = next_event(f);
        }
        assert_int_equal(e.type, BROKER_SOCKET_GONE);
        assert_int_equal(e.peer, peer);
        assert_int_equal(broker_socket_send_msg(f->s, peer, &m, NULL), -EHOSTUNREACH);
    }
    assert_int_equal(broker_socket_counters(f->s).lost_peers, 20);
}

/* More than ZeroMQ hands on at once: it tells of the connection's end before the rest. What it has not read from the
 * kernel by then it drops, so not all need to come. */
static void test_broker_socket_nobody_speaks_after_being_gone(void **state)
{
    static const int delays_ms[] = {0, 1, 5};
    struct fixture *f = *state;
    struct broker_socket_event e;

    open_socket(f, 0, 0);
    for (int round = 0; round < 90; round++) {
        int linger_ms = 5000, n_words = 15 + round % 5;
        void *d = dealer(f);
        uint64_t peer;

        assert_int_equal(zmq_setsockopt(d, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)), 0);
        say(d, MSG_DRAIN);
        peer = next_event(f).peer;
        for (int i = 0; i < n_words; i++)
            say(d, MSG_BYE);
        (void)zmq_close(d);
        (void)poll(NULL, 0, delays_ms[round % 3]);
        while ((e = next_event(f)).type == BROKER_SOCKET_MESSAGE)
            assert_int_equal(e.peer, peer);
        assert_int_equal(e.type, BROKER_SOCKET_GONE);
        (void)poll(NULL, 0, 3);
        assert_int_equal(broker_socket_next(f->s, &e), 0);
    }
}

/* The broker stood still meanwhile (SIGSTOP, a slow disk), longer than ZMTP's heartbeats would have waited. */
static void test_broker_socket_a_peer_may_go_with_many_messages_unread(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_event e;
    int linger_ms = 5000, n_words = 0;
    void *d;

    open_socket(f, 0, 0);
    d = dealer(f);
    assert_int_equal(zmq_setsockopt(d, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)), 0);
    for (int i = 0; i < 40; i++)
        say(d, MSG_BYE);
    (void)zmq_close(d);
    (void)poll(NULL, 0, 2500);
    while ((e = next_event(f)).type == BROKER_SOCKET_MESSAGE)
        n_words++;
    assert_int_equal(e.type, BROKER_SOCKET_GONE);
    assert_true(n_words >= 16);
}

static void test_broker_socket_last_words_keep_their_number_when_a_send_fails_first(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_event e;
    int linger_ms = 5000, n_words = 0;
    uint64_t peer;
    struct msg m;
    void *d;

    open_socket(f, 0, 0);
    d = dealer(f);
    assert_int_equal(zmq_setsockopt(d, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)), 0);
    say(d, MSG_DRAIN);
    peer = next_event(f).peer;
    for (int i = 0; i < 3; i++)
        say(d, MSG_BYE);
    (void)zmq_close(d);
    msg_init(&m, MSG_DRAIN);
    /* so few sends that ZeroMQ's queue of 16 is not full before the connection is closed: nothing would fail then */
    for (int ms = 1; broker_socket_send_msg(f->s, peer, &m, NULL) != -EHOSTUNREACH; ms *= 2) {
        assert_true(ms < 1 << 15);
        (void)poll(NULL, 0, ms);
    }
    while ((e = next_event(f)).type == BROKER_SOCKET_MESSAGE) {
        assert_int_equal(e.peer, peer);
        n_words++;
    }
    assert_int_equal(n_words, 3);
    assert_int_equal(e.type, BROKER_SOCKET_GONE);
    assert_int_equal(e.peer, peer);
}

static void test_broker_socket_garbage_is_an_event_not_an_error(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_event e;
    void *d;

    open_socket(f, 0, 0);
    d = dealer(f);
    assert_true(zmq_send(d, "garbage", 7, ZMQ_SNDMORE) >= 0 && zmq_send(d, "x", 1, 0) >= 0);
    e = next_event(f);
    assert_int_equal(e.type, BROKER_SOCKET_BAD);
    assert_int_equal(e.why_code, -EBADMSG);
    assert_string_not_equal(e.why.text, "");
    assert_int_equal(broker_socket_counters(f->s).bad, 1);
    (void)zmq_close(d);
}

static void test_broker_socket_slow_peer_fills_only_its_own_queue(void **state)
{
    struct fixture *f = *state;
    uint32_t shape[2] = {4, 250000};
    struct wire_message *m;
    struct wire_tensor *t;
    uint64_t peer;
    void *slow, *quick;
    uint8_t *zeros = calloc(4, 1000000);
    int rc, n_sent = 0, n_heard = 0;
    struct msg answer;

    open_socket(f, 0, 10);
    slow = dealer(f);
    quick = dealer(f);
    say(slow, MSG_DRAIN);
    peer = next_event(f).peer;
    assert_int_equal(wire_tensor_new(DTYPE_F32, shape, 2, zeros, NULL, NULL, &t, NULL), 0);
    for (;;) {
        struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1};
        struct buf rows;

        assert_int_equal(wire_message_new(MSG_WORK, &m), 0);
        buf_init(&rows, 0);
        for (int i = 0; i < 4; i++)
            assert_int_equal(row_item_append(&rows, &item), 0);
        wire_message_envelope(m)->work.lease = (struct msg_lease){.epoch = 1, .id = 1, .count = 4};
        assert_int_equal(wire_message_add_rows(m, &rows, 4), 0);
        assert_int_equal(wire_message_add_tensor(m, t), 0);
        rc = broker_socket_send(f->s, peer, &m, NULL);
        if (rc < 0)
            break;
        assert_null(m);
        assert_true(++n_sent < 5000);
    }
    assert_int_equal(rc, -ENOBUFS);
    assert_non_null(m);
    wire_message_free(m);
    assert_int_equal(broker_socket_counters(f->s).queued_messages, 10);
    say(quick, MSG_DRAIN);
    msg_init(&answer, MSG_DRAIN);
    assert_int_equal(broker_socket_send_msg(f->s, next_event(f).peer, &answer, NULL), 0);
    assert_int_equal(hear(quick, &answer), MSG_DRAIN); /* others do not wait */
    while (n_heard < n_sent) {                         /* and the slow one gets everything in the end */
        int more = 1, timeout = 0;
        size_t n = sizeof(more);

        (void)zmq_setsockopt(slow, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
        if (zmq_recv(slow, zeros, 4000000, 0) < 0) {
            assert_int_equal(broker_socket_wait(f->s, NULL, 0, 20), 0);
            continue;
        }
        assert_int_equal(zmq_getsockopt(slow, ZMQ_RCVMORE, &more, &n), 0);
        n_heard += !more;
    }
    assert_int_equal(broker_socket_counters(f->s).queued_messages, 0);
    wire_tensor_free(t);
    free(zeros);
    (void)zmq_close(slow);
    (void)zmq_close(quick);
}

static void test_broker_socket_peers_past_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    struct broker_socket_event e;
    struct msg m;
    void *d[3];

    open_socket(f, 2, 0);
    for (int i = 0; i < 2; i++) {
        d[i] = dealer(f);
        say(d[i], MSG_DRAIN);
        (void)next_event(f);
    }
    d[2] = dealer(f);
    say(d[2], MSG_DRAIN);
    for (int i = 0; i < 100 && broker_socket_counters(f->s).refused_peers == 0; i++) {
        assert_int_equal(broker_socket_wait(f->s, NULL, 0, 50), 0);
        assert_int_equal(broker_socket_next(f->s, &e), 0);
    }
    assert_int_equal(hear(d[2], &m), MSG_REFUSE);
    assert_int_equal(m.refuse.reason, MSG_REASON_LIMIT);
    (void)zmq_close(d[0]);
    assert_int_equal(next_event(f).type, BROKER_SOCKET_GONE);
    say(d[2], MSG_DRAIN);
    assert_int_equal(next_event(f).type, BROKER_SOCKET_MESSAGE); /* there is room now */
    (void)zmq_close(d[1]);
    (void)zmq_close(d[2]);
}

static void test_broker_socket_wait_sees_the_callers_descriptors(void **state)
{
    struct fixture *f = *state;
    struct pollfd p = {.fd = eventfd(1, EFD_CLOEXEC), .events = POLLIN};
    int64_t start = clock_mono_ms();

    open_socket(f, 0, 0);
    assert_int_equal(broker_socket_wait(f->s, &p, 1, 3 * PATIENCE_MS), 0);
    assert_true(p.revents & POLLIN);
    assert_true(clock_mono_ms() - start < 2 * PATIENCE_MS);
    assert_int_equal(broker_socket_wait(f->s, NULL, 0, 10), 0);
    (void)close(p.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_broker_socket_peers_are_numbered_and_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_file_is_for_its_owner_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_live_path_is_refused_dead_path_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_refuses_what_would_be_open_to_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_who_is_not_admitted_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_connections_past_the_limit_are_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_a_dropped_peer_is_heard_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_a_lost_peer_is_gone_after_its_last_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_nobody_speaks_after_being_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_a_peer_may_go_with_many_messages_unread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_last_words_keep_their_number_when_a_send_fails_first, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_garbage_is_an_event_not_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_slow_peer_fills_only_its_own_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_peers_past_the_limit_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_socket_wait_sees_the_callers_descriptors, setup, teardown),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    wire_exit();
    return rc;
}
