/* How far the core trusts a worker: rests, benches, blame; tensors that are refused; leases that last too long. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "tests/unit/core_rig.h"

enum { GOOD = 11, BAD = 12 };

static const struct core_node one_stage[1] = {{.stage = 1}};

/* A job of one stage; its units have `n_items` each. */
static void open_job(struct rig *b, uint32_t n_units, uint32_t n_items)
{
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, n_units, n_items, 0);
}

static void hand_back(struct rig *b, const struct core_work *w)
{
    struct core_event e = {.type = CORE_EVENT_RETURN};

    e.lease = (struct core_lease_ref){w->peer, w->epoch, w->lease};
    assert_int_equal(rig_step(b, &e), 0);
}

static void refuse_tensors(struct rig *b, const struct core_work *w, uint32_t nodes)
{
    struct core_event e = {.type = CORE_EVENT_FAILURE};

    e.failure.lease = (struct core_lease_ref){w->peer, w->epoch, w->lease};
    e.failure.code = "bad_tensor";
    e.failure.text = "checksum";
    e.failure.refused = nodes;
    assert_int_equal(rig_step(b, &e), 0);
}

static void beat(struct rig *b, const struct core_work *w, uint64_t items)
{
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};

    e.heartbeat.peer = w->peer;
    e.heartbeat.epoch = 7;
    e.heartbeat.leases = &w->lease;
    e.heartbeat.n = 1;
    e.heartbeat.items = items;
    assert_int_equal(rig_step(b, &e), 0);
}

/* Wait for work; all peers send heartbeats meanwhile, which extend the lease `held`. Returns how long it took. */
static int64_t wait_for_work(struct rig *b, const uint64_t *peers, uint32_t n_peers, uint64_t held)
{
    const int64_t began = b->now;

    while (rig_count(b, CORE_DO_WORK) == 0) {
        assert_true(b->now < began + 3 * LEASE_MS);
        b->now += 20;
        for (uint32_t i = 0; i < n_peers && rig_count(b, CORE_DO_WORK) == 0; i++)
            beat(b, &(struct core_work){.peer = peers[i], .lease = held}, 0);
        if (rig_count(b, CORE_DO_WORK) == 0)
            rig_tick(b, 0);
    }
    return b->now - began;
}

/* Leases that were granted and have not ended. */
struct inbox {
    struct core_work works[256];
    uint32_t n;
    uint64_t last; /* the latest lease noted, so that a step may be read twice */
};

static void note_works(const struct rig *b, struct inbox *in)
{
    for (uint32_t i = 0; i < rig_count(b, CORE_DO_WORK); i++) {
        const struct core_work *w = &rig_nth(b, CORE_DO_WORK, i)->work;

        assert_true(in->n < 256);
        if (w->lease > in->last)
            in->works[in->n++] = *w;
        in->last = w->lease > in->last ? w->lease : in->last;
    }
}

static void commit_all(struct rig *b, struct inbox *in, uint32_t *n_quarantined, uint32_t *n_done)
{
    const struct core_action *a = rig_nth(b, CORE_DO_COMMIT, 0);

    while (a) {
        const struct core_commit m = a->commit;

        *n_quarantined += m.n_quarantined;
        *n_done += 1;
        rig_commit_answer(b, CORE_EVENT_COMMITTED, m.unit);
        note_works(b, in);
        a = rig_nth(b, CORE_DO_COMMIT, 0);
    }
}

/* BAD ends its leases at once, by `end`; GOOD is slower. */
static uint32_t run_beside_each_other(struct rig *b, void (*end)(struct rig *, const struct core_work *),
                                      uint32_t *n_quarantined)
{
    uint32_t n_done = 0, n_bad = 0;
    struct inbox in = {.n = 0};

    rig_hello(b, GOOD, 1, 64);
    rig_hello(b, BAD, 1, 64);
    open_job(b, 60, 4);
    note_works(b, &in);
    for (uint32_t round = 0; n_done < 60; round++) {
        assert_true(round < 3000);
        for (uint32_t i = 0; i < in.n;) {
            const struct core_work w = in.works[i];

            if (w.peer == GOOD && round % 10) {
                i++;
                continue;
            }
            in.works[i] = in.works[--in.n];
            n_bad += w.peer == BAD;
            if (w.peer == BAD)
                end(b, &w);
            else
                (void)rig_result(b, &w, 0);
            note_works(b, &in);
            commit_all(b, &in, n_quarantined, &n_done);
            if (w.peer == GOOD)
                break;
        }
        b->now += 10;
        beat(b, &(struct core_work){.peer = GOOD}, 0);
        note_works(b, &in);
        beat(b, &(struct core_work){.peer = BAD}, 0);
        note_works(b, &in);
        commit_all(b, &in, n_quarantined, &n_done);
        for (uint32_t i = 0; i < in.n; i++) { /* no lease expires here */
            beat(b, &in.works[i], 0);
            note_works(b, &in);
        }
        rig_tick(b, 0);
        note_works(b, &in);
    }
    return n_bad;
}

