/* The core's rules for units and leases, one test each. The simulator tests how they work together. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "tests/unit/core_rig.h"

/* -- the way of a unit -- */

static void test_core_a_unit_goes_through_the_chain_and_is_committed(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded, queried, captions;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 8);
    w = rig_work_of(b);
    assert_int_equal(w.peer, ENCODER);
    assert_int_equal(w.n_items, 8);
    assert_int_equal(w.n_inputs, 0);
    assert_int_equal(rig_stats(b).reserved_bytes, 8 * 110);
    encoded = rig_result(b, &w, 0);
    w = rig_work_of(b);
    assert_int_equal(w.peer, QFORMER);
    assert_int_equal(w.inputs[0].payload, encoded);
    queried = rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, encoded);
    w = rig_work_of(b);
    captions = rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, queried);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_payloads, 1);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.payloads[0].payload, captions);
    assert_int_equal(rig_stats(b).reserved_bytes, 0);
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, captions);
    assert_int_equal(rig_got(b, CORE_DO_JOB_DONE)->job, JOB);
}

static void test_core_a_tensor_stays_until_its_last_consumer(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded;

    rig_three_workers(b, 64);
    rig_open_job(b, JOB, rig_chain_score, 4, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    w = rig_work_of(b);
    encoded = rig_result(b, &w, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_null(rig_nth(b, CORE_DO_DROP_PAYLOAD, 0));
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    assert_int_equal(w.node, 3);
    assert_int_equal(w.n_inputs, 2);
    assert_int_equal(w.inputs[0].payload, encoded);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, encoded);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_payloads, 2);
}

static void test_core_an_item_with_an_error_drops_out_of_later_nodes(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    encoded = rig_result(b, &w, 1 << 1);
    w = rig_work_of(b);
    assert_int_equal(w.n_items, 3);
    assert_int_equal(w.items[0], 0xd);
    assert_int_equal(w.inputs[0].n_tensor, 3);
    (void)rig_result(b, &w, 1 << 1); /* the second row: item 2 */
    assert_int_equal(rig_got(b, CORE_DO_DROP_TENSORS)->payload, encoded);
    w = rig_work_of(b);
    assert_int_equal(w.items[0], 0x9);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 2);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_payloads, 3);
}

static void test_core_a_unit_without_good_items_skips_the_other_nodes(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 3);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 7);
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 3);
}

static void test_core_peak_of_a_graph_counts_what_lives_together(void **state)
{
    (void)state;
    assert_int_equal(core_graph_peak_bytes(rig_chain, 3), 110);
    assert_int_equal(core_graph_peak_bytes(rig_chain_score, 4), 110);
}

static void test_core_graph_that_needs_a_later_node_is_refused(void **state)
{
    struct core_node nodes[] = {{.stage = 1, .needs = 2}, {.stage = 2}};
    struct err err;

    (void)state;
    assert_int_equal(core_graph_check(nodes, 2, &err), -EINVAL);
    assert_int_equal(core_graph_check(nodes, 0, &err), -EINVAL);
    assert_int_equal(core_graph_check(rig_chain_score, 4, &err), 0);
}

/* -- leases -- */

static void test_core_stale_results_are_dropped_and_counted(void **state)
{
    struct rig *b = *state;
    struct core_work w, old;
    uint64_t p;

    rig_three_workers(b, 64);
    rig_hello(b, OTHER, 1, 64);
    rig_chain_job(b, 1, 4);
    w = old = rig_work_of(b);
    old.epoch--;
    p = rig_result(b, &old, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, p);
    old = w;
    old.peer = w.peer == ENCODER ? OTHER : ENCODER;
    p = rig_result(b, &old, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, p);
    (void)rig_result(b, &w, 0);
    p = rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, p);
    assert_int_equal(rig_stats(b).dropped_stale, 3);
}

static void test_core_a_heartbeat_extends_the_leases_it_names_and_no_other(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};
    struct core_work first, second;

    rig_three_workers(b, 64);
    rig_chain_job(b, 2, 4);
    first = rig_nth(b, CORE_DO_WORK, 0)->work;
    second = rig_nth(b, CORE_DO_WORK, 1)->work;
    b->now += LEASE_MS - 1;
    e.heartbeat.peer = ENCODER;
    e.heartbeat.epoch = 7;
    e.heartbeat.leases = &first.lease;
    e.heartbeat.n = 1;
    assert_int_equal(rig_step(b, &e), 0);
    rig_tick(b, 1);
    assert_int_equal(rig_stats(b).expiries, 1);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.unit, second.unit);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
}

