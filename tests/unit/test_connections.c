#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/connections.h"

enum { SILENT_MS = 100 };

static int setup(void **state)
{
    static int fds[2];

    *state = fds;
    return socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

static int teardown(void **state)
{
    const int *fds = *state;

    (void)close(fds[0]);
    (void)close(fds[1]);
    return 0;
}

static bool is_closed(void **state)
{
    char byte;

    return recv(((int *)*state)[1], &byte, 1, MSG_DONTWAIT) == 0;
}

static void test_connections_that_are_not_admitted_are_closed(void **state)
{
    const int fd = **(int **)state;
    struct connections c;

    connections_init(&c, 10, SILENT_MS);
    connections_accepted(&c, fd, 1000);
    connections_close_due(&c, 1000 + SILENT_MS - 1);
    assert_false(is_closed(state));
    connections_close_due(&c, 1000 + SILENT_MS);
    assert_true(is_closed(state));
    assert_int_equal(c.n_closed, 1);
    connections_release(&c);
}

/* The event of the monitor comes before the first message, or behind it. */
static void test_connections_that_are_admitted_stay(void **state)
{
    const int fd = **(int **)state;

    for (int early = 0; early < 2; early++) {
        struct connections c;

        connections_init(&c, 10, SILENT_MS);
        for (int use = 0; use < 3; use++) { /* a descriptor is reused */
            if (!early)
                connections_accepted(&c, fd, 1000);
            connections_heard(&c, fd, 1000);
            connections_admit(&c, fd, connections_use(&c, fd), 0);
            if (early)
                connections_accepted(&c, fd, 1001);
            connections_close_due(&c, 1000 + 10 * SILENT_MS);
            assert_false(is_closed(state));
            assert_int_equal(c.n_open, 1);
            connections_lost(&c, fd);
            assert_int_equal(c.n_open, 0);
        }
        connections_release(&c);
    }
}

/* The connection is lost before the event that tells of it. */
static void tcp_pair(int ret[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t n = sizeof(address);

    assert_int_equal(bind(listener, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &n), 0);
    ret[1] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(ret[1], (struct sockaddr *)&address, n), 0);
    ret[0] = accept(listener, NULL, NULL);
    assert_true(ret[0] >= 0);
    (void)close(listener);
}

static void pass(const int fds[2], size_t n_bytes)
{
    static char bytes[65536];

    for (size_t n = 0; n < n_bytes; n += sizeof(bytes)) {
        assert_int_equal(send(fds[1], bytes, sizeof(bytes), 0), sizeof(bytes));
        assert_int_equal(recv(fds[0], bytes, sizeof(bytes), MSG_WAITALL), sizeof(bytes));
    }
}

/* What came since the last whole message counts, at two looks. */
static void test_connections_with_an_endless_message_are_found(void **state)
{
    struct connections c;
    int64_t now_ms = 1000;
    int fds[2];

    (void)state;
    tcp_pair(fds);
    connections_init(&c, 10, SILENT_MS);
    connections_accepted(&c, fds[0], now_ms);
    connections_admit(&c, fds[0], connections_use(&c, fds[0]), 1 << 20);
    for (int i = 0; i < 4; i++) { /* many short messages */
        pass(fds, 768 << 10);
        connections_spoke(&c, fds[0]);
        assert_int_equal(connections_next_unfinished(&c, now_ms += 1000), -1);
    }
    pass(fds, 1 << 20);
    for (int i = 0; i < 4; i++)
        assert_int_equal(connections_next_unfinished(&c, now_ms += 1000), -1);
    pass(fds, 1 << 16);
    assert_int_equal(connections_next_unfinished(&c, now_ms += 1000), -1);
    assert_int_equal(connections_next_unfinished(&c, now_ms), -1); /* at once is no second look */
    assert_int_equal(connections_next_unfinished(&c, now_ms += 1000), fds[0]);
    connections_drop(&c, fds[0], connections_use(&c, fds[0]), now_ms);
    assert_int_equal(connections_next_unfinished(&c, now_ms), -1);
    connections_lost(&c, fds[0]);
    assert_int_equal(c.n_tcp, 0);
    connections_release(&c);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void test_connections_do_not_open_once_lost(void **state)
{
    const int fd = **(int **)state;
    struct connections c;

    connections_init(&c, 10, SILENT_MS);
    connections_heard(&c, fd, 1000);
    connections_lost(&c, fd);
    connections_accepted(&c, fd, 1001);
    assert_int_equal(c.n_open, 0);
    connections_close_due(&c, 1000 + 10 * SILENT_MS);
    assert_false(is_closed(state));
    connections_release(&c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_connections_that_are_not_admitted_are_closed),
        TEST(test_connections_that_are_admitted_stay),
        TEST(test_connections_do_not_open_once_lost),
        TEST(test_connections_with_an_endless_message_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
