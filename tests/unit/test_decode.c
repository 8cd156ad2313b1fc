#include "encoder_worker/decode.h"

#include "tests/unit/fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FOLDER "tests/golden/images_odd/"

static const struct decode_limits limits = DECODE_LIMITS_DEFAULT;

static void load(const char *name, struct buf *b)
{
    char path[512];

    (void)snprintf(path, sizeof(path), FOLDER "%s", name);
    buf_init(b, 0);
    fixture_bytes(path, b);
}

/* Decode from memory of exactly n bytes, so that the sanitizer sees a read behind the end. */
static enum image_error decode_copy(const uint8_t *bytes, size_t n, const struct decode_limits *l, struct picture *p,
                                    struct err *err)
{
    uint8_t *copy = malloc(n ? n : 1);
    enum image_error code;

    assert_non_null(copy);
    memcpy(copy, bytes, n);
    err->text[0] = '\0';
    code = decode_picture(copy, n, l, p, err);
    free(copy);
    if (code == IMAGE_OK) {
        assert_true(p->width > 0 && p->height > 0);
        assert_true(p->capacity_bytes >= (size_t)p->width * p->height * 3);
        assert_true((uint64_t)p->width * p->height <= l->max_pixels);
    } else {
        assert_in_range(code, IMAGE_OK + 1, IMAGE_N_ERRORS - 1);
        assert_int_equal(p->width, 0);
        assert_int_equal(p->height, 0);
        assert_true(err->text[0] != '\0');
    }
    return code;
}

static const struct {
    const char *name;
    uint32_t width, height;
} pictures[] = {
    {"odd_1bit.png", 300, 200},        {"odd_1x1.png", 1, 1},
    {"odd_420_oddsize.jpg", 301, 203}, {"odd_444.jpg", 300, 200},
    {"odd_alpha.webp", 180, 120},      {"odd_cmyk.jpg", 300, 200},
    {"odd_exif6.jpg", 300, 200},       {"odd_gray.jpg", 300, 200},
    {"odd_gray16.png", 160, 120},      {"odd_interlaced.png", 180, 120},
    {"odd_la.png", 300, 200},          {"odd_lossless.webp", 300, 200},
    {"odd_palette.png", 300, 200},     {"odd_progressive.jpg", 300, 200},
    {"odd_rgb16.png", 160, 120},       {"odd_rgba.png", 300, 200},
    {"odd_tall.jpg", 13, 900},         {"odd_trns.png", 180, 120},
    {"odd_upscale.png", 60, 40},       {"odd_wide.png", 1200, 17},
    {"scene_0000.png", 256, 256},      {"scene_0001.jpg", 500, 333},
    {"scene_0005.webp", 256, 256},
};
enum { N_PICTURES = sizeof(pictures) / sizeof(pictures[0]) };

static void test_decode_every_odd_picture_has_its_size(void **state)
{
    struct err err = {""};
    struct picture p;

    (void)state;
    picture_init(&p);
    for (int i = 0; i < N_PICTURES; i++) {
        struct buf b;

        load(pictures[i].name, &b);
        if (decode_copy(b.data, b.size_bytes, &limits, &p, &err) != IMAGE_OK)
            fail_msg("%s: %s", pictures[i].name, err.text);
        assert_int_equal(p.width, pictures[i].width);
        assert_int_equal(p.height, pictures[i].height);
        buf_release(&b);
    }
    picture_release(&p);
}

/* A picture of which a byte is missing at the end is refused as Pillow refuses it, or decodes to the same pixels (bytes
 * that carry none, such as PNG's end chunk). No prefix may do anything else. */
