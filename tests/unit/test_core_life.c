/* The life of a job in the core: its state at every step, un-sealing, failing, closing and opening again. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "tests/unit/core_rig.h"

static const struct core_node one_stage[1] = {{.stage = 1}};

static enum core_job_state state_of(const struct rig *b)
{
    return core_job_state_get(b->core, JOB);
}

static void add_units(struct rig *b, uint32_t from, uint32_t n)
{
    struct core_unit_row rows[8];
    struct core_event e = {.type = CORE_EVENT_UNITS};

    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct core_unit_row){.unit = from + i, .n_items = 4};
    rig_job_event(b, CORE_EVENT_UNITS_ADDED);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, from);
    e.units.job = JOB;
    e.units.n = n;
    e.units.rows = rows;
    e.units.exhausted = true;
    assert_int_equal(rig_step(b, &e), 0);
}

static void do_one(struct rig *b)
{
    const struct core_work w = rig_work_of(b);

    (void)rig_result(b, &w, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, w.unit);
}

static void test_core_life_has_one_state_at_each_step(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    assert_int_equal(state_of(b), CORE_JOB_NONE);
    rig_hello(b, ENCODER, 1, 4);
    rig_open_job(b, JOB, one_stage, 1, 0);
    assert_int_equal(state_of(b), CORE_JOB_RUNNING);
    rig_give_units(b, JOB, 2, 4, 0);
    w = rig_work_of(b);
    rig_job_event(b, CORE_EVENT_JOB_STOP);
    assert_int_equal(state_of(b), CORE_JOB_STOPPING);
    (void)rig_result(b, &w, 0);
    assert_int_equal(state_of(b), CORE_JOB_STOPPING); /* its commit is not answered */
    rig_commit_answer(b, CORE_EVENT_COMMITTED, w.unit);
    (void)rig_got(b, CORE_DO_JOB_STOPPED);
    assert_int_equal(state_of(b), CORE_JOB_STOPPED);
    rig_job_event(b, CORE_EVENT_JOB_START);
    assert_int_equal(state_of(b), CORE_JOB_RUNNING);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    rig_commit_answer(b, CORE_EVENT_COMMIT_FAILED, w.unit);
    assert_int_equal(state_of(b), CORE_JOB_BLOCKED);
    rig_job_event(b, CORE_EVENT_DISK_OK);
    assert_int_equal(state_of(b), CORE_JOB_RUNNING);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, w.unit);
    assert_int_equal(state_of(b), CORE_JOB_DONE);
    rig_job_event(b, CORE_EVENT_JOB_CLOSE);
    assert_int_equal(state_of(b), CORE_JOB_NONE);
}

static void test_core_life_a_job_that_is_done_takes_new_units(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    do_one(b);
    (void)rig_got(b, CORE_DO_JOB_DONE);
    add_units(b, 1, 1);
    assert_int_equal(state_of(b), CORE_JOB_IMPORTING);
    do_one(b);
    assert_int_equal(state_of(b), CORE_JOB_IMPORTING); /* until it is sealed once more */
    rig_job_event(b, CORE_EVENT_JOB_SEALED);
    (void)rig_got(b, CORE_DO_JOB_DONE);
    assert_int_equal(state_of(b), CORE_JOB_DONE);
}

static void test_core_life_a_disk_that_is_full_for_rows_blocks_the_job(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_job_event(b, CORE_EVENT_DISK_FULL);
    assert_int_equal(state_of(b), CORE_JOB_BLOCKED);
    rig_give_units(b, JOB, 1, 4, 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    rig_job_event(b, CORE_EVENT_DISK_OK);
    do_one(b);
    assert_int_equal(state_of(b), CORE_JOB_DONE);
}

static void test_core_life_a_job_that_failed_fails_alone(void **state)
{
    struct rig *b = *state;
    struct core_job_stats s;
    struct core_work mine, other;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, 2, 4, 0);
    mine = rig_work_of(b);
    rig_open_job(b, JOB + 1, one_stage, 1, 0);
    rig_give_units(b, JOB + 1, 1, 4, 0);
    other = rig_work_of(b);
    assert_int_equal(other.job, JOB + 1);
    rig_job_event(b, CORE_EVENT_JOB_FAILED);
    assert_int_equal(state_of(b), CORE_JOB_FAILED);
    assert_int_equal(core_job_stats_get(b->core, JOB, &s), 0);
    assert_int_equal(s.units_loaded, 0);
    (void)rig_result(b, &mine, 0); /* its lease is void */
    (void)rig_got(b, CORE_DO_DROP_PAYLOAD);
    assert_int_equal(rig_stats(b).dropped_stale, 1);
    rig_job_event(b, CORE_EVENT_UNITS_ADDED);
    rig_job_event(b, CORE_EVENT_JOB_STOP);
    assert_int_equal(b->actions.n, 0);
    rig_job_event(b, CORE_EVENT_JOB_FAILED);
    (void)rig_result(b, &other, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.job, JOB + 1);
}

