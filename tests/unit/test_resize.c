#include "encoder_worker/decode.h"
#include "encoder_worker/resize.h"

#include "base/clock.h"
#include "encoder_worker/resize_kernels.h"
#include "tests/unit/fixture.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void decode_file(const char *folder, const char *name, struct picture *p)
{
    struct decode_options options = DECODE_OPTIONS_DEFAULT;
    struct err err = {""};
    struct buf bytes;
    char path[512];

    options.grey16_high_byte = true; /* as tests/golden/pixels was made */
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    buf_init(&bytes, 0);
    fixture_bytes(path, &bytes);
    if (decode_picture(bytes.data, bytes.size_bytes, &options, p, &err) != IMAGE_OK)
        fail_msg("%s: %s", path, err.text);
    buf_release(&bytes);
}

/* The picture resized into memory of exactly its size, which the sanitizer watches. */
static uint8_t *resized(struct resize *r, const uint8_t *src, uint32_t w, uint32_t h, uint32_t ow, uint32_t oh)
{
    uint8_t *out = malloc((size_t)ow * oh * 3);

    assert_non_null(out);
    assert_int_equal(resize_rgb(r, src, w, h, out, ow, oh), 0);
    return out;
}

static void compare_golden(struct resize *r, const char *key, uint32_t side, size_t want_pictures)
{
    size_t bytes = (size_t)side * side * 3;
    json_t *names = fixture_json("tests/golden/pixels/names.json"), *list = json_object_get(names, key);
    struct fixture_tensor want;
    struct picture p;
    struct fixture_file g;

    fixture_open(&g, "tests/golden/pixels/expected.safetensors.gz");
    want = fixture_tensor(&g, key);
    assert_string_equal(want.dtype, "U8");
    assert_int_equal(json_array_size(list), want_pictures);
    assert_int_equal(want.size_bytes, want_pictures * bytes);
    picture_init(&p, NULL);
    for (size_t i = 0; i < want_pictures; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        const uint8_t *ref = (const uint8_t *)want.data + i * bytes;
        size_t n_differ = 0;
        uint8_t *out;

        decode_file("tests/golden/images_odd", name, &p);
        out = resized(r, p.rgb, p.width, p.height, side, side);
        for (size_t k = 0; k < bytes; k++)
            n_differ += out[k] != ref[k];
        if (n_differ)
            fail_msg("%s at %u: %zu of %zu bytes differ", name, side, n_differ, bytes);
        free(out);
    }
    picture_release(&p);
    fixture_close(&g);
    json_decref(names);
}

static void test_resize_golden_pictures_are_equal_to_the_bit(void **state)
{
    compare_golden(*state, "resized_224", 224, 21);
    compare_golden(*state, "resized_364", 364, 2);
}

/* The formula of MODEL.md in the most direct form: one direction, any number of interleaved samples. */
static double cubic(double x)
{
    x = fabs(x);
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/* out[o * out_step + c] for o < out_n from in[j * step + c]; c < n_c at distance c_step. */
static void reference_pass(const uint8_t *in, size_t in_n, size_t step, uint8_t *out, size_t out_n, size_t n_c,
                           size_t c_step)
{
    double scale = (double)in_n / (double)out_n, fs = scale > 1 ? scale : 1;

    for (size_t o = 0; o < out_n; o++) {
        double c = ((double)o + 0.5) * scale, sum = 0;
        long lo = (long)(c - 2 * fs + 0.5), hi = (long)(c + 2 * fs + 0.5);

        lo = lo < 0 ? 0 : lo;
        hi = hi > (long)in_n ? (long)in_n : hi;
        for (long j = lo; j < hi; j++)
            sum += cubic(((double)j - c + 0.5) * (1 / fs));
        for (size_t k = 0; k < n_c; k++) {
            long long total = 1 << 21;

            for (long j = lo; j < hi; j++)
                total += llround(cubic(((double)j - c + 0.5) * (1 / fs)) / sum * (1 << 22)) *
                         in[(size_t)j * step + k * c_step];
            total >>= 22;
            out[o * step + k * c_step] = (uint8_t)(total < 0 ? 0 : total > 255 ? 255 : total);
        }
    }
}

static uint8_t *reference(const uint8_t *src, uint32_t w, uint32_t h, uint32_t ow, uint32_t oh)
{
    uint8_t *mid = malloc((size_t)ow * h * 3), *out = malloc((size_t)ow * oh * 3);

    assert_non_null(mid);
    assert_non_null(out);
    for (uint32_t y = 0; y < h; y++) {
        if (w == ow)
            memcpy(mid + (size_t)y * w * 3, src + (size_t)y * w * 3, (size_t)w * 3);
        else
            reference_pass(src + (size_t)y * w * 3, w, 3, mid + (size_t)y * ow * 3, ow, 3, 1);
    }
    if (h == oh)
        memcpy(out, mid, (size_t)ow * oh * 3);
    else
        reference_pass(mid, h, (size_t)ow * 3, out, oh, (size_t)ow * 3, 1);
    free(mid);
    return out;
}

static void compare_reference(struct resize *r, uint32_t w, uint32_t h, uint32_t ow, uint32_t oh, uint64_t *rng)
{
    size_t n = (size_t)w * h * 3;
    uint8_t *src = malloc(n), *want, *got;
    int kind = (int)(fixture_random(rng) % 3);

    assert_non_null(src);
    for (size_t i = 0; i < n; i++) { /* noise, black and white (the largest sums), stripes */
        uint64_t z = fixture_random(rng);

        src[i] = (uint8_t)(kind == 0 ? z : kind == 1 ? -(z & 1) : i / 3 % 2 * 255);
    }
    want = reference(src, w, h, ow, oh);
    got = resized(r, src, w, h, ow, oh);
    if (memcmp(want, got, (size_t)ow * oh * 3) != 0)
        fail_msg("%ux%u -> %ux%u differs from the reference", w, h, ow, oh);
    free(src);
    free(want);
    free(got);
}

static void test_resize_equals_the_double_loop_on_random_sizes(void **state)
{
    uint64_t rng = fixture_seed(__func__);

    for (int i = 0; i < 150; i++) {
        uint32_t side[4];

        for (int k = 0; k < 4; k++) {
            uint64_t z = fixture_random(&rng);

            side[k] = 1 + (uint32_t)((z >> 8) % (z % 4 == 0 ? 9 : z % 4 == 1 ? 400 : 90));
        }
        if (i % 10 == 0)
            side[2] = side[0]; /* only the vertical pass */
        if (i % 10 == 1)
            side[3] = side[1];
        compare_reference(*state, side[0], side[1], side[2], side[3], &rng);
    }
}

static void test_resize_extreme_shapes_equal_the_double_loop(void **state)
{
    static const uint32_t shapes[][4] = {
        {1, 1, 224, 224},     {1, 1, 1, 1},     {2, 1, 224, 224}, {1, 900, 224, 224}, {20000, 1, 224, 3},
        {1, 20000, 3, 224},   {3, 5000, 7, 1},  {5, 5, 1, 1},     {224, 3, 224, 224}, {640, 480, 224, 224},
        {223, 225, 224, 224}, {7, 7, 364, 364}, {11, 13, 5, 4},   {12, 12, 3, 3},     {13, 13, 3, 3}};
    uint64_t rng = fixture_seed(__func__);

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        compare_reference(*state, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], &rng);
}

