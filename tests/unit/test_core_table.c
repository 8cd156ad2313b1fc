/* The core's map and heap under random operations from a fixed seed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "broker/core_table.h"

/* -- containers -- */

static void test_core_map_finds_what_is_there_and_nothing_else(void **state)
{
    enum { N_KEYS = 997 };
    struct core_map m = {0};
    static char here[N_KEYS];
    uint64_t random = 12345;

    (void)state;
    memset(here, 0, sizeof(here));
    for (int i = 0; i < 200000; i++) {
        uint64_t key = core_mix64(random++) % N_KEYS;

        if (here[key]) {
            assert_ptr_equal(core_map_get(&m, key + 1), &here[key]);
            assert_ptr_equal(core_map_take(&m, key + 1), &here[key]);
        } else {
            assert_null(core_map_take(&m, key + 1));
            assert_int_equal(core_map_put(&m, key + 1, &here[key]), 0);
        }
        here[key] = !here[key];
    }
    for (uint64_t key = 0; key < N_KEYS; key++)
        assert_ptr_equal(core_map_get(&m, key + 1), here[key] ? &here[key] : NULL);
    core_map_release(&m);
}

static void test_core_heap_keeps_its_order_while_members_move(void **state)
{
    struct core_heap h = {0};
    static uint32_t places[300];
    uint64_t random = 777;

    (void)state;
    memset(places, 0, sizeof(places));
    for (int i = 0; i < 20000; i++) {
        uint64_t r = core_mix64(random++);
        uint32_t *place = &places[r % 300];

        if (r >> 60 < 5)
            core_heap_remove(&h, place);
        else
            assert_int_equal(core_heap_set(&h, place, (int64_t)(r >> 40), place), 0);
        core_heap_validate(&h);
    }
    core_heap_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_core_map_finds_what_is_there_and_nothing_else),
        cmocka_unit_test(test_core_heap_keeps_its_order_while_members_move),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