static void test_decode_no_prefix_of_a_picture_is_another_picture(void **state)
{
    struct err err = {""};
    struct picture whole, part;

    (void)state;
    picture_init(&whole);
    picture_init(&part);
    for (int i = 0; i < N_PICTURES; i++) {
        size_t step, n_refused = 0, n_tried = 0;
        struct buf b;

        load(pictures[i].name, &b);
        assert_int_equal(decode_copy(b.data, b.size_bytes, &limits, &whole, &err), IMAGE_OK);
        step = b.size_bytes / 150 + 1;
        for (size_t n = 0; n < b.size_bytes; n += n + 40 < b.size_bytes && n > 40 ? step : 1) {
            enum image_error code = decode_copy(b.data, n, &limits, &part, &err);

            n_tried++;
            if (code != IMAGE_OK) {
                n_refused++;
                continue;
            }
            assert_int_equal(part.width, whole.width);
            assert_int_equal(part.height, whole.height);
            if (memcmp(part.rgb, whole.rgb, (size_t)whole.width * whole.height * 3) != 0)
                fail_msg("%s cut to %zu of %zu bytes is another picture", pictures[i].name, n, b.size_bytes);
        }
        if (n_refused + 20 < n_tried) /* IEND and the checksum before it, or WebP's padding */
            fail_msg("%s: only %zu of %zu prefixes refused", pictures[i].name, n_refused, n_tried);
        buf_release(&b);
    }
    picture_release(&whole);
    picture_release(&part);
}

static void test_decode_cut_in_half_is_truncated(void **state)
{
    struct err err = {""};
    struct picture p;

    (void)state;
    picture_init(&p);
    for (int i = 0; i < N_PICTURES; i++) {
        struct buf b;
        enum image_error code;

        if (strcmp(pictures[i].name, "odd_1x1.png") == 0)
            continue; /* half of it is the header only */
        load(pictures[i].name, &b);
        code = decode_copy(b.data, b.size_bytes / 2, &limits, &p, &err);
        if (code != IMAGE_TRUNCATED)
            fail_msg("%s: %s (%s)", pictures[i].name, image_error_name(code), err.text);
        buf_release(&b);
    }
    picture_release(&p);
}

/* Whatever the bytes, the answer is pixels or a reason. Pictures of other sizes than the header's limit are never made.
 */
static void test_decode_survives_random_damage(void **state)
{
    struct decode_limits small = {.max_file_bytes = 1 << 20, .max_pixels = 1 << 20, .max_dimension = 4096};
    uint64_t rng = fixture_seed(__func__);
    struct err err = {""};
    int n_ok = 0, n_bad = 0;
    struct picture p;

    (void)state;
    picture_init(&p);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < N_PICTURES; i++) {
            size_t n_changes = 1 + fixture_random(&rng) % 8;
            struct buf b;

            load(pictures[i].name, &b);
            for (size_t k = 0; k < n_changes; k++) { /* half of them near the front, where the headers are */
                size_t span = fixture_random(&rng) % 2 && b.size_bytes > 200 ? 200 : b.size_bytes;

                b.data[fixture_random(&rng) % span] = (uint8_t)fixture_random(&rng);
            }
            if (fixture_random(&rng) % 4 == 0)
                b.size_bytes = fixture_random(&rng) % (b.size_bytes + 1);
            *(decode_copy(b.data, b.size_bytes, &small, &p, &err) == IMAGE_OK ? &n_ok : &n_bad) += 1;
            buf_release(&b);
        }
    }
    assert_true(n_ok > 0 && n_bad > 0);
    picture_release(&p);
}

static void test_decode_random_bytes_are_no_picture(void **state)
{
    uint64_t rng = fixture_seed(__func__);
    struct err err = {""};
    struct picture p;
    uint8_t bytes[4096];

    (void)state;
    picture_init(&p);
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)fixture_random(&rng);
        bytes[0] = 'x';
        assert_int_equal(decode_copy(bytes, sizeof(bytes), &limits, &p, &err), IMAGE_UNKNOWN_FORMAT);
        assert_int_equal(decode_copy(bytes, (size_t)round % 13 + 1, &limits, &p, &err), IMAGE_UNKNOWN_FORMAT);
        memcpy(bytes, "\xff\xd8\xff", 3); /* the right first bytes do not make it one */
        assert_int_not_equal(decode_copy(bytes, sizeof(bytes), &limits, &p, &err), IMAGE_OK);
        memcpy(bytes, "\x89PNG\r\n\x1a\n", 8);
        assert_int_not_equal(decode_copy(bytes, sizeof(bytes), &limits, &p, &err), IMAGE_OK);
        memcpy(bytes, "RIFF\x10\x10\0\0WEBPVP8 ", 16);
        assert_int_not_equal(decode_copy(bytes, sizeof(bytes), &limits, &p, &err), IMAGE_OK);
    }
    assert_int_equal(decode_copy(bytes, 0, &limits, &p, &err), IMAGE_EMPTY);
    picture_release(&p);
}