static void test_core_breaker_a_worker_that_fails_everything_ruins_nothing(void **state)
{
    struct rig *b = *state;
    uint32_t n_quarantined = 0, n_bad = run_beside_each_other(b, rig_refuse_work, &n_quarantined);

    assert_int_equal(n_quarantined, 0);
    assert_true(n_bad < 32);
    assert_int_equal(rig_stats(b).benches, 1);
    assert_int_equal(rig_stats(b).benched[1], 1);
}

static void test_core_breaker_a_worker_that_hands_everything_back_ruins_nothing(void **state)
{
    struct rig *b = *state;
    uint32_t n_quarantined = 0, n_bad = run_beside_each_other(b, hand_back, &n_quarantined);

    assert_int_equal(n_quarantined, 0);
    assert_true(n_bad < 32);
    assert_int_equal(rig_stats(b).benches, 1);
}

/* The next lease of BAD, while GOOD does one unit after the other. Returns how long that took. */
static int64_t next_of_bad(struct rig *b, struct inbox *in, struct core_work *ret)
{
    const int64_t began = b->now;
    uint32_t n_quarantined = 0, n_done = 0;

    for (;; b->now += 20) {
        note_works(b, in);
        for (uint32_t i = 0; i < in->n; i++)
            if (in->works[i].peer == BAD) {
                *ret = in->works[i];
                in->works[i] = in->works[--in->n];
                return b->now - began;
            }
        assert_true(b->now < began + 3 * LEASE_MS && in->n > 0);
        beat(b, &(struct core_work){.peer = BAD}, 0);
        note_works(b, in);
        if (in->works[0].peer == BAD || (b->now - began) % 160)
            continue;
        (void)rig_result(b, &in->works[0], 0);
        in->works[0] = in->works[--in->n];
        note_works(b, in);
        commit_all(b, in, &n_quarantined, &n_done);
        rig_tick(b, 0);
    }
}

static void test_core_breaker_rests_grow_and_end_with_a_good_result(void **state)
{
    struct rig *b = *state;
    struct inbox in = {.n = 0};
    struct core_work w;
    int64_t last = 0;

    rig_hello(b, BAD, 1, 4);
    rig_hello(b, GOOD, 1, 4);
    rig_open_job(b, JOB, one_stage, 1, 0);
    rig_give_units(b, JOB, 64, 4, 0);
    (void)next_of_bad(b, &in, &w);
    for (uint32_t n = 1; n <= 8; n++) {
        int64_t took;

        rig_refuse_work(b, &w);
        assert_int_equal(rig_count(b, CORE_DO_BENCH), n == 6);
        if (n == 6) {
            assert_string_equal(rig_got(b, CORE_DO_BENCH)->bench.why, "oom: no memory on the device");
            assert_int_equal(rig_got(b, CORE_DO_BENCH)->bench.n_bad, 6);
            assert_int_equal(rig_stats(b).benched[1], 1);
        }
        took = next_of_bad(b, &in, &w);
        assert_true(took + 160 >= last); /* BAD may have to wait until GOOD has done what BAD must not have */
        last = took;
    }
    assert_true(last > LEASE_MS / 2 && last <= LEASE_MS + 200);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_BENCH)->bench.n_bad, 0);
    assert_int_equal(rig_stats(b).benched[1], 0);
}

static void test_core_breaker_what_failed_goes_to_another_worker(void **state)
{
    struct rig *b = *state;
    struct core_work w;

    rig_hello(b, GOOD, 1, 64);
    rig_hello(b, BAD, 1, 64);
    open_job(b, 1, 4);
    w = rig_work_of(b);
    rig_refuse_work(b, &w);
    assert_int_not_equal(rig_work_of(b).peer, w.peer);
}

