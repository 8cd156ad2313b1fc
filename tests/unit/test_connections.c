#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

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
            connections_admit(&c, fd, connections_use(&c, fd));
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