/* A good file whose header claims 60000 x 60000: 10.8 GB, refused before any of it is allocated. */
static void test_decode_bombs_are_refused_by_their_header(void **state)
{
    static const uint8_t png[] = {0x89, 'P',  'N',  'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I',  'H',  'D',  'R', 0,
                                  0,    0xea, 0x60, 0,   0,    0xea, 0x60, 8,    2, 0, 0, 0,  0xf8, 0x04, 0x6f, 0x75};
    struct err err = {""};
    struct picture p;
    struct buf b;

    (void)state;
    picture_init(&p);
    assert_int_equal(decode_copy(png, sizeof(png), &limits, &p, &err), IMAGE_TOO_MANY_PIXELS);
    load("odd_444.jpg", &b);
    for (size_t i = 0; i + 9 < b.size_bytes; i++)
        if (b.data[i] == 0xff && b.data[i + 1] == 0xc0) {
            memcpy(b.data + i + 5, "\xea\x60\xea\x60", 4);
            break;
        }
    assert_int_equal(decode_copy(b.data, b.size_bytes, &limits, &p, &err), IMAGE_TOO_MANY_PIXELS);
    assert_non_null(strstr(err.text, "60000x60000"));
    assert_int_equal(p.capacity_bytes, 0);
    buf_release(&b);
    picture_release(&p);
}

static void test_decode_limits_hold_to_the_pixel_and_byte(void **state)
{
    static const char *const names[] = {"odd_444.jpg", "odd_rgba.png", "odd_lossless.webp"}; /* 300 x 200 each */
    struct err err = {""};
    struct picture p;

    (void)state;
    picture_init(&p);
    for (int i = 0; i < 3; i++) {
        struct decode_limits l = limits;
        struct buf b;

        load(names[i], &b);
        l.max_pixels = 60000;
        l.max_dimension = 300;
        l.max_file_bytes = b.size_bytes;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &l, &p, &err), IMAGE_OK);
        l.max_pixels = 59999;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &l, &p, &err), IMAGE_TOO_MANY_PIXELS);
        l = limits;
        l.max_dimension = 299;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &l, &p, &err), IMAGE_TOO_MANY_PIXELS);
        l = limits;
        l.max_file_bytes = b.size_bytes - 1;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &l, &p, &err), IMAGE_TOO_LARGE);
        buf_release(&b);
    }
    picture_release(&p);
}

static void test_decode_animated_webp_is_refused_by_name(void **state)
{
    /* VP8X with the animation flag, 2 x 2 */
    static const uint8_t webp[] = {'R', 'I', 'F', 'F', 36, 0, 0, 0, 'W', 'E', 'B', 'P', 'V', 'P', '8',
                                   'X', 10,  0,   0,   0,  2, 0, 0, 0,   1,   0,   0,   1,   0,   0,
                                   'A', 'N', 'I', 'M', 6,  0, 0, 0, 0,   0,   0,   0,   0,   0};
    struct err err = {""};
    struct picture p;

    (void)state;
    picture_init(&p);
    assert_int_equal(decode_copy(webp, sizeof(webp), &limits, &p, &err), IMAGE_UNSUPPORTED);
    assert_non_null(strstr(err.text, "animated"));
    picture_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_every_odd_picture_has_its_size),
        cmocka_unit_test(test_decode_no_prefix_of_a_picture_is_another_picture),
        cmocka_unit_test(test_decode_cut_in_half_is_truncated),
        cmocka_unit_test(test_decode_survives_random_damage),
        cmocka_unit_test(test_decode_random_bytes_are_no_picture),
        cmocka_unit_test(test_decode_bombs_are_refused_by_their_header),
        cmocka_unit_test(test_decode_limits_hold_to_the_pixel_and_byte),
        cmocka_unit_test(test_decode_animated_webp_is_refused_by_name),
    };

    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
