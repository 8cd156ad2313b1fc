/* The core's rules for scheduling, for workers and for jobs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "tests/unit/core_rig.h"

/* -- who gets what -- */

static void test_core_a_worker_holds_no_more_than_its_window(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_CREDIT};

    rig_hello(b, ENCODER, 1, 10);
    rig_chain_job(b, 5, 4);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 2);
    e.credit.peer = ENCODER;
    e.credit.window_items = 12;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1);
}

static void test_core_an_empty_worker_takes_a_unit_larger_than_its_window(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 2);
    rig_chain_job(b, 2, 8);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1);
}

static void test_core_a_window_of_nothing_gets_nothing(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 0);
    rig_chain_job(b, 2, 8);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
}

static void test_core_memory_is_reserved_before_a_unit_starts(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    b->limits.memory_bytes = 1000; /* two units of 4 x 110 */
    rig_restart_with(b, 7);
    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 5, 4);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 2);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0xf); /* all errors: it is finished, and its memory is free */
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1);
}

static void test_core_a_unit_larger_than_all_memory_runs_by_itself(void **state)
{
    struct rig *b = *state;

    b->limits.memory_bytes = 100;
    rig_restart_with(b, 7);
    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 5, 4);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1);
}

static void test_core_the_deeper_node_goes_first(void **state)
{
    struct rig *b = *state;
    struct core_work first, second;

    rig_hello(b, ENCODER, 1, 64);
    rig_hello(b, LLM, 3, 64);
    rig_open_job(b, JOB, rig_chain_score, 4, 0);
    rig_give_units(b, JOB, 2, 4, 0);
    first = rig_nth(b, CORE_DO_WORK, 0)->work;
    second = rig_nth(b, CORE_DO_WORK, 1)->work;
    rig_hello(b, QFORMER, 2, 4);
    (void)rig_result(b, &first, 0);
    first = rig_work_of(b); /* at the Q-Former, which is full now */
    (void)rig_result(b, &second, 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    (void)rig_result(b, &first, 0);
    assert_int_equal(rig_nth(b, CORE_DO_WORK, 0)->work.node, 2);
    first = rig_nth(b, CORE_DO_WORK, 0)->work;
    second = rig_nth(b, CORE_DO_WORK, 1)->work;
    assert_int_equal(second.node, 1);
    (void)rig_result(b, &first, 0); /* its score is ready and waits for the Q-Former */
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    (void)rig_result(b, &second, 0);
    for (uint32_t i = 0; i < 2; i++)
        if (rig_nth(b, CORE_DO_WORK, i)->work.peer == QFORMER)
            assert_int_equal(rig_nth(b, CORE_DO_WORK, i)->work.node, 3);
}

static void test_core_jobs_share_workers_by_priority(void **state)
{
    struct rig *b = *state;
    uint32_t n_of[2] = {0};

    rig_open_job(b, JOB, rig_chain, 3, 300);
    rig_give_units(b, JOB, 60, 1, 0);
    rig_open_job(b, JOB + 1, rig_chain, 3, 100);
    rig_give_units(b, JOB + 1, 60, 1, 0);
    rig_hello(b, ENCODER, 1, 40);
    for (uint32_t i = 0; i < 40; i++)
        n_of[rig_nth(b, CORE_DO_WORK, i)->work.job - JOB]++;
    assert_in_range(n_of[0], 29, 31);
}

/* The Q-Former, too, if all units have passed the encoder before it comes. */
static void test_core_jobs_share_each_stage_by_priority(void **state)
{
    struct rig *b = *state;
    struct core_work work[80];
    uint32_t n_of[2] = {0};

    rig_open_job(b, JOB, rig_chain, 3, 300);
    rig_give_units(b, JOB, 40, 1, 0);
    rig_open_job(b, JOB + 1, rig_chain, 3, 100);
    rig_give_units(b, JOB + 1, 40, 1, 0);
    rig_hello(b, ENCODER, 1, 80);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 80);
    for (uint32_t i = 0; i < 80; i++)
        work[i] = rig_nth(b, CORE_DO_WORK, i)->work;
    for (uint32_t i = 0; i < 80; i++)
        (void)rig_result(b, &work[i], 0);
    rig_hello(b, QFORMER, 2, 40);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 40);
    for (uint32_t i = 0; i < 40; i++)
        n_of[rig_nth(b, CORE_DO_WORK, i)->work.job - JOB]++;
    assert_in_range(n_of[0], 29, 31);
}

