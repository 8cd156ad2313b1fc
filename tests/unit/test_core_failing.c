/* The core's rules for failures: who is blamed, what runs exclusively, how a unit is split down to the bad item; and
 * what is no failure. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/core_rig.h"

/* Two first nodes, as of a captioner and a scorer with another trunk. */
static const struct core_node two_trunks[3] = {
    {.stage = 1, .out_bytes = 10}, {.stage = 1, .out_bytes = 10}, {.stage = 3, .needs = 3}};

static void two_trunks_job(struct rig *b, uint32_t n)
{
    rig_open_job(b, JOB, two_trunks, 3, 0);
    rig_give_units(b, JOB, n, 4, 0);
}

/* The process behind `old` says HELLO as peer `new`, and that it holds these leases. */
static void connect_anew(struct rig *b, uint64_t old, uint64_t new, const uint64_t *leases, uint32_t n)
{
    struct core_event e = {.type = CORE_EVENT_HELLO};

    e.hello.peer = new;
    e.hello.nonce = old;
    e.hello.host = 1;
    e.hello.stage = 1;
    e.hello.window_items = 64;
    e.hello.window_bytes = 1 << 20;
    e.hello.epoch = 7;
    e.hello.leases = leases;
    e.hello.n_leases = n;
    assert_int_equal(rig_step(b, &e), 0);
}

/* -- failing units -- */

static void test_core_a_failing_unit_is_split_down_to_the_bad_item(void **state)
{
    struct rig *b = *state;
    const struct core_commit *m;
    struct core_work given[64];
    uint32_t n_given = 0, n_done = 0;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 20);
    while (!rig_nth(b, CORE_DO_COMMIT, 0)) {
        struct core_work w;

        for (uint32_t i = 0; i < rig_count(b, CORE_DO_WORK); i++) {
            assert_true(n_given < 64);
            given[n_given++] = rig_nth(b, CORE_DO_WORK, i)->work;
        }
        assert_true(n_done < n_given);
        w = given[n_done++];
        if (w.node == 0 && w.first <= 2 && w.first + w.count > 2)
            rig_refuse_work(b, &w);
        else
            (void)rig_result(b, &w, 0);
    }
    m = &rig_got(b, CORE_DO_COMMIT)->commit;
    assert_int_equal(m->n_quarantined, 1);
    assert_int_equal(m->quarantined[0].item, 2);
    assert_string_equal(m->quarantined[0].code, "oom");
    assert_string_equal(m->quarantined[0].text, "no memory on the device");
    assert_int_equal(m->n_failed, 1);
    assert_int_equal(m->attempts, 2 + 1 + 3); /* the unit, a piece of it, the item */
    assert_int_equal(rig_stats(b).splits, 2);
}

static void test_core_what_failed_once_runs_exclusively(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 3, 4);
    w = rig_work_of(b);
    rig_refuse_work(b, &w);
    /* Other leases of its worker must end before it is leased again. */
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    for (uint64_t lease = 1; lease < 10 && !rig_nth(b, CORE_DO_WORK, 0); lease++) {
        struct core_work other = {.peer = ENCODER, .epoch = 7, .lease = lease, .n_items = 4};

        (void)rig_result(b, &other, 0);
    }
    w = rig_work_of(b);
    assert_true(w.exclusive);
    assert_int_equal(w.attempt, 1);
    assert_int_equal(rig_stats(b).n_leases, 1);
}

static void test_core_what_a_dead_worker_held_runs_exclusively_one_by_one(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 4, 4);
    rig_gone(b, ENCODER, false);
    assert_int_equal(rig_count(b, CORE_DO_ATTEMPTS), 4);
    rig_hello(b, OTHER, 1, 64);
    for (uint32_t n = 0; n < 4; n++) {
        assert_int_equal(rig_count(b, CORE_DO_WORK), 1);
        w = rig_work_of(b);
        assert_true(w.exclusive);
        (void)rig_result(b, &w, 0xf);
    }
}

static void test_core_one_loss_blames_a_subunit_once(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    two_trunks_job(b, 1);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 2);
    rig_gone(b, ENCODER, false);
    assert_int_equal(rig_count(b, CORE_DO_ATTEMPTS), 1);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    rig_hello(b, OTHER, 1, 64);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1); /* one at a time, though both are of one subunit */
    assert_int_equal(rig_work_of(b).attempt, 1);
}

