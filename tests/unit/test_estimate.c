#include "client/estimate.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* Captions by one model, scored by another one, whose Q-Former workers do two nodes. */
static struct plan plan_of_five(void)
{
    return (struct plan){.n_nodes = 5,
                         .nodes = {{.stage = STAGE_ENCODE, .fingerprint = {{1}}},
                                   {.stage = STAGE_QFORMER, .fingerprint = {{2}}},
                                   {.stage = STAGE_LLM, .fingerprint = {{3}}},
                                   {.stage = STAGE_QFORMER, .fingerprint = {{4}}},
                                   {.stage = STAGE_QFORMER, .fingerprint = {{4}}}}};
}

static void test_estimate_is_the_time_of_the_slowest_stage(void **state)
{
    const struct plan plan = plan_of_five();
    struct row_fleet_stage rows[] = {
        {.stage = STAGE_ENCODE, .fingerprint = {{1}}, .n_able = 2, .capacity = 50000},
        {.stage = STAGE_QFORMER, .fingerprint = {{2}}, .n_able = 1, .capacity = 90000},
        {.stage = STAGE_QFORMER, .fingerprint = {{4}}, .n_able = 1, .capacity = 30000}, /* 15 img/s: each twice */
        {.stage = STAGE_LLM, .fingerprint = {{9}}, .n_able = 1, .capacity = 1},         /* another model */
        {.stage = STAGE_LLM, .fingerprint = {{3}}, .n_able = 1, .capacity = 20000},
    };
    struct estimate e;

    (void)state;
    estimate_make(&plan, 3000, rows, 5, &e);
    assert_int_equal(e.n, 4);
    assert_ptr_equal(e.slowest, &e.stages[3]);
    assert_int_equal((int)e.seconds, 200);
    assert_int_equal((int)e.stages[0].items_per_s, 50);
    rows[4].capacity = 2000;
    estimate_make(&plan, 3000, rows, 5, &e);
    assert_int_equal(e.slowest->node->stage, STAGE_LLM);
    assert_int_equal((int)e.seconds, 1500);
}

static void test_estimate_is_unknown_while_a_stage_is(void **state)
{
    const struct plan plan = plan_of_five();
    struct row_fleet_stage rows[] = {
        {.stage = STAGE_ENCODE, .fingerprint = {{1}}, .n_able = 2, .capacity = 50000},
        {.stage = STAGE_QFORMER, .fingerprint = {{2}}, .n_able = 1, .capacity = 90000},
        {.stage = STAGE_QFORMER, .fingerprint = {{4}}, .n_able = 1, .capacity = 30000},
        {.stage = STAGE_LLM, .fingerprint = {{3}}, .n_able = 0, .capacity = 20000}, /* all are benched */
    };
    struct estimate e;

    (void)state;
    estimate_make(&plan, 3000, rows, 4, &e);
    assert_null(e.slowest);
    assert_null(e.stages[2].fleet);
    rows[3].n_able = 1;
    rows[3].capacity = 0; /* has just connected */
    estimate_make(&plan, 3000, rows, 4, &e);
    assert_null(e.slowest);
    assert_ptr_equal(e.stages[2].fleet, &rows[3]);
    estimate_make(&plan, 3000, NULL, 0, &e);
    assert_null(e.slowest);
}

static void test_estimate_takes_any_workers_for_nodes_without_a_model(void **state)
{
    const struct plan plan = {.n_nodes = 1, .nodes = {{.stage = STAGE_LLM}}};
    const struct row_fleet_stage rows[] = {{.stage = STAGE_LLM, .fingerprint = {{1}}, .n_able = 1},
                                           {.stage = STAGE_LLM, .n_able = 1, .capacity = 5000}};
    struct estimate e;

    (void)state;
    estimate_make(&plan, 10, rows, 2, &e);
    assert_ptr_equal(e.slowest->fleet, &rows[1]);
    assert_int_equal((int)e.seconds, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimate_is_the_time_of_the_slowest_stage),
        cmocka_unit_test(test_estimate_is_unknown_while_a_stage_is),
        cmocka_unit_test(test_estimate_takes_any_workers_for_nodes_without_a_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