/* A job that comes late gets its share from then on, and a new priority holds from then on. */
static void test_core_jobs_share_by_their_present_priority(void **state)
{
    static const struct core_event change = {.type = CORE_EVENT_JOB_PRIORITY, .job_priority = {JOB + 1, 300}};
    struct rig *b = *state;
    uint32_t n_of[2] = {0};

    rig_open_job(b, JOB, rig_chain, 3, 100);
    rig_give_units(b, JOB, 60, 1, 0);
    rig_hello(b, ENCODER, 1, 20);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 20);
    rig_open_job(b, JOB + 1, rig_chain, 3, 100);
    rig_give_units(b, JOB + 1, 60, 1, 0);
    assert_int_equal(rig_step(b, &change), 0);
    rig_hello(b, OTHER, 1, 40);
    for (uint32_t i = 0; i < 40; i++)
        n_of[rig_nth(b, CORE_DO_WORK, i)->work.job - JOB]++;
    assert_in_range(n_of[1], 29, 31);
}

static void test_core_a_worker_near_the_tensor_is_preferred(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HELLO};
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_hello(b, QFORMER, 2, 32); /* on the encoder's host */
    e.hello = (__typeof__(e.hello)){.peer = OTHER, .nonce = OTHER, .host = 2, .stage = 2, .window_items = 1000};
    assert_int_equal(rig_step(b, &e), 0);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_work_of(b).peer, QFORMER);
}

/* -- workers -- */

static void test_core_a_worker_of_another_model_waits_for_its_job(void **state)
{
    struct rig *b = *state;
    struct core_node nodes[3];
    struct core_event e = {.type = CORE_EVENT_HELLO};

    memcpy(nodes, rig_chain, sizeof(rig_chain));
    nodes[0].fingerprint.bytes[0] = 0xab;
    rig_open_job(b, JOB, nodes, 3, 0);
    e.hello.peer = e.hello.nonce = ENCODER;
    e.hello.stage = 1;
    e.hello.fingerprint.bytes[0] = 0xcd;
    e.hello.window_items = 64;
    e.hello.window_bytes = 1 << 20;
    assert_int_equal(rig_step(b, &e), 0);
    (void)rig_got(b, CORE_DO_WELCOME);
    assert_false(core_worker_is_wanted(b->core, ENCODER));
    rig_give_units(b, JOB, 1, 4, 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0);
    nodes[0].fingerprint.bytes[0] = 0xcd;
    rig_open_job(b, JOB + 1, nodes, 3, 0);
    assert_true(core_worker_is_wanted(b->core, ENCODER));
    rig_give_units(b, JOB + 1, 1, 4, 0);
    assert_int_equal(rig_work_of(b).peer, ENCODER);
    assert_int_equal(rig_work_of(b).job, JOB + 1);
}

static void test_core_a_worker_of_an_unknown_stage_is_refused(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, N_STAGES, 64);
    assert_int_equal(rig_got(b, CORE_DO_REFUSE)->refuse.reason, CORE_REFUSE_BAD_MESSAGE);
    assert_int_equal(rig_stats(b).n_workers, 0);
}

static void test_core_a_process_that_connects_anew_replaces_itself(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HELLO};

    rig_hello(b, ENCODER, 1, 64);
    e.hello.peer = OTHER;
    e.hello.nonce = ENCODER;
    e.hello.host = 1;
    e.hello.stage = 1;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_got(b, CORE_DO_FORGET_PEER)->peer, ENCODER);
    assert_int_equal(rig_stats(b).n_workers, 1);
}

static void test_core_a_stranger_is_asked_for_its_hello(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};

    e.heartbeat.peer = 99;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_got(b, CORE_DO_HELLO_AGAIN)->peer, 99);
}

