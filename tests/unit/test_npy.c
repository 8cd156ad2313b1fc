#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "client/export/npy.h"

static void check(enum dtype dtype, int n_dims, const uint64_t *shape, const char *want)
{
    uint8_t head[NPY_HEAD_BYTES];

    assert_int_equal(npy_head(dtype, n_dims, shape, head), 0);
    assert_memory_equal(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(head + 10, want, strlen(want));
    for (size_t i = 10 + strlen(want); i < NPY_HEAD_BYTES - 1; i++)
        assert_int_equal(head[i], ' ');
    assert_int_equal(head[NPY_HEAD_BYTES - 1], '\n');
}

static void test_npy_head_is_numpys(void **state)
{
    (void)state;
    check(DTYPE_F32, 1, (const uint64_t[]){7}, "{'descr': '<f4', 'fortran_order': False, 'shape': (7, ), }");
    check(DTYPE_F16, 3, (const uint64_t[]){0, 32, 768},
          "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 32, 768), }");
    check(DTYPE_F32, 3, (const uint64_t[]){UINT64_MAX, UINT32_MAX, UINT32_MAX},
          "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 4294967295, 4294967295), }");
}

static void test_npy_head_refuses_what_it_cannot_say(void **state)
{
    static const uint64_t shape[4] = {1, 1, 1, 1};
    uint8_t head[NPY_HEAD_BYTES];

    (void)state;
    assert_int_equal(npy_head(DTYPE_BF16, 1, shape, head), -EINVAL);
    assert_int_equal(npy_head(DTYPE_F32, 4, shape, head), -EINVAL);
    assert_int_equal(npy_head(DTYPE_F32, 0, shape, head), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_npy_head_is_numpys),
        cmocka_unit_test(test_npy_head_refuses_what_it_cannot_say),
    };

    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
