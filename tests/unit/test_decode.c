#include "encoder_worker/decode_formats.h"

#include "tests/unit/fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#define FOLDER "tests/golden/images_odd/"

static const struct decode_options options = DECODE_OPTIONS_DEFAULT;

static void load(const char *name, struct buf *b)
{
    char path[512];

    (void)snprintf(path, sizeof(path), FOLDER "%s", name);
    buf_init(b, 0);
    fixture_bytes(path, b);
}

/* Decode from memory of exactly n bytes, so that the sanitizer sees a read behind the end. */
static enum image_error decode_copy(const uint8_t *bytes, size_t n, const struct decode_options *o, struct picture *p,
                                    struct err *err)
{
    uint8_t *copy = malloc(n ? n : 1);
    enum image_error code;

    assert_non_null(copy);
    memcpy(copy, bytes, n);
    err->text[0] = '\0';
    code = decode_picture(copy, n, o, p, err);
    free(copy);
    if (code == IMAGE_OK) {
        assert_true(p->width > 0 && p->height > 0);
        assert_true(p->capacity_bytes >= (size_t)p->width * p->height * 3);
        assert_true((uint64_t)p->width * p->height <= o->max_pixels);
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
    picture_init(&p, NULL);
    for (int i = 0; i < N_PICTURES; i++) {
        struct buf b;

        load(pictures[i].name, &b);
        if (decode_copy(b.data, b.size_bytes, &options, &p, &err) != IMAGE_OK)
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
    picture_init(&whole, NULL);
    picture_init(&part, NULL);
    for (int i = 0; i < N_PICTURES; i++) {
        size_t step, n_refused = 0, n_tried = 0;
        struct buf b;

        load(pictures[i].name, &b);
        assert_int_equal(decode_copy(b.data, b.size_bytes, &options, &whole, &err), IMAGE_OK);
        step = b.size_bytes / 150 + 1;
        for (size_t n = 0; n < b.size_bytes; n += n + 40 < b.size_bytes && n > 40 ? step : 1) {
            enum image_error code = decode_copy(b.data, n, &options, &part, &err);

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
        if (n_refused + 22 < n_tried) /* IEND and the two checksums before it, or WebP's padding */
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
    picture_init(&p, NULL);
    for (int i = 0; i < N_PICTURES; i++) {
        struct buf b;
        enum image_error code;

        if (strcmp(pictures[i].name, "odd_1x1.png") == 0)
            continue; /* half of it is the header only */
        load(pictures[i].name, &b);
        code = decode_copy(b.data, b.size_bytes / 2, &options, &p, &err);
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
    struct decode_options small = {.max_file_bytes = 1 << 20, .max_pixels = 1 << 20};
    uint64_t rng = fixture_seed(__func__);
    struct err err = {""};
    int n_ok = 0, n_bad = 0;
    struct picture p;

    (void)state;
    picture_init(&p, NULL);
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
    picture_init(&p, NULL);
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)fixture_random(&rng);
        bytes[0] = 'x';
        assert_int_equal(decode_copy(bytes, sizeof(bytes), &options, &p, &err), IMAGE_UNKNOWN_FORMAT);
        assert_int_equal(decode_copy(bytes, (size_t)round % 13 + 1, &options, &p, &err), IMAGE_UNKNOWN_FORMAT);
        memcpy(bytes, "\xff\xd8\xff", 3); /* the right first bytes do not make it one */
        assert_int_not_equal(decode_copy(bytes, sizeof(bytes), &options, &p, &err), IMAGE_OK);
        memcpy(bytes, "\x89PNG\r\n\x1a\n", 8);
        assert_int_not_equal(decode_copy(bytes, sizeof(bytes), &options, &p, &err), IMAGE_OK);
        memcpy(bytes, "RIFF\x10\x10\0\0WEBPVP8 ", 16);
        assert_int_not_equal(decode_copy(bytes, sizeof(bytes), &options, &p, &err), IMAGE_OK);
    }
    assert_int_equal(decode_copy(bytes, 0, &options, &p, &err), IMAGE_EMPTY);
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
    picture_init(&p, NULL);
    assert_int_equal(decode_copy(png, sizeof(png), &options, &p, &err), IMAGE_TOO_MANY_PIXELS);
    load("odd_444.jpg", &b);
    for (size_t i = 0; i + 9 < b.size_bytes; i++)
        if (b.data[i] == 0xff && b.data[i + 1] == 0xc0) {
            memcpy(b.data + i + 5, "\xea\x60\xea\x60", 4);
            break;
        }
    assert_int_equal(decode_copy(b.data, b.size_bytes, &options, &p, &err), IMAGE_TOO_MANY_PIXELS);
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
    picture_init(&p, NULL);
    for (int i = 0; i < 3; i++) {
        struct decode_options o = options;
        struct buf b;

        load(names[i], &b);
        o.max_pixels = 60000;
        o.max_file_bytes = b.size_bytes;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &o, &p, &err), IMAGE_OK);
        o.max_pixels = 59999;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &o, &p, &err), IMAGE_TOO_MANY_PIXELS);
        assert_non_null(strstr(err.text, "300x200 pixels; --max-pixels is 59999"));
        o = options;
        o.max_file_bytes = b.size_bytes - 1;
        assert_int_equal(decode_copy(b.data, b.size_bytes, &o, &p, &err), IMAGE_TOO_LARGE);
        assert_non_null(strstr(err.text, "--max-file-size"));
        buf_release(&b);
    }
    picture_release(&p);
}

