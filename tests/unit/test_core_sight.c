/* Workers that cannot see the pictures of a job. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "tests/unit/core_rig.h"

enum { SEES = 11, BLIND = 12, SECOND_JOB = 77, FIRST_REST_MS = 5000, LONGEST_REST_MS = 60000 };

static const struct core_node one_stage[1] = {{.stage = 1}};

static void open_job(struct rig *b, uint64_t job, uint32_t n_units)
{
    rig_open_job(b, job, one_stage, 1, 0);
    rig_give_units(b, job, n_units, 4, 0);
}

static void cannot_see(struct rig *b, const struct core_work *w)
{
    struct core_event e = {.type = CORE_EVENT_UNSEEN};

    e.lease = (struct core_lease_ref){w->peer, w->epoch, w->lease};
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_count(b, CORE_DO_ATTEMPTS), 0);
}

static void beat(struct rig *b, uint64_t peer)
{
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};

    e.heartbeat.peer = peer;
    e.heartbeat.epoch = 7;
    assert_int_equal(rig_step(b, &e), 0);
}

/* Let time pass until `peer` gets work. Returns how long it took. */
static int64_t wait_for_work(struct rig *b, uint64_t peer, struct core_work *ret)
{
    const int64_t began = b->now;

    for (;;) {
        if (rig_count(b, CORE_DO_WORK)) {
            *ret = rig_work_of(b);
            assert_int_equal(ret->peer, peer);
            return b->now - began;
        }
        assert_true(b->now < began + 2 * LONGEST_REST_MS);
        b->now += 100;
        beat(b, peer);
        if (!rig_count(b, CORE_DO_WORK))
            rig_tick(b, 0);
    }
}

static void others_do_the_work(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, BLIND, 1, 4);
    open_job(b, JOB, 2);
    w = rig_work_of(b);
    assert_int_equal(w.peer, BLIND);
    assert_true(core_worker_sees(b->core, BLIND, JOB));
    cannot_see(b, &w);
    assert_false(core_worker_sees(b->core, BLIND, JOB));
    assert_true(core_worker_sees(b->core, BLIND, SECOND_JOB));
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    rig_hello(b, SEES, 1, 4);
    for (uint32_t unit = 0; unit < 2; unit++) {
        w = rig_work_of(b);
        assert_int_equal(w.peer, SEES);
        assert_int_equal(w.unit, unit);
        assert_int_equal(w.attempt, 0);
        assert_false(w.exclusive);
        (void)rig_result(b, &w, 0);
    }
    assert_int_equal(rig_stats(b).failures, 0);
    assert_int_equal(rig_stats(b).benches, 0);
}

static void other_jobs_do_not_notice(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, BLIND, 1, 4);
    open_job(b, JOB, 2);
    w = rig_work_of(b);
    cannot_see(b, &w);
    rig_open_job(b, SECOND_JOB, one_stage, 1, 0);
    rig_give_units(b, SECOND_JOB, 2, 4, 0);
    for (uint32_t unit = 0; unit < 2; unit++) {
        w = rig_work_of(b);
        assert_int_equal(w.peer, BLIND);
        assert_int_equal(w.job, SECOND_JOB);
        (void)rig_result(b, &w, 0);
    }
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    assert_false(core_worker_sees(b->core, BLIND, JOB));
}

/* No attempt is ever burnt, however often it tries; and it goes on once it sees the pictures. */
static void tries_again(void **state)
{
    struct rig *b = *state;
    int64_t rest_ms = FIRST_REST_MS;
    struct core_work w;

    rig_hello(b, BLIND, 1, 8);
    open_job(b, JOB, 2);
    for (uint32_t i = 0; i < 3 * b->limits.max_unblamed + 6; i++) {
        const struct core_work first = rig_nth(b, CORE_DO_WORK, 0)->work, second = rig_nth(b, CORE_DO_WORK, 1)->work;

        assert_int_equal(first.attempt + second.attempt, 0);
        cannot_see(b, &first);
        assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
        cannot_see(b, &second);
        assert_in_range(wait_for_work(b, BLIND, &w), rest_ms, rest_ms + 100);
        assert_false(core_worker_sees(b->core, BLIND, JOB));
        rest_ms = 2 * rest_ms < LONGEST_REST_MS ? 2 * rest_ms : LONGEST_REST_MS;
    }
    w = rig_nth(b, CORE_DO_WORK, 0)->work;
    (void)rig_result(b, &w, 0);
    assert_true(core_worker_sees(b->core, BLIND, JOB));
    assert_int_equal(rig_stats(b).failures, 0);
}

/* Returned before it has rested, by a worker that cannot know: a later stage reads no pictures. */
static void later_stages_just_return(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_three_workers(b, 4);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    assert_int_equal(w.peer, QFORMER);
    cannot_see(b, &w);
    assert_true(core_worker_sees(b->core, QFORMER, JOB));
    assert_int_equal(rig_work_of(b).peer, QFORMER);
}

/* More jobs than a worker's list of them holds: the job whose rest would end first is tried again. */
static void many_jobs(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, BLIND, 1, 4);
    for (uint64_t job = 1; job <= 9; job++) {
        b->now += 10;
        open_job(b, job, 1);
        w = rig_work_of(b);
        assert_int_equal(w.job, job);
        cannot_see(b, &w);
    }
    assert_int_equal(rig_work_of(b).job, 1);
    rig_gone(b, BLIND, false);
    rig_hello(b, BLIND, 1, 4);
    for (uint64_t job = 1; job <= 9; job++)
        assert_true(core_worker_sees(b->core, BLIND, job));
}

/* Two such workers of one model, and no place for another pool: they go on once another worker leaves its pool. */
static void no_place_in_another_pool(void **state)
{
    enum { SECOND = 13, THIRD = 14 };
    struct rig *b = *state;
    struct core_work w;

    b->limits.max_pools = 2;
    rig_restart_with(b, 7);
    rig_hello(b, BLIND, 1, 4);
    rig_hello(b, SECOND, 1, 4);
    open_job(b, JOB, 1);
    for (int i = 0; i < 2; i++) {
        w = rig_work_of(b);
        cannot_see(b, &w);
    }
    rig_hello(b, THIRD, 2, 4);
    for (int64_t end = b->now + 2 * LONGEST_REST_MS; b->now < end; b->now += 100) {
        for (uint64_t peer = BLIND; peer <= THIRD; peer++) {
            beat(b, peer);
            assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
        }
        rig_tick(b, 0);
        assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    }
    rig_gone(b, THIRD, true);
    for (int64_t end = b->now + FIRST_REST_MS; rig_count(b, CORE_DO_WORK) == 0 && b->now <= end; b->now += 100) {
        beat(b, BLIND);
        beat(b, SECOND);
        rig_tick(b, 0);
    }
    assert_int_equal(rig_work_of(b).job, JOB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(others_do_the_work, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(other_jobs_do_not_notice, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(tries_again, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(later_stages_just_return, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(many_jobs, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(no_place_in_another_pool, rig_setup, rig_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
