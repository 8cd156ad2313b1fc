#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "tests/unit/not_finite.h"
#include "tests/unit/ops_rig.h"

static void test_ops_show_what_is_not_finite(void **state)
{
    struct ops_rig *g = *state;

    not_finite_check(g->ref, "ref");
    for (int type = 0; type < OPS_RIG_TYPES; type++)
        for (int isa = CPU_ISA_BASE; g->cpu[type] && isa <= (int)g->best; isa++) {
            char name[40];

            (void)snprintf(name, sizeof(name), "cpu %s, isa %d", dtype_name(g->cpu[type]->act_dtype), isa);
            if (type == OPS_RIG_F32)
                ops_rig_reopen(g, (enum cpu_isa)isa, 2);
            else
                ops_rig_use(g, type, (enum cpu_isa)isa);
            not_finite_check(g->cpu[type], name);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ops_show_what_is_not_finite, ops_rig_setup, ops_rig_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
