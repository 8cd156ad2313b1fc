/* What JOB_CONTROL makes of a job's row. */
#include "broker/control.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { NOW_MS = 5000, ENDED_MS = 4000 };

static void test_control_applies_what_fits_and_refuses_the_rest(void **state)
{
    enum { RUN = STORED_WANTED_RUN, PAUSED = STORED_WANTED_PAUSED, CANCELLED = STORED_WANTED_CANCELLED };
    static const struct {
        int wanted;
        bool ended;
        enum msg_job_action action;
        int wanted_then; /* -1: refused */
        bool ended_then;
    } cases[] = {
        {RUN, false, MSG_JOB_PAUSE, PAUSED, false},
        {RUN, false, MSG_JOB_RESUME, RUN, false},
        {RUN, false, MSG_JOB_CANCEL, CANCELLED, true},
        {RUN, false, MSG_JOB_REMOVE, -1, false},
        {PAUSED, false, MSG_JOB_PAUSE, PAUSED, false},
        {PAUSED, false, MSG_JOB_RESUME, RUN, false},
        {PAUSED, false, MSG_JOB_CANCEL, CANCELLED, true},
        {PAUSED, false, MSG_JOB_REMOVE, -1, false},
        {RUN, true, MSG_JOB_PAUSE, -1, true},
        {RUN, true, MSG_JOB_RESUME, -1, true},
        {RUN, true, MSG_JOB_CANCEL, -1, true},
        {RUN, true, MSG_JOB_REMOVE, STORED_WANTED_REMOVED, true},
        {CANCELLED, true, MSG_JOB_PAUSE, -1, true},
        {CANCELLED, true, MSG_JOB_RESUME, -1, true},
        {CANCELLED, true, MSG_JOB_CANCEL, CANCELLED, true},
        {CANCELLED, true, MSG_JOB_REMOVE, STORED_WANTED_REMOVED, true},
        {STORED_WANTED_REMOVED, true, MSG_JOB_RESUME, -1, true},
        {RUN, false, MSG_JOB_RETRY, RUN, false},
        {PAUSED, false, MSG_JOB_RETRY, RUN, false},
        {RUN, true, MSG_JOB_RETRY, RUN, false},
        {CANCELLED, true, MSG_JOB_RETRY, -1, true},
        {STORED_WANTED_REMOVED, true, MSG_JOB_RETRY, -1, true},
        {STORED_WANTED_REMOVED, true, MSG_JOB_REMOVE, STORED_WANTED_REMOVED, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct msg_job_control c = {.job = 7, .action = cases[i].action};
        struct stored_job_entry e = {
            .job = 7, .wanted = (enum stored_wanted)cases[i].wanted, .ended_ms = cases[i].ended ? ENDED_MS : 0};
        const struct stored_job_entry before = e;
        struct err err = {""};
        int rc = control_apply(&e, &c, NOW_MS, &err);

        if (cases[i].wanted_then < 0) {
            assert_int_equal(rc, -EPERM);
            assert_non_null(strstr(err.text, "job 7"));
            assert_memory_equal(&e, &before, sizeof(e));
            continue;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(e.wanted, cases[i].wanted_then);
        assert_int_equal(e.ended_ms, !cases[i].ended_then ? 0 : cases[i].ended ? ENDED_MS : NOW_MS);
        assert_int_equal(e.retrying, cases[i].action == MSG_JOB_RETRY);
    }
}

static void test_control_pause_keeps_the_reason_of_an_earlier_pause(void **state)
{
    struct stored_job_entry e = {.job = 7, .wanted = STORED_WANTED_PAUSED, .text = "too many failures"};
    struct msg_job_control c = {.job = 7, .action = MSG_JOB_PAUSE};
    struct err err;

    (void)state;
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), 0);
    assert_string_equal(e.text, "too many failures");
    c.action = MSG_JOB_RESUME;
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), 0);
    assert_string_equal(e.text, "");
}

static void test_control_a_retry_waits_for_the_end_of_another(void **state)
{
    struct msg_job_control c = {.job = 7, .action = MSG_JOB_RETRY, .n_codes = 1, .codes = {"missing"}};
    struct stored_job_entry e = {.job = 7, .ended_ms = ENDED_MS, .text = "why"};
    struct err err;

    (void)state;
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), 0);
    assert_true(e.retrying && e.n_retry_codes == 1 && strcmp(e.retry_codes[0], "missing") == 0 && !e.text[0]);
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), 0); /* the same request, sent again */
    c.n_codes = 0;
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), -EPERM);
    assert_int_equal(e.n_retry_codes, 1);
    c.action = MSG_JOB_CANCEL;
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), 0);
    assert_false(e.retrying);
}

static void test_control_priority_changes_nothing_else(void **state)
{
    const struct msg_job_control c = {.job = 7, .action = MSG_JOB_PRIORITY, .priority = 300};
    struct stored_job_entry e = {.job = 7, .wanted = STORED_WANTED_PAUSED, .priority = 5, .text = "why"};
    struct stored_job_entry want = e;
    struct err err;

    (void)state;
    want.priority = 300;
    assert_int_equal(control_apply(&e, &c, NOW_MS, &err), 0);
    assert_memory_equal(&e, &want, sizeof(e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_applies_what_fits_and_refuses_the_rest),
        cmocka_unit_test(test_control_pause_keeps_the_reason_of_an_earlier_pause),
        cmocka_unit_test(test_control_a_retry_waits_for_the_end_of_another),
        cmocka_unit_test(test_control_priority_changes_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