/* The limit is that of Pillow's error, not of its warning: the last square below it is read, and ends too early. */
static void test_decode_takes_as_many_pixels_as_pillow(void **state)
{
    uint8_t png[33] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x34\x41\0\0\x34\x41\x8\0\0\0";
    struct err err = {""};
    struct picture p;

    (void)state;
    picture_init(&p, NULL);
    for (int more = 0; more < 2; more++) { /* 13377 x 13377, 13378 x 13377 */
        uint32_t crc;

        png[19] = (uint8_t)(0x41 + more);
        crc = htobe32((uint32_t)crc32_z(0, png + 12, 17));
        memcpy(png + 29, &crc, 4);
        assert_int_equal(decode_copy(png, sizeof(png), &options, &p, &err),
                         more ? IMAGE_TOO_MANY_PIXELS : IMAGE_TRUNCATED);
    }
    picture_release(&p);
}

static void count_turn(void *arg)
{
    (*(int *)arg)++;
}

/* Those above 256 MiB wait for a turn, and their memory is given back with it. */
static void test_decode_giants_wait_for_their_turn(void **state)
{
    int n = 0;
    struct picture p;

    (void)state;
    picture_init(&p, &(struct picture_turn){.wait = count_turn, .arg = &n});
    assert_int_equal(decode_size_picture(&p, 9000, 9000, &options, NULL), IMAGE_OK);
    assert_int_equal(n, 0);
    picture_done(&p);
    assert_int_equal(p.capacity_bytes, 9000 * 9000 * 3);
    for (int i = 0; i < 2; i++) { /* the second time of one picture is no second turn */
        assert_int_equal(decode_size_picture(&p, 10000, 9000, &options, NULL), IMAGE_OK);
        assert_int_equal(n, 1);
    }
    picture_done(&p);
    assert_int_equal(p.capacity_bytes, 0);
    assert_int_equal(decode_size_picture(&p, 10000, 9000, &options, NULL), IMAGE_OK);
    assert_int_equal(n, 2);
    picture_release(&p);
}