/* Nothing waits for answers that may never come, and those that come are ignored. */
static void test_core_life_a_job_that_failed_is_closed_at_once(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.unit, w.unit);
    rig_job_event(b, CORE_EVENT_UNITS_ADDED); /* asks for units */
    (void)rig_got(b, CORE_DO_LOAD_UNITS);
    rig_job_event(b, CORE_EVENT_JOB_FAILED);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, w.unit);
    rig_give_units(b, JOB, 1, 4, 0);
    assert_int_equal(b->actions.n, 0);
    assert_int_equal(rig_stats(b).dropped_bad, 0);
    rig_job_event(b, CORE_EVENT_JOB_CLOSE);
    (void)rig_got(b, CORE_DO_JOB_CLOSED);
    rig_open_job(b, JOB, one_stage, 1, 0); /* the same once more */
    assert_int_equal(state_of(b), CORE_JOB_RUNNING);
}

static void test_core_life_shutdown_does_not_wait_for_a_job_that_failed(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_SHUTDOWN}), 0);
    assert_int_equal(rig_count(b, CORE_DO_DRAINED), 0);
    rig_job_event(b, CORE_EVENT_JOB_FAILED);
    (void)rig_got(b, CORE_DO_DRAINED);
}

static void test_core_life_a_thousand_openings_leave_nothing_behind(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    for (uint32_t n = 0; n < 1000; n++) {
        rig_open_job(b, JOB, one_stage, 1, 0);
        rig_give_units(b, JOB, 1, 4, 0);
        if (n % 3 == 0)
            do_one(b);
        if (n % 3 == 1)
            rig_job_event(b, CORE_EVENT_JOB_FAILED);
        rig_job_event(b, CORE_EVENT_JOB_CLOSE);
        (void)rig_got(b, CORE_DO_JOB_CLOSED);
    }
    assert_int_equal(rig_stats(b).n_jobs, 0);
    assert_int_equal(rig_stats(b).n_leases, 0);
    assert_int_equal(rig_stats(b).reserved_bytes, 0);
}

static void test_core_life_a_worker_is_busy_while_it_holds_units(void **state)
{
    struct rig *b = *state;
    struct core_worker_info info;
    struct core_work w;

    assert_int_equal(core_worker_get(b->core, ENCODER, b->now, &info), -ENOENT);
    rig_hello(b, ENCODER, 1, 64);
    rig_tick(b, 300);
    assert_int_equal(core_worker_get(b->core, ENCODER, b->now, &info), 0);
    assert_true(info.busy_ms == 0 && info.n_leases == 0 && info.window_items == 64 && !info.benched && !info.silent);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    w = rig_work_of(b);
    rig_tick(b, 200);
    assert_int_equal(core_worker_get(b->core, ENCODER, b->now, &info), 0);
    assert_true(info.busy_ms == 200 && info.n_leases == 1 && info.held_items == 4);
    rig_tick(b, 100);
    (void)rig_result(b, &w, 0);
    rig_tick(b, 250);
    assert_int_equal(core_worker_get(b->core, ENCODER, b->now, &info), 0);
    assert_int_equal(info.busy_ms, 300);
    assert_int_equal(b->now - info.heard_ms, 250);
}

#define RULE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RULE(test_core_life_has_one_state_at_each_step),
        RULE(test_core_life_a_job_that_is_done_takes_new_units),
        RULE(test_core_life_a_disk_that_is_full_for_rows_blocks_the_job),
        RULE(test_core_life_a_job_that_failed_fails_alone),
        RULE(test_core_life_a_job_that_failed_is_closed_at_once),
        RULE(test_core_life_shutdown_does_not_wait_for_a_job_that_failed),
        RULE(test_core_life_a_thousand_openings_leave_nothing_behind),
        RULE(test_core_life_a_worker_is_busy_while_it_holds_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