static void test_resize_same_size_copies(void **state)
{
    uint8_t src[5 * 7 * 3], *out;

    for (size_t i = 0; i < sizeof(src); i++)
        src[i] = (uint8_t)(i * 37);
    out = resized(*state, src, 5, 7, 5, 7);
    assert_memory_equal(out, src, sizeof(src));
    free(out);
}

/* More sizes than tables are kept: results stay right when tables are replaced, also while the other direction's is in
 * use. */
static void test_resize_cached_tables_are_replaced_safely(void **state)
{
    uint64_t rng = fixture_seed(__func__);

    for (int round = 0; round < 2; round++)
        for (uint32_t s = 2; s < 45; s++)
            compare_reference(*state, s, 90 - s, 17, 19, &rng);
}

static void test_resize_portable_kernels_equal_the_fast_ones(void **state)
{
    struct resize_kernels fast = resize_kernels_best(), plain = resize_kernels_plain();
    enum { IN = 61, OUT = 23, GROUPS = 3 };
    uint8_t in[RESIZE_ROWS * GROUPS][IN * 3 + RESIZE_OVERREAD], out[2][RESIZE_ROWS][OUT * 3];
    const uint8_t *from[RESIZE_ROWS];
    uint8_t *to[2][RESIZE_ROWS];
    int16_t weights[OUT * GROUPS * 8];
    uint32_t first[OUT];
    struct resize_axis a = {.in = IN, .out = OUT, .n_groups = GROUPS, .first = first, .weights = weights};
    uint64_t rng = fixture_seed(__func__);

    (void)state;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof(in); i++)
            ((uint8_t *)in)[i] = (uint8_t)fixture_random(&rng);
        for (int i = 0; i < OUT * GROUPS * 8; i++)
            weights[i] =
                (int16_t)(i % 8 < 4 ? (int)(fixture_random(&rng) % 5000) - 2500 : (int)(fixture_random(&rng) % 256));
        for (uint32_t i = 0; i < OUT; i++)
            first[i] = (uint32_t)(fixture_random(&rng) % (IN - GROUPS * 4 + 1));
        for (int k = 0; k < RESIZE_ROWS; k++) {
            from[k] = in[k];
            to[0][k] = out[0][k];
            to[1][k] = out[1][k];
        }
        fast.across(&a, from, to[0]);
        plain.across(&a, from, to[1]);
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        first[0] = 0;
        fast.down(&a, 0, in[0], sizeof(in[0]), (uint8_t *)out[0]);
        plain.down(&a, 0, in[0], sizeof(in[0]), (uint8_t *)out[1]);
        assert_memory_equal(out[0], out[1], sizeof(in[0]));
    }
}

static void test_resize_refuses_sides_it_cannot_hold(void **state)
{
    uint8_t px[3] = {0};

    assert_int_equal(resize_rgb(*state, px, 0, 1, px, 1, 1), -EINVAL);
    assert_int_equal(resize_rgb(*state, px, 1, 1, px, 1, 0), -EINVAL);
    assert_int_equal(resize_rgb(*state, px, RESIZE_MAX_SIDE + 1, 1, px, 1, 1), -EINVAL);
}

static int set_up(void **state)
{
    return resize_new((struct resize **)state);
}

static int tear_down(void **state)
{
    resize_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_golden_pictures_are_equal_to_the_bit),
        cmocka_unit_test(test_resize_equals_the_double_loop_on_random_sizes),
        cmocka_unit_test(test_resize_extreme_shapes_equal_the_double_loop),
        cmocka_unit_test(test_resize_same_size_copies),
        cmocka_unit_test(test_resize_cached_tables_are_replaced_safely),
        cmocka_unit_test(test_resize_portable_kernels_equal_the_fast_ones),
        cmocka_unit_test(test_resize_refuses_sides_it_cannot_hold),
    };

    return cmocka_run_group_tests_name("resize", tests, set_up, tear_down);
}
