#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "client/report.h"

static void check_words(const struct report *r, const char *want)
{
    char text[1024] = "";
    struct terminal s;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    terminal_init(&s, fds[1]);
    report_words(r, &s);
    (void)close(fds[1]);
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    (void)close(fds[0]);
    assert_string_equal(text, want);
}

static void check(uint64_t n_before, uint64_t n_done, uint64_t n_failed, bool done, const char *want)
{
    const struct msg_job_progress progress = {.n_items = 24, .n_done = n_done, .n_failed = n_failed};
    const struct msg_recipe recipe = {.decode = {.max_new_tokens = 20}};
    const struct report r = {
        .store = "s", .progress = &progress, .n_before = n_before, .elapsed_ms = 2000, .done = done, .recipe = &recipe};

    check_words(&r, want);
}

static void test_report_says_nothing_to_do_only_when_all_is_done(void **state)
{
    (void)state;
    check(24, 24, 0, true, "blipline: s: nothing to do, 24 items are done\n");
    check(24, 24, 1, true, "blipline: s: nothing to do, 24 items are done (some failed: blipline stats s)\n");
    check(0, 0, 0, false, "blipline: s: 0 of 24 items done, none in this run\n");
    check(7, 7, 0, false, "blipline: s: 7 of 24 items done, none in this run\n");
}

static void test_report_counts_in_words_that_fit_the_number(void **state)
{
    (void)state;
    check(4, 8, 1, false,
          "blipline: s: 8 of 24 items done, 4 in this run in 2.0 s (2.00 img/s)\n"
          "blipline: 1 item failed; `blipline stats s` counts the reasons\n");
    check(0, 24, 2, true,
          "blipline: s: 24 of 24 items done, 24 in this run in 2.0 s (12.0 img/s)\n"
          "blipline: 2 items failed; `blipline stats s` counts the reasons\n"
          "blipline: read them with: blipline export s --format jsonl\n");
}

static void test_report_counts_what_was_done_again_and_leaves_waiting_out(void **state)
{
    struct msg_job_progress progress = {.n_items = 24, .n_done = 24, .n_redone = 9};
    const struct msg_recipe recipe = {.decode = {.max_new_tokens = 20}};
    struct report r = {.store = "s",
                       .progress = &progress,
                       .n_before = 20,
                       .n_redone_before = 5,
                       .elapsed_ms = 62000,
                       .waited_ms = 60000,
                       .done = true,
                       .recipe = &recipe};

    (void)state;
    check_words(&r,
                "blipline: s: 24 of 24 items done, 8 in this run (4 of them once more) in 2.0 s and a wait of 1m00s "
                "(4.00 img/s)\n"
                "blipline: read them with: blipline export s --format jsonl\n");
    progress.n_again = 1;
    r.n_before = 24;
    r.n_redone_before = 9;
    check_words(&r, "blipline: s: 23 of 24 items done, none in this run\n"
                    "blipline: 1 item could not be done again; the record stays, and the next run tries once more\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report_says_nothing_to_do_only_when_all_is_done),
        cmocka_unit_test(test_report_counts_in_words_that_fit_the_number),
        cmocka_unit_test(test_report_counts_what_was_done_again_and_leaves_waiting_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
