/* Surges of failures, and items that are done again. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "tests/unit/core_rig.h"

static const struct core_node one_stage[1] = {{.stage = 1}};

/* A job of one stage, whose units of 4 items are all with one worker. */
static void open_job(struct rig *b, uint32_t max_failures, uint32_t per_mille, uint32_t n_units, struct core_work *ret)
{
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    e.job_open.job = JOB;
    e.job_open.sealed = true;
    e.job_open.n_nodes = 1;
    e.job_open.nodes = one_stage;
    e.job_open.max_failures = max_failures;
    e.job_open.max_failed_per_mille = per_mille;
    rig_hello(b, ENCODER, 1, 1000);
    assert_int_equal(rig_step(b, &e), 0);
    rig_give_units(b, JOB, n_units, 4, 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), n_units);
    for (uint32_t i = 0; i < n_units; i++)
        ret[i] = rig_nth(b, CORE_DO_WORK, i)->work;
}

static void test_core_surge_puts_back_what_failed_in_a_row(void **state)
{
    struct rig *b = *state;
    struct core_work w[6];

    open_job(b, 6, 0, 6, w);
    (void)rig_result(b, &w[0], 0x1); /* an error and then good ones: committed at once */
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.unit, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    (void)rig_result(b, &w[1], 0xc); /* the last two fail: held */
    assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0);
    (void)rig_result(b, &w[2], 0xf); /* six in a row */
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_failed, 6);
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_finished, 0);
    assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0);
    (void)rig_result(b, &w[3], 0x2); /* under way meanwhile: its failures are not written either */
    assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0);
    (void)rig_result(b, &w[4], 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.unit, 4);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 4);
    (void)rig_result(b, &w[5], 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 5);
    assert_int_equal(rig_count(b, CORE_DO_JOB_STOPPED), 1);
    rig_job_event(b, CORE_EVENT_JOB_START);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, 1); /* the first that was put back */
}

/* A unit of which some items failed at the first node and others are still at the second when the job is resumed. */
static void test_core_surge_puts_back_half_failed_units_at_the_start(void **state)
{
    static const struct core_node two_stages[2] = {{.stage = 1, .out_bytes = 10}, {.stage = 2, .needs = 1}};
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};
    struct core_work w[3], second;
    struct rig *b = *state;

    e.job_open.job = JOB;
    e.job_open.sealed = true;
    e.job_open.n_nodes = 2;
    e.job_open.nodes = two_stages;
    e.job_open.max_failures = 6;
    rig_hello(b, ENCODER, 1, 1000);
    rig_hello(b, QFORMER, 2, 1000);
    assert_int_equal(rig_step(b, &e), 0);
    rig_give_units(b, JOB, 3, 4, 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 3);
    for (uint32_t i = 0; i < 3; i++)
        w[i] = rig_nth(b, CORE_DO_WORK, i)->work;
    (void)rig_result(b, &w[0], 0x3);
    second = rig_work_of(b);
    assert_int_equal(second.n_items, 2);
    (void)rig_result(b, &w[1], 0xf);
    (void)rig_result(b, &w[2], 0xf);
    assert_int_equal(rig_count(b, CORE_DO_JOB_PAUSED), 1);
    rig_job_event(b, CORE_EVENT_JOB_START);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, 0);
    (void)rig_result(b, &second, 0);
    assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0);
}

static void test_core_surge_held_units_are_committed_when_nothing_follows(void **state)
{
    struct rig *b = *state;
    struct core_work w[2];

    open_job(b, 50, 0, 2, w);
    (void)rig_result(b, &w[0], 0xf);
    assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0);
    (void)rig_result(b, &w[1], 0xf);
    assert_int_equal(rig_count(b, CORE_DO_COMMIT), 2);
    assert_int_equal(rig_nth(b, CORE_DO_COMMIT, 0)->commit.unit, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 1);
    assert_int_equal(rig_count(b, CORE_DO_JOB_DONE), 1);
}

static void test_core_surge_leaves_out_what_is_known_to_fail(void **state)
{
    struct core_unit_row rows[2] = {{.unit = 0, .n_items = 4, .bad = {0xe}}, {.unit = 1, .n_items = 4, .bad = {0x7}}};
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN}, units = {.type = CORE_EVENT_UNITS};
    struct rig *b = *state;
    struct core_work w[2];

    e.job_open.job = units.units.job = JOB;
    e.job_open.sealed = units.units.exhausted = true;
    e.job_open.n_nodes = 1;
    e.job_open.nodes = one_stage;
    e.job_open.max_failures = 2;
    units.units.n = 2;
    units.units.rows = rows;
    rig_hello(b, ENCODER, 1, 1000);
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_step(b, &units), 0);
    for (uint32_t i = 0; i < 2; i++)
        w[i] = rig_nth(b, CORE_DO_WORK, i)->work;
    (void)rig_result(b, &w[0], 0xe);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 3);
    (void)rig_result(b, &w[1], 0xf); /* one that counts, at the end: held until nothing follows */
    assert_int_equal(rig_count(b, CORE_DO_JOB_PAUSED), 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 4);
}