static void test_core_workers_and_kinds_of_workers_have_a_limit(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HELLO};

    b->limits.max_workers = 3;
    b->limits.max_pools = 2;
    rig_restart_with(b, 7);
    rig_hello(b, 1, 1, 1);
    rig_hello(b, 2, 2, 1);
    e.hello.peer = e.hello.nonce = 3;
    e.hello.stage = 3;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_got(b, CORE_DO_REFUSE)->refuse.reason, CORE_REFUSE_LIMIT);
    rig_hello(b, 3, 1, 1);
    e.hello.peer = e.hello.nonce = 4;
    e.hello.stage = 1;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_got(b, CORE_DO_REFUSE)->refuse.reason, CORE_REFUSE_LIMIT);
}

/* -- jobs -- */

static void test_core_a_job_is_loaded_window_by_window(void **state)
{
    struct rig *b = *state;
    struct core_unit_row rows[4] = {
        {.unit = 0, .n_items = 1}, {.unit = 1, .n_items = 1}, {.unit = 5, .n_items = 1}, {.unit = 6, .n_items = 1}};
    struct core_event e = {.type = CORE_EVENT_UNITS};
    struct core_work w[4];

    b->limits.window_units = 4;
    rig_restart_with(b, 7);
    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, rig_chain, 3, 0);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.max, 4);
    e.units.job = JOB;
    e.units.rows = rows;
    e.units.n = 4;
    assert_int_equal(rig_step(b, &e), 0);
    for (uint32_t i = 0; i < 4; i++)
        w[i] = rig_nth(b, CORE_DO_WORK, i)->work;
    for (uint32_t i = 0; i < 2; i++) {
        assert_null(rig_nth(b, CORE_DO_LOAD_UNITS, 0));
        (void)rig_result(b, &w[i], 1);
        rig_commit_answer(b, CORE_EVENT_COMMITTED, w[i].unit);
    }
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.from_unit, 7);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.max, 2);
}

static void test_core_a_job_still_importing_is_not_done(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    e.job_open.job = JOB;
    e.job_open.n_nodes = 3;
    e.job_open.nodes = rig_chain;
    assert_int_equal(rig_step(b, &e), 0);
    rig_give_units(b, JOB, 0, 0, 0);
    assert_null(rig_nth(b, CORE_DO_JOB_DONE, 0));
    for (int i = 0; i < 2; i++) { /* also when it was sealed, and done */
        rig_job_event(b, CORE_EVENT_UNITS_ADDED);
        (void)rig_got(b, CORE_DO_LOAD_UNITS);
        rig_job_event(b, CORE_EVENT_JOB_SEALED);
        assert_null(rig_nth(b, CORE_DO_JOB_DONE, 0));
        rig_give_units(b, JOB, 0, 0, 0);
        (void)rig_got(b, CORE_DO_JOB_DONE);
    }
}

static void test_core_a_full_disk_blocks_new_units_until_there_is_room(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_three_workers(b, 1);
    rig_chain_job(b, 3, 1);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 1);
    w = rig_work_of(b);
    rig_commit_answer(b, CORE_EVENT_COMMIT_FAILED, 0);
    (void)rig_result(b, &w, 1);
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    rig_job_event(b, CORE_EVENT_DISK_OK);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.unit, 0);
    assert_int_equal(rig_work_of(b).unit, 2);
}

static void test_core_a_stopped_job_finishes_what_it_started(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_three_workers(b, 1);
    rig_chain_job(b, 2, 1);
    w = rig_work_of(b);
    rig_job_event(b, CORE_EVENT_JOB_STOP);
    for (uint32_t node = 0; node < 3; node++) {
        assert_int_equal(w.node, node);
        (void)rig_result(b, &w, 0);
        if (node < 2)
            w = rig_work_of(b);
    }
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    assert_null(rig_nth(b, CORE_DO_JOB_STOPPED, 0));
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    (void)rig_got(b, CORE_DO_JOB_STOPPED);
    rig_job_event(b, CORE_EVENT_JOB_START);
    assert_int_equal(rig_work_of(b).unit, 1);
}

