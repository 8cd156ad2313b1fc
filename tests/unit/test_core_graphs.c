/* Graphs beyond a chain: two first nodes, nodes that leave only rows, rows that wait for a commit. */
#include "tests/unit/core_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* A captioner, and a scorer with its own trunk: node 3 needs nothing, node 4 needs the features of 3 and rows of 2. */
static const struct core_node two_trunks[5] = {{.stage = 1, .out_bytes = 100},
                                               {.stage = 2, .needs = 1 << 0, .out_bytes = 10},
                                               {.stage = 3, .needs = 1 << 1},
                                               {.stage = 1, .out_bytes = 100},
                                               {.stage = 2, .needs = 1 << 2 | 1 << 3}};

static struct core_work nth_work(const struct rig *b, uint32_t n)
{
    const struct core_action *a = rig_nth(b, CORE_DO_WORK, n);

    assert_non_null(a);
    return a->work;
}

static void test_core_graphs_rows_are_an_input_until_the_last_consumer(void **state)
{
    struct rig *b = *state;
    struct core_work w;
    uint64_t captions;

    rig_three_workers(b, 64);
    rig_open_job(b, JOB, rig_chain_score, 4, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    captions = rig_result(b, &w, 1 << 2); /* item 2 fails at the language model */
    w = rig_work_of(b);
    assert_int_equal(w.n_items, 3);
    assert_int_equal(w.items[0], 0xb);
    assert_int_equal(w.inputs[0].node, 0);
    assert_int_equal(w.inputs[0].n_tensor, 4); /* more rows than items: the shell says which are meant */
    assert_int_equal(w.inputs[0].ok[0], 0xf);
    assert_int_equal(w.inputs[1].node, 2);
    assert_int_equal(w.inputs[1].payload, captions);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_payloads, 2);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 1);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_not_equal(rig_got(b, CORE_DO_DROP_TENSORS)->payload, 0);
}

static void test_core_graphs_two_first_nodes_share_one_reservation(void **state)
{
    struct rig *b = *state;
    struct core_work first, second;

    assert_int_equal(core_graph_peak_bytes(two_trunks, 5), 210);
    rig_hello(b, ENCODER, 1, 64);
    rig_open_job(b, JOB, two_trunks, 5, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    first = nth_work(b, 0);
    second = nth_work(b, 1);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 2);
    assert_int_equal(first.node + second.node, 3);
    assert_int_equal(rig_stats(b).reserved_bytes, 4 * 210);
    assert_int_equal(rig_stats(b).n_reserved, 1);
    rig_gone(b, ENCODER, true); /* both are returned: nothing is held any more */
    assert_int_equal(rig_stats(b).reserved_bytes, 0);
    rig_hello(b, OTHER, 1, 64);
    assert_int_equal(rig_count(b, CORE_DO_WORK), 2);
    assert_int_equal(rig_stats(b).reserved_bytes, 4 * 210);
}

static void test_core_graphs_an_error_of_one_trunk_reaches_the_other_branch(void **state)
{
    struct rig *b = *state;
    struct core_work work[2], w;

    rig_three_workers(b, 64);
    rig_open_job(b, JOB, two_trunks, 5, 0);
    rig_give_units(b, JOB, 1, 4, 0);
    work[0] = nth_work(b, 0);
    work[1] = nth_work(b, 1);
    for (int i = 0; i < 2; i++)
        if (work[i].node == 3)
            (void)rig_result(b, &work[i], 1 << 0);
    for (int i = 0; i < 2; i++)
        if (work[i].node == 0)
            (void)rig_result(b, &work[i], 1 << 3);
    w = rig_work_of(b);
    assert_int_equal(w.node, 1);
    assert_int_equal(w.items[0], 0x6);
    assert_int_equal(w.inputs[0].n_tensor, 3);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    (void)rig_result(b, &w, 0);
    w = rig_work_of(b);
    assert_int_equal(w.node, 4);
    assert_int_equal(w.n_inputs, 2);
    assert_int_equal(w.inputs[0].node, 2);
    assert_int_equal(w.inputs[1].ok[0], 0xe);
    (void)rig_result(b, &w, 0);
    assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.n_failed, 2);
}

/* Units of 400 bytes where 1000 fit: two wait for their commits, the third waits for them. */
static void test_core_graphs_rows_that_wait_for_a_commit_are_bounded(void **state)
{
    const struct core_node one[1] = {{.stage = 1, .row_bytes = 1}}; /* too little: results correct it */
    struct rig *b = *state;
    struct core_work w;

    b->limits.row_bytes = 1000;
    b->row_bytes = 100;
    rig_restart_with(b, 8);
    rig_hello(b, ENCODER, 1, 4); /* a unit at a time */
    rig_open_job(b, JOB, one, 1, 0);
    rig_give_units(b, JOB, 4, 4, 0);
    for (uint32_t unit = 0; unit < 2; unit++) {
        w = rig_work_of(b);
        assert_int_equal(w.unit, unit);
        (void)rig_result(b, &w, 1); /* errors are kept */
        assert_int_equal(rig_got(b, CORE_DO_COMMIT)->commit.unit, unit);
    }
    assert_int_equal(rig_stats(b).row_bytes, 800);
    assert_null(rig_nth(b, CORE_DO_WORK, 0));
    rig_commit_answer(b, CORE_EVENT_COMMITTED, 0);
    assert_int_equal(rig_work_of(b).unit, 2);
    assert_int_equal(rig_stats(b).row_bytes, 400);
}

static void test_core_graphs_a_unit_larger_than_the_row_limit_still_runs(void **state)
{
    struct rig *b = *state;
    struct core_node nodes[3];
    struct core_work w;

    for (int k = 0; k < 3; k++)
        nodes[k] = rig_chain[k];
    nodes[2].row_bytes = 100;
    b->limits.row_bytes = 50;
    b->row_bytes = 100;
    rig_restart_with(b, 8);
    rig_three_workers(b, 64);
    rig_open_job(b, JOB, nodes, 3, 0);
    rig_give_units(b, JOB, 2, 4, 0);
    for (uint32_t unit = 0; unit < 2; unit++) {
        for (int k = 0; k < 3; k++) {
            w = rig_work_of(b);
            assert_int_equal(w.unit, unit);
            assert_int_equal(rig_count(b, CORE_DO_WORK), 1); /* one at a time */
            (void)rig_result(b, &w, 0);
        }
        assert_null(rig_nth(b, CORE_DO_WORK, 0)); /* not before the commit */
        assert_int_equal(rig_stats(b).row_bytes, 400);
        rig_commit_answer(b, CORE_EVENT_COMMITTED, unit);
    }
    assert_int_equal(rig_stats(b).row_bytes, 0);
}

#define RULE(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RULE(test_core_graphs_rows_are_an_input_until_the_last_consumer),
        RULE(test_core_graphs_two_first_nodes_share_one_reservation),
        RULE(test_core_graphs_an_error_of_one_trunk_reaches_the_other_branch),
        RULE(test_core_graphs_rows_that_wait_for_a_commit_are_bounded),
        RULE(test_core_graphs_a_unit_larger_than_the_row_limit_still_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
