#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/row.h"

static struct row_item item_of(const char *key, const char *path)
{
    return (struct row_item){.item = 1ULL << 40,
                             .key = (const uint8_t *)key,
                             .key_bytes = (uint32_t)strlen(key),
                             .path = (const uint8_t *)path,
                             .path_bytes = (uint32_t)strlen(path),
                             .size_bytes = 123456,
                             .mtime_ns = -5};
}

static struct row_record record_of(uint64_t item)
{
    static const uint8_t text[] = "a cat \xc3\xa9";
    struct row_record r = {.item = item, .n_captions = 2};

    r.captions[0] = (struct row_caption){.text = text, .text_bytes = sizeof(text) - 1, .logprob = -1.25F, .tokens = 7};
    r.captions[1] = (struct row_caption){.text = text, .text_bytes = 5, .tokens = 1, .prompt = 3};
    return r;
}

static struct row_frame frame_of(const struct buf *b)
{
    return (struct row_frame){b->data, b->size_bytes};
}

static void test_row_items_come_back_across_frames(void **state)
{
    static const char *const keys[] = {"a.jpg", "new\nline \xff\xfe", "b"};
    struct buf bufs[2];
    struct row_frame frames[2];
    struct row_cursor c;
    struct row_item item;
    struct err err;

    (void)state;
    for (int i = 0; i < 2; i++)
        buf_init(&bufs[i], MSG_MAX_ROW_FRAME_BYTES);
    for (int i = 0; i < 3; i++) {
        item = item_of(keys[i], "/photos/x");
        assert_int_equal(row_item_append(&bufs[i / 2], &item), 0);
    }
    for (int i = 0; i < 2; i++)
        frames[i] = frame_of(&bufs[i]);
    row_cursor_init(&c, frames, 2, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
        assert_int_equal(item.key_bytes, strlen(keys[i]));
        assert_memory_equal(item.key, keys[i], item.key_bytes);
        assert_string_equal((const char *)item.path, "/photos/x"); /* with a NUL behind it */
        assert_int_equal(item.item, 1ULL << 40);
        assert_int_equal(item.size_bytes, 123456);
        assert_int_equal(item.mtime_ns, -5);
    }
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 0);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 0);
    row_cursor_release(&c);
    for (int i = 0; i < 2; i++)
        buf_release(&bufs[i]);
}

static void test_row_records_come_back(void **state)
{
    struct row_record r = record_of(9), failed = {.item = 10, .failed = true, .error_code = "truncated"}, back;
    struct row_frame frame;
    struct row_cursor c;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    failed.error_message = (const uint8_t *)"cut off";
    failed.error_message_bytes = 7;
    assert_int_equal(row_record_append(&b, &r), 0);
    assert_int_equal(row_record_append(&b, &failed), 0);
    frame = frame_of(&b);
    row_cursor_init(&c, &frame, 1, 2);
    assert_int_equal(row_cursor_next_record(&c, &back, NULL), 1);
    assert_int_equal(back.n_captions, 2);
    assert_int_equal(back.captions[0].text_bytes, r.captions[0].text_bytes);
    assert_memory_equal(back.captions[0].text, r.captions[0].text, r.captions[0].text_bytes);
    assert_true(back.captions[0].logprob == -1.25F);
    assert_int_equal(back.captions[1].prompt, 3);
    assert_false(back.failed);
    assert_int_equal(row_cursor_next_record(&c, &back, NULL), 1);
    assert_true(back.failed);
    assert_int_equal(back.n_captions, 0);
    assert_string_equal(back.error_code, "truncated");
    assert_memory_equal(back.error_message, "cut off", 7);
    assert_int_equal(row_cursor_next_record(&c, &back, NULL), 0);
    row_cursor_release(&c);
    buf_release(&b);
}

static void test_row_promised_number_is_held(void **state)
{
    struct row_item item = item_of("k", "p"), back;
    struct row_frame frame;
    struct row_cursor c;
    struct err err;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(row_item_append(&b, &item), 0);
    assert_int_equal(row_item_append(&b, &item), 0);
    frame = frame_of(&b);
    row_cursor_init(&c, &frame, 1, 3);
    assert_int_equal(row_cursor_next_item(&c, &back, &err), 1);
    assert_int_equal(row_cursor_next_item(&c, &back, &err), 1);
    assert_int_equal(row_cursor_next_item(&c, &back, &err), -EBADMSG);
    row_cursor_release(&c);
    row_cursor_init(&c, &frame, 1, 1);
    assert_int_equal(row_cursor_next_item(&c, &back, &err), 1);
    assert_int_equal(row_cursor_next_item(&c, &back, &err), -EBADMSG);
    row_cursor_release(&c);
    buf_release(&b);
}

