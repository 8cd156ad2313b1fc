#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/gpu/cuda_rig.h"
#include "tests/unit/not_finite.h"

static void test_cuda_shows_what_is_not_finite(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *fp8;

    not_finite_check(g->cuda[CUDA_RIG_F32], "cuda f32");
    not_finite_check(g->cuda[CUDA_RIG_F16], "cuda f16");
    not_finite_check(g->cuda[CUDA_RIG_BF16], "cuda bf16");
    fp8 = cuda_rig_open(DTYPE_BF16, true, false, 0.1);
    not_finite_check(fp8, "cuda fp8");
    ops_free(fp8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_shows_what_is_not_finite),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
