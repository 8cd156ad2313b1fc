#include "tensor/tensor.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float f32_of_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, 4);
    return f;
}

/* The definition of binary16, in doubles. */
static double f16_value(uint16_t h)
{
    int exp = (h >> 10) & 31, frac = h & 1023;
    double sign = h & 0x8000 ? -1 : 1;

    if (exp == 31)
        return frac ? NAN : sign * INFINITY;
    return sign * (exp ? ldexp(1024 + frac, exp - 25) : ldexp(frac, -24));
}

static void test_tensor_every_f16_converts_exactly_and_back(void **state)
{
    static uint16_t in[65536 + 3], back[65536 + 3];
    static float out[65536 + 3];

    (void)state;
    for (int i = 0; i < 65536 + 3; i++)
        in[i] = (uint16_t)i;
    tensor_to_f32(out, DTYPE_F16, in, 65536 + 3); /* odd length: vector body and scalar tail */
    tensor_from_f32(back, DTYPE_F16, out, 65536 + 3);
    for (int i = 0; i < 65536; i++) {
        double want = f16_value((uint16_t)i);

        if (isnan(want)) {
            assert_true(isnan(out[i]));
            assert_true(isnan(f16_value(back[i])));
        } else {
            assert_true((double)out[i] == want && !signbit(out[i]) == !signbit(want));
            assert_int_equal(back[i], i);
        }
    }
}

static void test_tensor_scalar_and_vector_f16_agree(void **state)
{
    unsigned seed = 20240229;
    float in[8], one;
    uint16_t many[8], single;

    (void)state;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 200000; round++) {
        for (int i = 0; i < 8; i++) {
            uint32_t bits = (uint32_t)rand_r(&seed) << 16 ^ (uint32_t)rand_r(&seed);

            if (round & 1) /* half of them near the range of f16 */
                bits = (bits & 0x80ffffffu) | (uint32_t)(0x33 + rand_r(&seed) % 0x16) << 24;
            in[i] = f32_of_bits(bits);
        }
        tensor_from_f32(many, DTYPE_F16, in, 8);
        for (int i = 0; i < 8; i++) {
            tensor_from_f32(&single, DTYPE_F16, &in[i], 1); /* n < 8: the scalar path */
            assert_int_equal(single, many[i]);
        }
        tensor_to_f32(in, DTYPE_F16, many, 8);
        tensor_to_f32(&one, DTYPE_F16, &many[3], 1);
        assert_memory_equal(&one, &in[3], 4);
    }
}

static void test_tensor_bf16_rounds_to_nearest_even(void **state)
{
    static const struct {
        uint32_t f32;
        uint16_t bf16;
    } cases[] = {{0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81},
                 {0xbf808001, 0xbf81}, {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80}, {0x00000000, 0x0000},
                 {0x80000000, 0x8000}, {0x00018000, 0x0002}};
    float f;
    uint16_t h;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        f = f32_of_bits(cases[i].f32);
        tensor_from_f32(&h, DTYPE_BF16, &f, 1);
        assert_int_equal(h, cases[i].bf16);
    }
    f = f32_of_bits(0x7f800001); /* a NaN whose payload is in the low half must not become infinity */
    tensor_from_f32(&h, DTYPE_BF16, &f, 1);
    assert_true((h & 0x7f80) == 0x7f80 && (h & 0x7f));
    h = 0xc049;
    tensor_to_f32(&f, DTYPE_BF16, &h, 1);
    assert_true(f == f32_of_bits(0xc0490000));
}

static void test_tensor_conversion_needs_no_alignment(void **state)
{
    unsigned char raw[64];
    float want[9], got[9];
    uint16_t h[9];

    (void)state;
    for (int i = 0; i < 9; i++)
        want[i] = (float)i * 0.25f - 1;
    tensor_from_f32(h, DTYPE_F16, want, 9);
    memcpy(raw + 1, h, sizeof(h));
    tensor_to_f32(got, DTYPE_F16, raw + 1, 9);
    assert_memory_equal(got, want, sizeof(want));
    memcpy(raw + 3, want, sizeof(want));
    tensor_to_f32(got, DTYPE_F32, raw + 3, 9);
    assert_memory_equal(got, want, sizeof(want));
}