static void test_row_truncated_anywhere_is_refused(void **state)
{
    struct row_record r = record_of(1), back;
    struct row_frame frame;
    struct row_cursor c;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(row_record_append(&b, &r), 0);
    for (size_t n = 0; n < b.size_bytes; n++) {
        uint8_t *exact = malloc(n ? n : 1);

        memcpy(exact, b.data, n);
        frame = (struct row_frame){exact, n};
        row_cursor_init(&c, &frame, 1, 1);
        assert_int_equal(row_cursor_next_record(&c, &back, NULL), -EBADMSG);
        row_cursor_release(&c);
        free(exact);
    }
    buf_release(&b);
}

static uint64_t rng_next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static void test_row_survives_random_bytes(void **state)
{
    uint64_t seed = (uint64_t)time(NULL) * 2654435761U + 1, x = seed;
    struct row_record r = record_of(1), back;
    struct row_item item = item_of("key", "path"), item_back;
    int n_good = 0;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int round = 0; round < 20000; round++) {
        struct row_frame frame;
        struct row_cursor c;
        struct buf b;

        buf_init(&b, 0);
        for (int i = 0; i < 3; i++)
            assert_int_equal(round % 2 ? row_record_append(&b, &r) : row_item_append(&b, &item), 0);
        b.data[rng_next(&x) % b.size_bytes] = (uint8_t)rng_next(&x);
        frame = frame_of(&b);
        row_cursor_init(&c, &frame, 1, 3);
        while ((round % 2 ? row_cursor_next_record(&c, &back, NULL) : row_cursor_next_item(&c, &item_back, NULL)) == 1)
            n_good++;
        row_cursor_release(&c);
        buf_release(&b);
    }
    assert_in_range(n_good, 1, 59999);
}

static void test_row_limits_hold_at_limit_plus_one(void **state)
{
    static uint8_t bytes[ROW_MAX_PATH_BYTES + 1];
    struct row_item item = item_of("k", "p");
    struct row_record r = record_of(1);
    struct buf b;

    (void)state;
    memset(bytes, 'x', sizeof(bytes));
    buf_init(&b, 0);
    item.key = item.path = bytes;
    item.key_bytes = ROW_MAX_KEY_BYTES;
    item.path_bytes = ROW_MAX_PATH_BYTES;
    assert_int_equal(row_item_append(&b, &item), 0);
    item.key_bytes++;
    assert_int_equal(row_item_append(&b, &item), -EINVAL);
    item.key_bytes = 0;
    assert_int_equal(row_item_append(&b, &item), -EINVAL);
    item.key_bytes = 1;
    item.path_bytes++;
    assert_int_equal(row_item_append(&b, &item), -EINVAL);
    r.captions[0].text = bytes;
    r.captions[0].text_bytes = ROW_MAX_CAPTION_BYTES + 1;
    assert_int_equal(row_record_append(&b, &r), -EINVAL);
    r = record_of(1);
    r.captions[1].logprob = NAN;
    assert_int_equal(row_record_append(&b, &r), -EINVAL);
    r = record_of(1);
    r.n_captions = ROW_MAX_CAPTIONS + 1;
    assert_int_equal(row_record_append(&b, &r), -EINVAL);
    r = record_of(1);
    r.failed = true;
    strcpy(r.error_code, "code");
    assert_int_equal(row_record_append(&b, &r), -EINVAL); /* captions and an error */
    r.n_captions = 0;
    strcpy(r.error_code, "No Word");
    assert_int_equal(row_record_append(&b, &r), -EINVAL);
    buf_release(&b);
}

static void test_row_of_unknown_fields_cannot_amplify(void **state)
{
    uint8_t *row = malloc(ROW_MAX_BYTES + 3);
    struct row_frame frame = {row, ROW_MAX_BYTES + 2};
    struct row_item back;
    struct row_cursor c;
    struct err err;

    (void)state;
    assert_non_null(row);
    /* length 2^18 - 1 in three bytes, then unknown varints of two bytes, and one byte that is part of the last */
    row[0] = 0xff;
    row[1] = 0xff;
    row[2] = 0x0f;
    for (size_t i = 3; i + 1 < ROW_MAX_BYTES + 2; i += 2) {
        row[i] = 14 << 3;
        row[i + 1] = 1;
    }
    row[ROW_MAX_BYTES - 1] = 14 << 3;
    row[ROW_MAX_BYTES] = 0x81;
    row[ROW_MAX_BYTES + 1] = 1;
    row_cursor_init(&c, &frame, 1, 1);
    assert_int_equal(row_cursor_next_item(&c, &back, &err), -EMSGSIZE);
    row_cursor_release(&c);
    free(row);
}