static void test_core_breaker_no_item_is_given_up_before_two_workers_failed_it(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t first;

    rig_hello(b, GOOD, 1, 64);
    open_job(b, 1, 1);
    for (uint32_t n = 0; n < 2; n++) { /* there is no other worker: the same one tries again */
        w = rig_work_of(b);
        first = w.peer;
        rig_refuse_work(b, &w);
        (void)wait_for_work(b, &(uint64_t){GOOD}, 1, 0);
    }
    w = rig_work_of(b);
    rig_hello(b, BAD, 1, 64);
    rig_refuse_work(b, &w); /* the third time, but now there is another one */
    assert_null(rig_nth(b, CORE_DO_COMMIT, 0));
    w = rig_work_of(b);
    assert_int_not_equal(w.peer, first);
    rig_refuse_work(b, &w);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_quarantined, 1);
}

/* Failures of its other nodes do not change that. */
static void test_core_breaker_who_failed_a_node_is_remembered_for_that_node(void **state)
{
    static const struct core_node two[2] = {{.stage = 1, .out_bytes = 100}, {.stage = 2, .needs = 1}};
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded;

    b->limits.max_attempts = 10;
    rig_restart_with(b, 7);
    rig_hello(b, BAD, 1, 64);
    rig_hello(b, GOOD, 1, 4);
    for (uint64_t peer = 20; peer < 25; peer++)
        rig_hello(b, peer, 2, 64);
    rig_open_job(b, JOB, two, 2, 0);
    rig_give_units(b, JOB, 1, 1, 0);
    w = rig_work_of(b);
    assert_int_equal(w.peer, BAD); /* its window is the larger one */
    rig_refuse_work(b, &w);
    w = rig_work_of(b);
    encoded = rig_result(b, &w, 0);
    for (uint32_t n = 0; n < 4; n++) {
        w = rig_work_of(b);
        assert_int_equal(w.node, 1);
        rig_refuse_work(b, &w);
    }
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_PAYLOAD_LOST, .payload = encoded}), 0);
    w = rig_work_of(b);
    assert_int_equal(w.node, 0);
    assert_int_equal(w.peer, GOOD);
}

static void test_core_breaker_a_refused_tensor_is_made_again_by_another(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t encoded, maker;

    rig_three_workers(b, 64);
    rig_hello(b, OTHER, 1, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    maker = w.peer;
    encoded = rig_result(b, &w, 0);
    w = rig_work_of(b);
    assert_int_equal(w.peer, QFORMER);
    refuse_tensors(b, &w, 1);
    assert_int_equal(rig_got(b, CORE_DO_DROP_PAYLOAD)->payload, encoded);
    assert_null(rig_nth(b, CORE_DO_ATTEMPTS, 0)); /* the unit is not to blame */
    w = rig_work_of(b);
    assert_int_equal(w.node, 0);
    assert_int_not_equal(w.peer, maker);
    assert_int_equal(rig_stats(b).tensors_refused, 1);
}

static void test_core_breaker_whose_tensors_are_refused_is_benched(void **state)
{
    struct rig *b = *state;
    static const uint64_t peers[] = {ENCODER, QFORMER, LLM};
    struct core_work w;
    uint32_t n_benches = 0;

    rig_three_workers(b, 64);
    rig_chain_job(b, 1, 4);
    w = rig_work_of(b);
    for (uint32_t n = 0; n < 8; n++) {
        assert_int_equal(w.node, 0);
        (void)rig_result(b, &w, 0); /* this does not make it trusted yet */
        w = rig_work_of(b);
        assert_int_equal(w.peer, QFORMER);
        refuse_tensors(b, &w, 1);
        n_benches += rig_count(b, CORE_DO_BENCH);
        (void)wait_for_work(b, peers, 3, 0);
        w = rig_work_of(b);
    }
    assert_int_equal(n_benches, 1);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0); /* this one could be used */
    assert_int_equal(rig_got(b, CORE_DO_BENCH)->bench.n_bad, 0);
}

static void test_core_breaker_items_given_up_in_a_row_pause_the_job(void **state)
{
    struct rig *b = *state;
    uint32_t n_given = 0;

    b->limits.max_given_up = 3;
    rig_restart_with(b, 7);
    rig_hello(b, BAD, 1, 64);
    open_job(b, 8, 1);
    while (rig_count(b, CORE_DO_JOB_PAUSED) == 0) {
        struct core_work w;

        assert_true(n_given++ < 40);
        assert_int_equal(rig_count(b, CORE_DO_COMMIT), 0); /* held */
        (void)wait_for_work(b, &(uint64_t){BAD}, 1, 0);
        w = rig_work_of(b);
        rig_refuse_work(b, &w);
    }
    assert_int_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.n_failed, 3);
    assert_string_equal(rig_got(b, CORE_DO_JOB_PAUSED)->paused.given_up, "oom: no memory on the device");
}