static void test_decode_says_what_a_file_is_that_is_no_picture(void **state)
{
    static const struct {
        const char *bytes, *kind;
    } files[] = {
        {"GIF89a............", "a GIF picture"},
        {"....ftypavif....", "an AVIF picture"},
        {"....ftypheic....", "a HEIC picture"},
        {"....ftypmif1....", "a HEIF picture"},
        {"....ftypisom....", "an MP4 film"},
        {"....ftypqt  ....", "a QuickTime film"},
        {"II*.....", "a text file"},
        {"BM is how this begins", "a text file"},
        {"8BPS....", "a Photoshop (PSD) picture"},
        {"%PDF-1.7", "a PDF document"},
        {"PK\3\4....", "a zip archive"},
        {"PAR1....", "a Parquet table"},
        {"\x1f\x8b......", "gzip-compressed"},
        {"  <!DOCTYPE html><p>", "an HTML page"},
        {"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg>", "an SVG picture"},
        {"<?xml version=\"1.0\"?><a/>", "an XML document"},
        {"<svg/>", "an SVG picture"},
        {"{\"error\": 404}", "JSON text"},
        {"not found", "a text file"},
        {"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer, not the picture itself"},
        {"RIFF....AVI ....", "an AVI film"},
        {"P6 3 3 255 ", "a Netpbm (PNM) picture"},
        {"\x89PNG\n\x1a\n....", "a PNG picture that was damaged by a transfer as text"},
        {"xx\xff\xd8\xff\xe0..", "a picture with other bytes in front of it"},
        {"\1\2\3", "of an unknown kind"},
    };
    static const struct {
        const uint8_t bytes[12];
        const char *kind;
    } binary[] = {
        {{'I', 'I', '*', 0, 8, 0, 0, 0}, "a TIFF picture"},
        {{'M', 'M', 0, '*', 0, 0, 0, 8}, "a TIFF picture"},
        {{'B', 'M', 70, 0, 0, 0, 0, 0, 0, 0, 54}, "a BMP picture"},
        {{0, 0, 1, 0, 1, 0, 16, 16}, "an ICO picture"},
        {{0xff, 0x0a, 1, 2, 3}, "a JPEG XL picture"},
        {{0, 0, 0, 12, 'J', 'X', 'L', ' ', '\r', '\n', 0x87, '\n'}, "a JPEG XL picture"},
        {{0, 0, 0, 12, 'j', 'P', ' ', ' ', '\r', '\n', 0x87, '\n'}, "a JPEG 2000 picture"},
        {{0}, "nothing but zeros"},
    };
    uint8_t tar[512] = "BMW.jpg"; /* the name of its first file */
    struct err err = {""};
    struct picture p;
    char words[128];

    (void)state;
    picture_init(&p, NULL);
    memcpy(tar + 257, "ustar", 5);
    assert_int_equal(decode_copy(tar, sizeof(tar), &options, &p, &err), IMAGE_UNKNOWN_FORMAT);
    assert_string_equal(err.text, "the file is a tar archive; only JPEG, PNG and WebP are supported");
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        (void)snprintf(words, sizeof(words), "the file is %s; only JPEG, PNG and WebP are supported", files[i].kind);
        assert_int_equal(decode_copy((const uint8_t *)files[i].bytes, strlen(files[i].bytes), &options, &p, &err),
                         IMAGE_UNKNOWN_FORMAT);
        assert_string_equal(err.text, words);
    }
    for (size_t i = 0; i < sizeof(binary) / sizeof(*binary); i++) {
        (void)snprintf(words, sizeof(words), "the file is %s; only JPEG, PNG and WebP are supported", binary[i].kind);
        assert_int_equal(decode_copy(binary[i].bytes, 12, &options, &p, &err), IMAGE_UNKNOWN_FORMAT);
        assert_string_equal(err.text, words);
    }
    picture_release(&p);
}

/* 16-bit grey as Pillow takes it, and by its upper byte where that is wanted. */
static void test_decode_16_bit_grey_is_clipped_or_halved(void **state)
{
    struct decode_options high = options;
    struct picture clipped, halved;
    struct err err = {""};
    size_t n_between = 0;
    struct buf b;

    (void)state;
    high.grey16_high_byte = true;
    picture_init(&clipped, NULL);
    picture_init(&halved, NULL);
    load("odd_gray16.png", &b);
    assert_int_equal(decode_copy(b.data, b.size_bytes, &options, &clipped, &err), IMAGE_OK);
    assert_int_equal(decode_copy(b.data, b.size_bytes, &high, &halved, &err), IMAGE_OK);
    for (size_t i = 0; i < (size_t)clipped.width * clipped.height * 3; i++) {
        if (halved.rgb[i])
            assert_int_equal(clipped.rgb[i], 255);
        n_between += halved.rgb[i] > 0 && halved.rgb[i] < 255;
    }
    assert_true(n_between > 10000);
    buf_release(&b);
    picture_release(&clipped);
    picture_release(&halved);
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
        cmocka_unit_test(test_decode_takes_as_many_pixels_as_pillow),
        cmocka_unit_test(test_decode_giants_wait_for_their_turn),
        cmocka_unit_test(test_decode_says_what_a_file_is_that_is_no_picture),
        cmocka_unit_test(test_decode_16_bit_grey_is_clipped_or_halved),
    };

    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