static void test_row_length_past_the_limit_is_refused(void **state)
{
    static const uint8_t too_long[] = {0x81, 0x80, 0x10, 0}, endless[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct row_frame frame = {too_long, sizeof(too_long)};
    struct row_item back;
    struct row_cursor c;

    (void)state;
    row_cursor_init(&c, &frame, 1, 1);
    assert_int_equal(row_cursor_next_item(&c, &back, NULL), -EMSGSIZE);
    row_cursor_release(&c);
    frame = (struct row_frame){endless, sizeof(endless)};
    row_cursor_init(&c, &frame, 1, 1);
    assert_int_equal(row_cursor_next_item(&c, &back, NULL), -EBADMSG);
    row_cursor_release(&c);
}

static void test_row_frame_ends_at_16_mib(void **state)
{
    static uint8_t path[ROW_MAX_PATH_BYTES];
    struct row_item item = item_of("k", "p");
    struct buf b;
    size_t n;
    int rc;

    (void)state;
    memset(path, 'x', sizeof(path));
    item.path = path;
    item.path_bytes = sizeof(path);
    buf_init(&b, MSG_MAX_ROW_FRAME_BYTES);
    do {
        n = b.size_bytes;
        rc = row_item_append(&b, &item);
    } while (rc == 0);
    assert_int_equal(rc, -EFBIG);
    assert_int_equal(b.size_bytes, n);
    assert_in_range(n, MSG_MAX_ROW_FRAME_BYTES - sizeof(path) - 64, MSG_MAX_ROW_FRAME_BYTES);
    buf_release(&b);
}

/* Pieces of whole rows, none past the limit, together everything. */
static void test_row_frame_is_cut_between_rows(void **state)
{
    const size_t max = ROW_MAX_BYTES + 3;
    static uint8_t path[ROW_MAX_PATH_BYTES];
    struct row_item item = item_of("k", "p");
    struct row_frame frames[64];
    struct row_cursor c;
    struct row_item back;
    struct buf b;
    size_t n_frames = 0;
    int rc, n = 0;

    (void)state;
    memset(path, 'x', sizeof(path));
    buf_init(&b, 0);
    for (uint32_t i = 0; i < 200; i++) {
        item.path = path;
        item.path_bytes = (i * 7919) % sizeof(path);
        assert_int_equal(row_item_append(&b, &item), 0);
    }
    for (size_t at = 0; at < b.size_bytes; at += frames[n_frames++].size_bytes) {
        frames[n_frames] = (struct row_frame){b.data + at, row_frame_cut(b.data + at, b.size_bytes - at, max)};
        assert_in_range(frames[n_frames].size_bytes, 1, max);
    }
    assert_true(n_frames > 3);
    row_cursor_init(&c, frames, n_frames, 200);
    while ((rc = row_cursor_next_item(&c, &back, NULL)) == 1)
        assert_int_equal(back.path_bytes, ((uint32_t)n++ * 7919) % sizeof(path));
    assert_int_equal(rc, 0);
    assert_int_equal(n, 200);
    row_cursor_release(&c);
    assert_int_equal(row_frame_cut(b.data, b.size_bytes - 1, b.size_bytes), 0); /* the last row is cut off */
    assert_int_equal(row_frame_cut((const uint8_t *)"\xff\xff\xff\xff", 4, max), 0);
    buf_release(&b);
}

static void test_row_item_copy_outlives_the_cursor(void **state)
{
    struct row_item item = item_of("key", "path"), back, copy;
    struct row_frame frame;
    struct row_cursor c;
    struct arena a;
    struct buf b;

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    assert_int_equal(row_item_append(&b, &item), 0);
    frame = frame_of(&b);
    row_cursor_init(&c, &frame, 1, 1);
    assert_int_equal(row_cursor_next_item(&c, &back, NULL), 1);
    assert_int_equal(row_item_copy(&a, &back, &copy), 0);
    row_cursor_release(&c);
    buf_release(&b);
    assert_memory_equal(copy.key, "key", 3);
    assert_string_equal((const char *)copy.path, "path");
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_items_come_back_across_frames),
        cmocka_unit_test(test_row_records_come_back),
        cmocka_unit_test(test_row_promised_number_is_held),
        cmocka_unit_test(test_row_truncated_anywhere_is_refused),
        cmocka_unit_test(test_row_survives_random_bytes),
        cmocka_unit_test(test_row_limits_hold_at_limit_plus_one),
        cmocka_unit_test(test_row_of_unknown_fields_cannot_amplify),
        cmocka_unit_test(test_row_length_past_the_limit_is_refused),
        cmocka_unit_test(test_row_frame_ends_at_16_mib),
        cmocka_unit_test(test_row_frame_is_cut_between_rows),
        cmocka_unit_test(test_row_item_copy_outlives_the_cursor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