static void test_core_stall_a_lease_cannot_be_held_for_ever(void **state)
{
    struct rig *b = *state;
    const struct core_action *a = NULL;
    struct core_work w;
    int64_t began;

    b->limits.stall_ms = b->limits.first_stall_ms = 10 * LEASE_MS;
    rig_restart_with(b, 7);
    rig_hello(b, BAD, 1, 64);
    open_job(b, 1, 4);
    w = rig_work_of(b);
    began = b->now;
    while (!(a = rig_nth(b, CORE_DO_HUNG, 0))) {
        assert_true(b->now < began + 20 * LEASE_MS);
        b->now += LEASE_MS / 4;
        beat(b, &w, 0);
        rig_tick(b, 0);
    }
    assert_int_equal(b->now - began, 10 * LEASE_MS);
    assert_int_equal(a->hung.peer, BAD);
    assert_int_equal(rig_got(b, CORE_DO_REFUSE)->refuse.reason, CORE_REFUSE_STALLED);
    assert_int_equal(rig_got(b, CORE_DO_ATTEMPTS)->attempts.attempts, 1);
    assert_int_equal(rig_stats(b).n_workers, 0);
    rig_hello(b, BAD, 1, 64); /* the same process once more */
    assert_int_equal(rig_got(b, CORE_DO_REFUSE)->refuse.reason, CORE_REFUSE_STALLED);
    rig_hello(b, GOOD, 1, 64);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 0);
}

static void test_core_stall_items_that_get_done_are_progress_of_a_first_unit(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    int64_t began;

    b->limits.stall_ms = b->limits.first_stall_ms = 10 * LEASE_MS;
    rig_restart_with(b, 7);
    rig_hello(b, GOOD, 1, 64);
    open_job(b, 1, 4);
    w = rig_work_of(b);
    began = b->now;
    for (uint32_t n = 1; b->now < began + 30 * LEASE_MS; n++) {
        b->now += LEASE_MS / 2;
        beat(b, &w, n / 16);
        rig_tick(b, 0);
    }
    assert_int_equal(rig_stats(b).stalls, 0);
}

static void test_core_stall_slow_stages_get_the_time_they_need(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    int64_t began;

    b->limits.stall_ms = 10 * LEASE_MS;
    rig_restart_with(b, 7);
    rig_hello(b, GOOD, 1, 4);
    open_job(b, 2, 4);
    w = rig_work_of(b);
    for (uint32_t n = 0; n < 40; n++) { /* the first unit takes 20 leases' time */
        b->now += LEASE_MS / 2;
        beat(b, &w, 0);
    }
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    began = b->now;
    while (rig_count(b, CORE_DO_HUNG) == 0) {
        assert_true(b->now < began + 1000 * LEASE_MS);
        b->now += LEASE_MS / 2;
        beat(b, &w, 0);
        rig_tick(b, 0);
    }
    assert_int_equal(b->now - began, 16 * 20 * LEASE_MS);
}

#define RULE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RULE(test_core_breaker_a_worker_that_fails_everything_ruins_nothing),
        RULE(test_core_breaker_a_worker_that_hands_everything_back_ruins_nothing),
        RULE(test_core_breaker_rests_grow_and_end_with_a_good_result),
        RULE(test_core_breaker_what_failed_goes_to_another_worker),
        RULE(test_core_breaker_no_item_is_given_up_before_two_workers_failed_it),
        RULE(test_core_breaker_who_failed_a_node_is_remembered_for_that_node),
        RULE(test_core_breaker_a_refused_tensor_is_made_again_by_another),
        RULE(test_core_breaker_whose_tensors_are_refused_is_benched),
        RULE(test_core_breaker_items_given_up_in_a_row_pause_the_job),
        RULE(test_core_stall_a_lease_cannot_be_held_for_ever),
        RULE(test_core_stall_items_that_get_done_are_progress_of_a_first_unit),
        RULE(test_core_stall_slow_stages_get_the_time_they_need),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