static void test_core_a_stopped_job_does_not_wait_for_what_was_handed_back(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, ENCODER, 1, 1);
    rig_chain_job(b, 2, 1);
    w = rig_work_of(b);
    rig_job_event(b, CORE_EVENT_JOB_STOP);
    assert_null(rig_nth(b, CORE_DO_JOB_STOPPED, 0));
    rig_step(b, &(struct core_event){.type = CORE_EVENT_RETURN,
                                     .lease = {.peer = w.peer, .epoch = w.epoch, .lease = w.lease}});
    (void)rig_got(b, CORE_DO_JOB_STOPPED);
    assert_int_equal(rig_stats(b).reserved_bytes, 0);
    rig_job_event(b, CORE_EVENT_JOB_START);
    assert_int_equal(rig_work_of(b).unit, 0);
    rig_job_event(b, CORE_EVENT_JOB_STOP);
    rig_gone(b, ENCODER, false);
    (void)rig_got(b, CORE_DO_JOB_STOPPED);
}

static void test_core_a_closed_job_leaves_nothing_behind(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t p;

    rig_three_workers(b, 64);
    rig_chain_job(b, 2, 4);
    w = rig_work_of(b);
    p = rig_result(b, &w, 0);
    rig_job_event(b, CORE_EVENT_JOB_CLOSE);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, p);
    (void)rig_got(b, CORE_DO_JOB_CLOSED);
    assert_int_equal(rig_stats(b).reserved_bytes, 0);
    assert_int_equal(rig_stats(b).n_leases, 0);
    rig_open_job(b, JOB, rig_chain, 3, 0);
}

static void test_core_a_second_answer_to_a_commit_is_ignored(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 1);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 1);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    assert_int_equal(b->actions.n, 0);
}

static void test_core_shutdown_waits_for_what_is_leased(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_three_workers(b, 1);
    rig_chain_job(b, 3, 1);
    w = rig_work_of(b);
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_SHUTDOWN}), 0);
    assert_null(rig_nth(b, CORE_DO_DRAINED, 0));
    (void)rig_result(b, &w, 0);
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    (void)rig_got(b, CORE_DO_DRAINED);
}

static void test_core_job_events_that_make_no_sense_are_errors(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    rig_open_job(b, JOB, rig_chain, 3, 0);
    e.job_open.job = JOB;
    e.job_open.n_nodes = 3;
    e.job_open.nodes = rig_chain;
    assert_int_equal(rig_step(b, &e), -EEXIST);
    e.job_open.job = 1;
    e.job_open.n_nodes = 9;
    assert_int_equal(rig_step(b, &e), -EINVAL);
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = 5}), -ENOENT);
}

#define RULE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RULE(test_core_a_worker_holds_no_more_than_its_window),
        RULE(test_core_an_empty_worker_takes_a_unit_larger_than_its_window),
        RULE(test_core_a_window_of_nothing_gets_nothing),
        RULE(test_core_memory_is_reserved_before_a_unit_starts),
        RULE(test_core_a_unit_larger_than_all_memory_runs_by_itself),
        RULE(test_core_the_deeper_node_goes_first),
        RULE(test_core_jobs_share_workers_by_priority),
        RULE(test_core_jobs_share_each_stage_by_priority),
        RULE(test_core_jobs_share_by_their_present_priority),
        RULE(test_core_a_worker_near_the_tensor_is_preferred),
        RULE(test_core_a_worker_of_another_model_waits_for_its_job),
        RULE(test_core_a_worker_of_an_unknown_stage_is_refused),
        RULE(test_core_a_process_that_connects_anew_replaces_itself),
        RULE(test_core_a_stranger_is_asked_for_its_hello),
        RULE(test_core_workers_and_kinds_of_workers_have_a_limit),
        RULE(test_core_a_job_is_loaded_window_by_window),
        RULE(test_core_a_job_still_importing_is_not_done),
        RULE(test_core_a_full_disk_blocks_new_units_until_there_is_room),
        RULE(test_core_a_stopped_job_finishes_what_it_started),
        RULE(test_core_a_stopped_job_does_not_wait_for_what_was_handed_back),
        RULE(test_core_a_closed_job_leaves_nothing_behind),
        RULE(test_core_a_second_answer_to_a_commit_is_ignored),
        RULE(test_core_shutdown_waits_for_what_is_leased),
        RULE(test_core_job_events_that_make_no_sense_are_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