static void test_core_an_earlier_lease_does_not_fail_a_later_attempt(void **state)
{
    struct rig *b = *state;
    struct core_work first, second;

    rig_hello(b, ENCODER, 1, 4);
    rig_hello(b, OTHER, 1, 4);
    two_trunks_job(b, 1);
    first = rig_nth(b, CORE_DO_WORK, 0)->work;
    second = rig_nth(b, CORE_DO_WORK, 1)->work;
    assert_int_not_equal(first.peer, second.peer);
    rig_hello(b, OTHER + 1, 1, 4); /* what failed goes to another worker */
    rig_refuse_work(b, &first);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    first = rig_work_of(b);
    assert_true(first.exclusive);
    rig_refuse_work(b, &second); /* it was not exclusive */
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0));
    second = rig_work_of(b);
    assert_true(second.exclusive);
    rig_refuse_work(b, &second);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 2);
    assert_int_equal(rig_stats(b).splits, 1);
}

static void test_core_a_cut_unit_is_as_it_was_after_a_restart(void **state)
{
    struct rig *b = *state;
    struct core_unit_row row = {.unit = 0, .n_items = 16, .attempts = 5};
    struct core_event e = {.type = CORE_EVENT_UNITS, .units = {.job = JOB, .n = 1, .rows = &row, .exhausted = true}};
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 1, 16);
    for (uint32_t n = 0; n < 3; n++) { /* the unit, the unit exclusively, its first piece of two items */
        w = rig_work_of(b);
        assert_int_equal(w.count, n < 2 ? 16 : 2);
        rig_refuse_work(b, &w);
    }
    w = rig_work_of(b);
    assert_int_equal(w.count, 1);
    rig_refuse_work(b, &w);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.n_items, 16);
    for (uint32_t i = 0; i < 16; i++) {
        row.subunits[i] = rig_got(b, CORE_DO_ATTEMPTS)->attempts.subunits[i];
        assert_int_equal(row.subunits[i], i == 0 ? 2 : i == 1 || i % 2 == 0 ? 1 : 0);
    }
    rig_restart_with(b, 8);
    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, rig_chain, 3, 0);
    assert_int_equal(rig_step(b, &e), 0);
    w = rig_work_of(b);
    assert_true(w.exclusive);
    assert_int_equal(w.count, 1);
    assert_int_equal(w.attempt, 1);
    rig_refuse_work(b, &w);
    w = rig_work_of(b);
    rig_refuse_work(b, &w);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 7);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.subunits[0], 4);
    assert_int_equal(rig_work_of(b).first, 1); /* that one is finished: quarantined */
}

static void test_core_attempts_of_an_earlier_life_count(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, rig_chain, 3, 0);
    rig_give_units(b, JOB, 1, 8, 2);
    w = rig_work_of(b);
    assert_int_equal(w.count, 8);
    assert_true(w.exclusive);
    rig_refuse_work(b, &w);
    assert_int_equal(rig_work_of(b).count, 1);
}

/* -- what is no failure -- */

static void test_core_a_lost_connection_is_no_failure(void **state)
{
    struct rig *b = *state;
    struct core_work first, second;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 2, 4);
    first = rig_nth(b, CORE_DO_WORK, 0)->work;
    second = rig_nth(b, CORE_DO_WORK, 1)->work;
    rig_lost(b, ENCODER);
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0));
    assert_int_equal(rig_stats(b).n_workers, 0);
    assert_int_equal(rig_stats(b).n_leases, 2);
    b->now += LEASE_MS - 1;
    connect_anew(b, ENCODER, OTHER, &first.lease, 1);
    assert_int_equal(rig_got(b, CORE_DO_FORGET_PEER)->peer, ENCODER);
    assert_int_equal(rig_work_of(b).unit, second.unit); /* which had not reached it */
    assert_int_equal(rig_work_of(b).attempt, 0);
    first.peer = OTHER;
    (void)rig_result(b, &first, 0);
    assert_int_equal(rig_stats(b).results, 1);
    assert_int_equal(rig_stats(b).n_workers, 1);
}