static void test_core_surge_of_a_share(void **state)
{
    struct rig *b = *state;
    struct core_work w[30];

    open_job(b, 0, 250, 30, w);
    for (uint32_t i = 0; i < 24; i++) { /* a quarter of 96 fails: too few items to count yet */
        (void)rig_result(b, &w[i], 0x1);
        assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.unit, i);
    }
    (void)rig_result(b, &w[24], 0x1); /* 25 of 100 */
    assert_int_equal(rig_count(b, CORE_DO_JOB_PAUSED), 0);
    (void)rig_result(b, &w[25], 0x3); /* 27 of 104 */
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_failed, 27);
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_finished, 104);
}

/* A share is known late: earlier failures are put back as well. */
static void test_core_surge_of_a_share_puts_back_every_unit_of_it(void **state)
{
    struct rig *b = *state;
    struct core_work w[27];

    open_job(b, 0, 250, 27, w);
    for (uint32_t i = 0; i < 20; i++) {
        (void)rig_result(b, &w[i], 0);
        rig_commit_answer(b, CORE_EVENT_COMMITTED, i);
    }
    for (uint32_t i = 20; i < 26; i++) {
        (void)rig_result(b, &w[i], 0xf);
        assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0);
    }
    (void)rig_result(b, &w[26], 0xf);
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_failed, 28);
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_finished, 108);
    rig_job_event(b, CORE_EVENT_JOB_START);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, 20);
}

static void test_core_surge_holds_no_more_than_a_quarter_of_the_window(void **state)
{
    struct rig *b = *state;
    struct core_work w[8];

    b->limits.window_units = 8;
    rig_restart_with(b, 8);
    open_job(b, 0, 500, 8, w);
    for (uint32_t i = 0; i < 5; i++) {
        (void)rig_result(b, &w[i], 0xf);
        assert_int_equal(rig_count(b, CORE_DO_COMMIT), i >= 2);
        assert_true(i < 2 || rig_got(b, CORE_DO_COMMIT)->commit.unit == i - 2);
    }
}

static void test_core_again_does_only_what_is_asked_for(void **state)
{
    struct core_unit_row row = {.unit = 0, .n_items = 8, .is_again = true, .again = {0x52}}; /* items 1, 4 and 6 */
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_UNITS};
    struct core_work w;

    rig_three_workers(b, 64);
    rig_open_job(b, JOB, rig_chain, 3, 0);
    e.units.job = JOB;
    e.units.n = 1;
    e.units.rows = &row;
    e.units.exhausted = true;
    assert_int_equal(rig_step(b, &e), 0);
    w = rig_work_of(b);
    assert_int_equal(w.first, 1); /* from the first to the last of them */
    assert_int_equal(w.count, 6);
    assert_int_equal(w.n_items, 3);
    assert_int_equal(w.items[0], 0x29);
    (void)rig_result(b, &w, 0x2); /* item 4 fails */
    w = rig_work_of(b);
    assert_int_equal(w.items[0], 0x21);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.again[0], 0x52);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 1);
}

static void test_core_again_more_of_a_unit_that_is_under_way(void **state)
{
    struct core_unit_row row = {.unit = 0, .n_items = 4, .is_again = true, .again = {0x1}};
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_UNITS};
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, one_stage, 1, 0);
    e.units.job = JOB;
    e.units.n = 1;
    e.units.rows = &row;
    e.units.exhausted = true;
    assert_int_equal(rig_step(b, &e), 0);
    w = rig_work_of(b);
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_UNITS_AGAIN, .units_again = {JOB, 0}}), 0);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, 0);
    row.again[0] = 0x5;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    (void)rig_result(b, &w, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    assert_int_equal(rig_count(b, CORE_DO_JOB_DONE), 0);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, 0);
    row.again[0] = 0x4;
    assert_int_equal(rig_step(b, &e), 0);
    w = rig_work_of(b);
    assert_int_equal(w.first, 2);
    assert_int_equal(w.count, 1);
    (void)rig_result(b, &w, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    assert_int_equal(rig_count(b, CORE_DO_JOB_DONE), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_core_surge_puts_back_what_failed_in_a_row, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_surge_puts_back_half_failed_units_at_the_start, rig_setup,
                                        rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_surge_held_units_are_committed_when_nothing_follows, rig_setup,
                                        rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_surge_leaves_out_what_is_known_to_fail, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_surge_of_a_share, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_surge_of_a_share_puts_back_every_unit_of_it, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_surge_holds_no_more_than_a_quarter_of_the_window, rig_setup,
                                        rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_again_does_only_what_is_asked_for, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_core_again_more_of_a_unit_that_is_under_way, rig_setup, rig_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