static void test_tensor_row_is_the_flattened_slice(void **state)
{
    uint8_t data[2 * 3 * 2] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct tensor t = {DTYPE_U8, 3, {2, 3, 2}, data};
    float row[6];

    (void)state;
    tensor_row_to_f32(&t, 1, row);
    for (int i = 0; i < 6; i++)
        assert_true(row[i] == (float)(6 + i));
}

static void test_tensor_sizes_refuse_overflow_and_nonsense(void **state)
{
    struct tensor t = {DTYPE_F32, 2, {3, 5}, NULL};
    size_t bytes = 7;
    int64_t n = 7;

    (void)state;
    assert_int_equal(tensor_size_bytes(&t, &bytes), 0);
    assert_int_equal(bytes, 60);
    t = (struct tensor){DTYPE_F32, 0, {0}, NULL};
    assert_int_equal(tensor_size_bytes(&t, &bytes), 0);
    assert_int_equal(bytes, 4);
    bytes = 7;
    t = (struct tensor){DTYPE_F32, 4, {INT64_MAX, 2, 1, 1}, NULL};
    assert_int_equal(tensor_n_elements(&t, &n), -EOVERFLOW);
    t = (struct tensor){DTYPE_F32, 4, {INT64_MAX, 2, 0, 1}, NULL}; /* empty, but absurd */
    assert_int_equal(tensor_n_elements(&t, &n), -EOVERFLOW);
    t = (struct tensor){DTYPE_I64, 1, {INT64_MAX / 4}, NULL};
    assert_int_equal(tensor_size_bytes(&t, &bytes), -EOVERFLOW);
    t = (struct tensor){DTYPE_F32, 1, {-1}, NULL};
    assert_int_equal(tensor_size_bytes(&t, &bytes), -EINVAL);
    t = (struct tensor){DTYPE_F32, 5, {1, 1, 1, 1}, NULL};
    assert_int_equal(tensor_size_bytes(&t, &bytes), -EINVAL);
    t = (struct tensor){(enum dtype)99, 1, {1}, NULL};
    assert_int_equal(tensor_size_bytes(&t, &bytes), -EINVAL);
    assert_int_equal(bytes, 7);
    assert_int_equal(n, 7);
}

static void test_tensor_names_and_shapes_are_spelled_as_in_files(void **state)
{
    char text[32], tiny[4];
    enum dtype d;
    int64_t shape[3] = {1, 22, 333};
    struct tensor t = {DTYPE_F16, 3, {1, 22, 333}, NULL};

    (void)state;
    for (int i = DTYPE_F32; i <= DTYPE_F8_E4M3; i++) {
        assert_int_equal(dtype_parse(dtype_name((enum dtype)i), &d), 0);
        assert_int_equal(d, i);
    }
    assert_int_equal(dtype_parse("bfloat16", &d), 0);
    assert_int_equal(d, DTYPE_BF16);
    assert_int_equal(dtype_parse("F8_E4M3", &d), -EINVAL);
    assert_string_equal(tensor_shape_text(3, shape, text, sizeof(text)), "[1, 22, 333]");
    assert_string_equal(tensor_shape_text(0, shape, text, sizeof(text)), "[]");
    assert_string_equal(tensor_shape_text(3, shape, tiny, sizeof(tiny)), "[1,");
    assert_true(tensor_shape_is(&t, 3, shape));
    assert_false(tensor_shape_is(&t, 2, shape));
    shape[1] = 21;
    assert_false(tensor_shape_is(&t, 3, shape));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensor_every_f16_converts_exactly_and_back),
        cmocka_unit_test(test_tensor_scalar_and_vector_f16_agree),
        cmocka_unit_test(test_tensor_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_tensor_conversion_needs_no_alignment),
        cmocka_unit_test(test_tensor_row_is_the_flattened_slice),
        cmocka_unit_test(test_tensor_sizes_refuse_overflow_and_nonsense),
        cmocka_unit_test(test_tensor_names_and_shapes_are_spelled_as_in_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