static void test_core_a_connection_that_stays_lost_fails_when_its_leases_end(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 1, 4);
    rig_lost(b, ENCODER);
    rig_tick(b, LEASE_MS);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    assert_int_equal(rig_got(b, CORE_DO_FORGET_PEER)->peer, ENCODER);
}

static void test_core_a_lost_worker_that_has_ended_fails_at_once(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 1, 4);
    rig_lost(b, ENCODER);
    rig_gone(b, ENCODER, false);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    assert_int_equal(rig_stats(b).n_leases, 0);
}

static void test_core_a_shutdown_does_not_wait_for_who_is_lost(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 1, 4);
    rig_lost(b, ENCODER);
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_SHUTDOWN}), 0);
    (void)rig_got(b, CORE_DO_DRAINED);
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0));
}

static void test_core_a_broker_that_was_stopped_blames_nobody(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};
    struct core_work w;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    rig_tick(b, 10 * WORKER_MS);
    assert_int_equal(rig_stats(b).expiries, 0);
    assert_int_equal(rig_stats(b).n_workers, 3);
    assert_in_range(core_next_deadline(b->core), b->now + LEASE_MS / 4, b->now + LEASE_MS / 2);
    e.heartbeat.peer = ENCODER;
    e.heartbeat.epoch = 7;
    e.heartbeat.leases = &w.lease;
    e.heartbeat.n = 1;
    b->now += LEASE_MS / 4;
    assert_int_equal(rig_step(b, &e), 0); /* it is heard in time: its lease goes on */
    rig_tick(b, core_next_deadline(b->core) - b->now);
    assert_int_equal(rig_stats(b).expiries, 0);
    rig_tick(b, core_next_deadline(b->core) - b->now);
    assert_int_equal(rig_stats(b).expiries, 1);
}

static void test_core_isolations_are_workers_lost_alone(void **state)
{
    struct rig *b = *state;
    struct core_job_stats s;

    rig_hello(b, ENCODER, 1, 64);
    rig_chain_job(b, 2, 4);
    rig_gone(b, ENCODER, false);
    rig_hello(b, OTHER, 1, 64);
    assert_int_equal(core_job_stats_get(b->core, JOB, &s), 0);
    assert_int_equal(s.nodes[0].isolations, 0);
    rig_gone(b, OTHER, false);
    assert_int_equal(core_job_stats_get(b->core, JOB, &s), 0);
    assert_int_equal(s.nodes[0].isolations, 1);
}

static void test_core_a_result_of_the_wrong_length_is_a_failure(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t p;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    w.n_items = 5;
    p = rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, p);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    assert_int_equal(rig_stats(b).dropped_bad, 1);
}

static void test_core_lost_tensors_start_the_unit_again_unpunished(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    encoded = rig_result(b, &w, 0);
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_PAYLOAD_LOST, .payload = encoded}), 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, encoded);
    assert_int_equal(rig_work_of(b).node, 0);
    assert_int_equal(rig_work_of(b).attempt, 0);
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0));
}

#define RULE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RULE(test_core_a_failing_unit_is_split_down_to_the_bad_item),
        RULE(test_core_what_failed_once_runs_exclusively),
        RULE(test_core_what_a_dead_worker_held_runs_exclusively_one_by_one),
        RULE(test_core_one_loss_blames_a_subunit_once),
        RULE(test_core_an_earlier_lease_does_not_fail_a_later_attempt),
        RULE(test_core_a_cut_unit_is_as_it_was_after_a_restart),
        RULE(test_core_attempts_of_an_earlier_life_count),
        RULE(test_core_a_lost_connection_is_no_failure),
        RULE(test_core_a_connection_that_stays_lost_fails_when_its_leases_end),
        RULE(test_core_a_lost_worker_that_has_ended_fails_at_once),
        RULE(test_core_a_shutdown_does_not_wait_for_who_is_lost),
        RULE(test_core_a_broker_that_was_stopped_blames_nobody),
        RULE(test_core_isolations_are_workers_lost_alone),
        RULE(test_core_a_result_of_the_wrong_length_is_a_failure),
        RULE(test_core_lost_tensors_start_the_unit_again_unpunished),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