static void test_core_a_heartbeat_of_another_epoch_extends_nothing(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};
    struct core_work w;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    e.heartbeat.peer = ENCODER;
    e.heartbeat.epoch = 6;
    e.heartbeat.leases = &w.lease;
    e.heartbeat.n = 1;
    b->now += LEASE_MS - 1;
    assert_int_equal(rig_step(b, &e), 0);
    rig_tick(b, 1);
    assert_int_equal(rig_stats(b).expiries, 1);
}

static void test_core_a_worker_whose_lease_expired_gets_nothing_until_it_is_heard(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    rig_tick(b, LEASE_MS);
    assert_int_equal(rig_stats(b).expiries, 1);
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    e.heartbeat.peer = ENCODER;
    e.heartbeat.epoch = 7;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_work_of(b).attempt, 1);
}

static void test_core_a_worker_that_is_heard_but_ends_nothing_is_on_trial(void **state)
{
    struct rig *b = *state;
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};
    struct core_work w;

    rig_three_workers(b, 64);
    rig_chain_job(b, 3, 4);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 3);
    rig_tick(b, LEASE_MS);
    assert_int_equal(rig_count(b, CORE_DO_ATTEMPTS), 3);
    e.heartbeat.peer = ENCODER;
    e.heartbeat.epoch = 7;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1); /* one at a time */
    rig_tick(b, LEASE_MS);
    assert_int_equal(rig_count(b, CORE_DO_ATTEMPTS), 0); /* not the unit's fault */
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 0); /* a pause */
    b->now += LEASE_MS;
    assert_int_equal(rig_step(b, &e), 0);
    rig_tick(b, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 1); /* the next suspect one */
}

static void test_core_a_silent_worker_is_forgotten(void **state)
{
    struct rig *b = *state;

    rig_hello(b, ENCODER, 1, 64);
    assert_int_equal(core_next_deadline(b->core), b->now + LEASE_MS);
    rig_tick(b, LEASE_MS);
    rig_chain_job(b, 1, 1);
    assert_null(rig_nth(b, CORE_DO_WORK, 0)); /* no new work meanwhile */
    assert_int_equal(core_next_deadline(b->core), b->now + WORKER_MS - LEASE_MS);
    rig_tick(b, WORKER_MS - LEASE_MS);
    assert_int_equal(rig_got(b, CORE_DO_FORGET_PEER)->peer, ENCODER);
    assert_int_equal(rig_stats(b).n_workers, 0);
}

static void test_core_returned_and_drained_leases_cost_no_attempt(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    struct core_event e = {.type = CORE_EVENT_RETURN};

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    e.lease = (struct core_lease_ref){w.peer, w.epoch, w.lease};
    assert_int_equal(rig_step(b, &e), 0);
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0));
    assert_int_equal(rig_work_of(b).attempt, 0);
    rig_gone(b, ENCODER, true);
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0));
}

static void test_core_the_leases_of_a_lost_worker_go_to_another(void **state)
{
    struct rig *b = *state;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    rig_gone(b, ENCODER, false);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    rig_hello(b, OTHER, 1, 64);
    assert_int_equal(rig_work_of(b).peer, OTHER);
    assert_int_equal(rig_work_of(b).attempt, 1);
}

static void test_core_a_retry_keeps_the_inputs_it_has(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    encoded = rig_result(b, &w, 0);
    w = rig_work_of(b);
    rig_refuse_work(b, &w);
    w = rig_work_of(b);
    assert_int_equal(w.node, 1);
    assert_int_equal(w.inputs[0].payload, encoded);
}

#define RULE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RULE(test_core_a_unit_goes_through_the_chain_and_is_committed),
        RULE(test_core_a_tensor_stays_until_its_last_consumer),
        RULE(test_core_an_item_with_an_error_drops_out_of_later_nodes),
        RULE(test_core_a_unit_without_good_items_skips_the_other_nodes),
        RULE(test_core_peak_of_a_graph_counts_what_lives_together),
        RULE(test_core_graph_that_needs_a_later_node_is_refused),
        RULE(test_core_stale_results_are_dropped_and_counted),
        RULE(test_core_a_heartbeat_extends_the_leases_it_names_and_no_other),
        RULE(test_core_a_heartbeat_of_another_epoch_extends_nothing),
        RULE(test_core_a_worker_whose_lease_expired_gets_nothing_until_it_is_heard),
        RULE(test_core_a_worker_that_is_heard_but_ends_nothing_is_on_trial),
        RULE(test_core_a_silent_worker_is_forgotten),
        RULE(test_core_returned_and_drained_leases_cost_no_attempt),
        RULE(test_core_the_leases_of_a_lost_worker_go_to_another),
        RULE(test_core_a_retry_keeps_the_inputs_it_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
