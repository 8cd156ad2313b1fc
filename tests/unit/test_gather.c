#include "worker/gather.h"

#include "tensor/tensor.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 11, WIDTH = 6 };

/* Row r is r, r + 0.5, r + 1, ...: exact in all three types. */
static struct wire_tensor *tensor_of(enum dtype dtype, uint32_t n_rows, uint32_t width)
{
    const uint32_t shape[2] = {n_rows, width};
    float *values = malloc((size_t)n_rows * width * sizeof(float));
    uint8_t *data = malloc((size_t)n_rows * width * sizeof(float));
    struct wire_tensor *t;
    struct err err;

    assert_true(values && data);
    for (uint32_t i = 0; i < n_rows; i++)
        for (uint32_t k = 0; k < width; k++)
            values[i * width + k] = (float)(i % 100) + 0.5F * (float)(k % 8);
    tensor_from_f32(data, dtype, values, (size_t)n_rows * width);
    if (wire_tensor_new(dtype, shape, 2, data, NULL, NULL, &t, &err) < 0)
        fail_msg("%s", err.text);
    free(values);
    free(data);
    return t;
}

/* Rows `first` .. + n of a checked tensor as f32, with a number behind them that must stay. */
static void gather_f32(const struct worker_work *work, uint32_t tensor, uint32_t first, uint32_t n, uint32_t width,
                       float *ret)
{
    const size_t end = (size_t)n * width;

    ret[end] = 4321;
    worker_gather(work, tensor, first, n, DTYPE_F32, ret);
    assert_true(ret[end] == 4321);
}

static void assert_row(const float *got, uint32_t width, uint32_t row)
{
    for (uint32_t k = 0; k < width; k++)
        if (got[k] != (float)(row % 100) + 0.5F * (float)(k % 8))
            fail_msg("row %u, column %u is %f", row, k, (double)got[k]);
}

static void test_gather_gives_any_float_type_from_any(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    const uint32_t shape[2] = {ROWS, WIDTH};

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        const enum dtype to = dtypes[i / 3];
        struct wire_tensor *t = tensor_of(dtypes[i % 3], ROWS, WIDTH);
        const struct worker_work work = {.n_items = ROWS, .n_tensors = 1, .tensors = {t}};
        float raw[ROWS][WIDTH], got[ROWS][WIDTH];
        struct err err;

        if (worker_gather_check(&work, 0, 2, shape, &err) < 0)
            fail_msg("%s", err.text);
        worker_gather(&work, 0, 0, ROWS, to, raw);
        tensor_to_f32(got[0], to, raw, (size_t)ROWS * WIDTH);
        for (uint32_t r = 0; r < ROWS; r++)
            assert_row(got[r], WIDTH, r);
        wire_tensor_free(t);
    }
}

/* Rows of several frames, where the selection leaves out rows on both sides of a cut. */
static void test_gather_keeps_what_a_selection_says(void **state)
{
    enum { MANY = 40, WIDE = 200000 }; /* 0.8 MB a row: 10 rows a frame */
    struct wire_tensor *t = tensor_of(DTYPE_F32, MANY, WIDE);
    struct msg_selection s = {.tensor = 1, .n_bytes = MANY / 8};
    struct worker_work work = {.n_tensors = 2, .tensors = {t, t}, .n_selections = 1, .selections = &s};
    uint32_t kept[MANY], shape[2] = {0, WIDE};
    float *got = malloc(((size_t)MANY * WIDE + 1) * sizeof(float));
    struct err err;

    (void)state;
    assert_non_null(got);
    assert_true(wire_tensor_n_frames(t) > 2);
    for (uint32_t r = 0; r < MANY; r++)
        if (r != 0 && r != 9 && r != 10 && r != 25 && r != 39) {
            s.rows[r / 8] |= (uint8_t)(1 << r % 8);
            kept[work.n_items++] = r;
        }
    shape[0] = work.n_items;
    if (worker_gather_check(&work, 1, 2, shape, &err) < 0)
        fail_msg("%s", err.text);
    for (uint32_t n = 1; n <= work.n_items; n += 6)
        for (uint32_t first = 0; first + n <= work.n_items; first++) {
            gather_f32(&work, 1, first, n, WIDE, got);
            for (uint32_t i = 0; i < n; i++)
                assert_row(got + (size_t)i * WIDE, WIDE, kept[first + i]);
        }
    assert_int_equal(worker_gather_check(&work, 0, 2, shape, &err), -EINVAL); /* that one is not selected from */
    free(got);
    wire_tensor_free(t);
}

static void test_gather_refuses_what_was_not_wanted(void **state)
{
    struct wire_tensor *t = tensor_of(DTYPE_F32, ROWS, WIDTH), *whole;
    const uint32_t shape[2] = {ROWS, WIDTH}, wide[2] = {ROWS, WIDTH + 1}, fewer[2] = {ROWS - 1, WIDTH};
    const int32_t numbers[ROWS * WIDTH] = {0};
    struct worker_work work = {.n_items = ROWS, .n_tensors = 1, .tensors = {t}};
    struct err err;

    (void)state;
    assert_int_equal(worker_gather_check(&work, 1, 2, shape, &err), -EINVAL);
    assert_int_equal(worker_gather_check(&work, 0, 1, shape, &err), -EINVAL);
    assert_int_equal(worker_gather_check(&work, 0, 2, wide, &err), -EINVAL);
    assert_int_equal(worker_gather_check(&work, 0, 2, fewer, &err), -EINVAL);
    assert_int_equal(wire_tensor_new(DTYPE_I32, shape, 2, numbers, NULL, NULL, &whole, &err), 0);
    work.tensors[0] = whole;
    assert_int_equal(worker_gather_check(&work, 0, 2, shape, &err), -EINVAL);
    assert_non_null(strstr(err.text, "float"));
    wire_tensor_free(whole);
    wire_tensor_free(t);
}

static void test_gather_sees_changed_bytes(void **state)
{
    struct wire_tensor *t = tensor_of(DTYPE_BF16, ROWS, WIDTH);
    const struct worker_work work = {.n_items = ROWS, .n_tensors = 1, .tensors = {t}};
    const uint32_t shape[2] = {ROWS, WIDTH};
    struct err err;
    size_t n;

    (void)state;
    ((uint8_t *)(uintptr_t)wire_tensor_frame(t, 0, &n))[17] ^= 4;
    assert_int_equal(worker_gather_check(&work, 0, 2, shape, &err), -EBADMSG);
    wire_tensor_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_gives_any_float_type_from_any),
        cmocka_unit_test(test_gather_keeps_what_a_selection_says),
        cmocka_unit_test(test_gather_refuses_what_was_not_wanted),
        cmocka_unit_test(test_gather_sees_changed_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
