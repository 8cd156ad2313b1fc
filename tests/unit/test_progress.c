#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "client/progress.h"

static void test_progress_rate_is_that_of_the_window(void **state)
{
    struct progress p;
    int64_t t = 1000;
    uint64_t n = 0;

    (void)state;
    progress_init(&p, t, 0, 100000);
    assert_true(progress_rate(&p) == 0.0);
    for (; t < 21000; t += 100) { /* 100 a second */
        progress_update(&p, t, n, 0, 100000);
        n += 10;
    }
    assert_true(progress_rate(&p) > 95 && progress_rate(&p) < 105);
    for (; t < 41000; t += 100) { /* 1000 a second: the slow part leaves the window */
        progress_update(&p, t, n, 0, 100000);
        n += 100;
    }
    assert_true(progress_rate(&p) > 990 && progress_rate(&p) < 1010);
}

static void test_progress_items_of_earlier_runs_are_no_speed(void **state)
{
    struct progress p;

    (void)state;
    progress_init(&p, 0, 5000, 10000);
    progress_update(&p, 1000, 5000, 0, 10000);
    assert_true(progress_rate(&p) == 0.0);
    progress_update(&p, 2000, 5050, 0, 10000);
    assert_true(progress_rate(&p) > 24.9 && progress_rate(&p) < 25.1);
}

static void test_progress_eta_waits_and_then_is_the_rest_over_the_rate(void **state)
{
    struct progress p;

    (void)state;
    progress_init(&p, 0, 0, 1000);
    progress_update(&p, 1000, 100, 0, 1000);
    assert_int_equal(progress_eta_ms(&p, 1000), -1); /* too early to tell */
    progress_update(&p, 4000, 400, 0, 1000);
    assert_int_equal(progress_eta_ms(&p, 4000), 6000);
    progress_init(&p, 0, 0, 1000);
    progress_update(&p, 9000, 0, 0, 1000);
    assert_int_equal(progress_eta_ms(&p, 9000), -1); /* nothing moves */
}

static void test_progress_counting_that_starts_over_is_taken(void **state)
{
    struct progress p;

    (void)state;
    progress_init(&p, 0, 0, 100);
    progress_update(&p, 1000, 50, 0, 100);
    progress_update(&p, 2000, 10, 1, 100);
    assert_int_equal(p.n_done, 10);
    assert_int_equal(p.n_failed, 1);
    assert_true(progress_rate(&p) == 0.0);
}

static void test_progress_bar_fits_every_width(void **state)
{
    struct progress p;
    char text[300];

    (void)state;
    progress_init(&p, 0, 0, 200);
    progress_update(&p, 4000, 124, 3, 200);
    for (unsigned columns = 1; columns < 250; columns++) {
        memset(text, 'x', sizeof(text));
        progress_bar(&p, 4000, columns, text, sizeof(text));
        assert_true(strlen(text) < columns || columns == 0);
    }
    progress_bar(&p, 4000, 100, text, sizeof(text));
    assert_non_null(strstr(text, " 62% [==="));
    assert_non_null(strstr(text, "124/200  31.0 img/s  ETA 2s  3 failed"));
    progress_update(&p, 5000, 200, 3, 200);
    progress_bar(&p, 5000, 100, text, sizeof(text));
    assert_non_null(strstr(text, "100% ["));
    assert_null(strstr(text, "ETA"));
}

static void test_progress_bar_of_no_items_is_no_division_by_zero(void **state)
{
    struct progress p;
    char text[100];

    (void)state;
    progress_init(&p, 0, 0, 0);
    progress_bar(&p, 0, 80, text, sizeof(text));
    assert_non_null(strstr(text, "  0% ["));
    progress_line(&p, 0, text, sizeof(text));
    assert_string_equal(text, "0 of 0 done");
}

static void test_progress_line_says_it_in_words(void **state)
{
    struct progress p;
    char text[100];

    (void)state;
    progress_init(&p, 0, 0, 1000000);
    progress_update(&p, 10000, 10000, 7, 1000000);
    progress_line(&p, 10000, text, sizeof(text));
    assert_string_equal(text, "10000 of 1000000 done, 1000 img/s, 16m30s to go, 7 failed");
}

static void test_progress_gives_no_rate_of_a_wait_and_no_zero_of_slow_work(void **state)
{
    char rate[PROGRESS_RATE_SIZE], text[100];
    struct progress p;

    (void)state;
    progress_init(&p, 0, 5, 100);
    for (int64_t t = 0; t <= 300000; t += 1000)
        progress_update(&p, t, 5, 0, 100);
    progress_line(&p, 300000, text, sizeof(text));
    assert_string_equal(text, "5 of 100 done");
    progress_bar(&p, 300000, 80, text, sizeof(text));
    assert_null(strstr(text, "img/s"));
    assert_string_equal(progress_rate_text(0.0042, rate), "0.0042");
    assert_string_equal(progress_rate_text(0.5, rate), "0.50");
}

static void test_progress_durations_and_rates_are_short(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } durations[] = {{0, "0s"},         {499, "0s"},        {500, "1s"},         {59499, "59s"},      {59500, "1m00s"},
                     {187000, "3m07s"}, {7500000, "2h05m"}, {86400000, "1d00h"}, {273600000, "3d04h"}};
    static const struct {
        double rate;
        const char *text;
    } rates[] = {{0, "0.00"}, {0.517, "0.52"}, {35.24, "35.2"}, {1250.4, "1250"}};
    char text[PROGRESS_RATE_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
        assert_string_equal(progress_duration(durations[i].ms, text), durations[i].text);
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
        assert_string_equal(progress_rate_text(rates[i].rate, text), rates[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_rate_is_that_of_the_window),
        cmocka_unit_test(test_progress_items_of_earlier_runs_are_no_speed),
        cmocka_unit_test(test_progress_eta_waits_and_then_is_the_rest_over_the_rate),
        cmocka_unit_test(test_progress_counting_that_starts_over_is_taken),
        cmocka_unit_test(test_progress_bar_fits_every_width),
        cmocka_unit_test(test_progress_bar_of_no_items_is_no_division_by_zero),
        cmocka_unit_test(test_progress_line_says_it_in_words),
        cmocka_unit_test(test_progress_gives_no_rate_of_a_wait_and_no_zero_of_slow_work),
        cmocka_unit_test(test_progress_durations_and_rates_are_short),
    };

    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
