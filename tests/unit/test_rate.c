#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/rate.h"

/* Grows by `step` every `every_ms`, sampled every second, for so long. */
static void run(struct rate *r, uint64_t *count, int64_t *now_ms, int64_t ms, uint64_t step, int64_t every_ms)
{
    const int64_t end = *now_ms + ms;

    for (; *now_ms < end; *now_ms += 100) {
        if (step && *now_ms % every_ms == 0)
            *count += step;
        if (*now_ms % 1000 == 0)
            rate_sample(r, *count, *now_ms);
    }
}

static void test_rate_is_known_after_seconds(void **state)
{
    struct rate r = {.n = 0};
    uint64_t count = 0;
    int64_t now_ms = 0;

    (void)state;
    assert_int_equal(rate_get(&r, 0, 0, true), 0);
    run(&r, &count, &now_ms, 2000, 5, 100);
    assert_in_range(rate_get(&r, count, now_ms, false), 47000, 53000); /* 50 a second */
}

static void test_rate_is_that_of_the_last_seconds(void **state)
{
    struct rate r = {.n = 0};
    uint64_t count = 0;
    int64_t now_ms = 0;

    (void)state;
    run(&r, &count, &now_ms, 100000, 5, 100);
    assert_in_range(rate_get(&r, count, now_ms, false), 49000, 51000);
    run(&r, &count, &now_ms, 16000, 1, 100);
    assert_in_range(rate_get(&r, count, now_ms, false), 9900, 10100);
    run(&r, &count, &now_ms, 16000, 0, 100);
    assert_int_equal(rate_get(&r, count, now_ms, false), 0); /* it has stopped */
    assert_in_range(rate_get(&r, count, now_ms, true), 1, 40000);
}

static void test_rate_of_large_steps_is_that_of_a_minute(void **state)
{
    struct rate r = {.n = 0};
    uint64_t count = 0;
    int64_t now_ms = 0;

    (void)state;
    run(&r, &count, &now_ms, 300000, 320, 20000); /* 16 a second */
    for (int i = 0; i < 20; i++) {
        assert_in_range(rate_get(&r, count, now_ms, true), 14000, 21500);
        run(&r, &count, &now_ms, 1000, 320, 20000);
    }
}

static void test_rate_of_a_count_that_falls_is_none(void **state)
{
    struct rate r = {.n = 0};

    (void)state;
    rate_sample(&r, 100, 0);
    assert_int_equal(rate_get(&r, 10, 1000, false), 0);
    assert_int_equal(rate_get(&r, 200, 0, false), 0); /* no time has passed */
    assert_int_equal(rate_get(&r, UINT64_MAX, 1000, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_is_known_after_seconds),
        cmocka_unit_test(test_rate_is_that_of_the_last_seconds),
        cmocka_unit_test(test_rate_of_large_steps_is_that_of_a_minute),
        cmocka_unit_test(test_rate_of_a_count_that_falls_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
