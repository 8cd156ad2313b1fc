#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "tensor/cpu_pool.h"

enum { THREADS = 3, PIECES = 1000 };

struct tally {
    _Atomic int seen[CPU_POOL_MAX_PIECES];
    _Atomic int wrong_thread;
};

static struct tally tally;

static void count(void *arg, int64_t piece, int thread)
{
    struct tally *t = arg;

    t->seen[piece]++;
    if (thread < 0 || thread >= THREADS)
        t->wrong_thread++;
}

static struct cpu_pool *pool_of(int n_threads)
{
    struct cpu_pool *p;
    struct err err;

    if (cpu_pool_new(n_threads, &p, &err) < 0)
        fail_msg("%s", err.text);
    return p;
}

static void test_pool_does_each_piece_once(void **state)
{
    static const int sizes[] = {1, 2, 3, 7, PIECES, CPU_POOL_MAX_PIECES};
    struct cpu_pool *p = pool_of(THREADS);

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(&tally, 0, sizeof(tally));
        cpu_pool_run(p, sizes[i], count, &tally);
        for (int j = 0; j < CPU_POOL_MAX_PIECES; j++)
            assert_int_equal(tally.seen[j], j < sizes[i]);
        assert_int_equal(tally.wrong_thread, 0);
    }
    cpu_pool_free(p);
}

/* Calls so short that helpers often come when the pieces of a call are gone, and after pauses in which they fall
 * asleep. */
static void test_pool_calls_follow_one_another(void **state)
{
    struct cpu_pool *p = pool_of(THREADS);
    int n_calls = 0;

    (void)state;
    memset(&tally, 0, sizeof(tally));
    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < 2000; j++, n_calls++)
            cpu_pool_run(p, 2 + j % 3, count, &tally);
        (void)usleep(2000);
    }
    assert_int_equal(tally.seen[0], n_calls);
    assert_int_equal(tally.seen[1], n_calls);
    assert_int_equal(tally.seen[2], 20 * 1333); /* of 2000 calls a third has two pieces, one three and one four */
    assert_int_equal(tally.seen[3], 20 * 666);
    cpu_pool_free(p);
}

static void test_pool_of_one_thread_is_the_caller(void **state)
{
    struct cpu_pool *p = pool_of(1);

    (void)state;
    memset(&tally, 0, sizeof(tally));
    cpu_pool_run(p, PIECES, count, &tally);
    for (int j = 0; j < PIECES; j++)
        assert_int_equal(tally.seen[j], 1);
    cpu_pool_free(p);
    cpu_pool_free(NULL);
}

static pthread_t caller;
static _Atomic int n_elsewhere;

static void on_signal(int number)
{
    (void)number;
    if (!pthread_equal(pthread_self(), caller))
        n_elsewhere++;
}

static void send_signal(void *arg, int64_t piece, int thread)
{
    (void)arg;
    (void)piece;
    (void)thread;
    (void)kill(getpid(), SIGUSR1);
}

static void test_pool_threads_take_no_signals(void **state)
{
    struct sigaction act = {.sa_handler = on_signal};
    struct cpu_pool *p = pool_of(THREADS);

    (void)state;
    caller = pthread_self();
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    cpu_pool_run(p, PIECES, send_signal, NULL);
    assert_int_equal(n_elsewhere, 0);
    cpu_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_does_each_piece_once),
        cmocka_unit_test(test_pool_calls_follow_one_another),
        cmocka_unit_test(test_pool_of_one_thread_is_the_caller),
        cmocka_unit_test(test_pool_threads_take_no_signals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
