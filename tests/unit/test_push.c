#include "store/push.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store_state.h"
#include "tests/unit/store_fixture.h"

static char *dir;
static char path[300];

static int setup(void **state)
{
    (void)state;
    dir = fixture_dir();
    (void)snprintf(path, sizeof(path), "%s/job.lmdb", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_dir_remove(dir);
    return 0;
}

static struct store *open_store(uint32_t unit_items)
{
    struct stored_job_meta meta = fixture_meta(unit_items);
    const struct store_options o = {.create = true, .meta = &meta};
    struct store *s = NULL;
    struct err err;

    meta.push = true;
    if (store_open(path, &o, &s, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

static bool has_file(uint32_t unit)
{
    char name[PATH_MAX];

    assert_int_equal(store_push_file(path, unit, name), 0);
    return access(name, F_OK) == 0;
}

static uint32_t n_pending(struct store *s)
{
    struct store_pending p[8];
    struct err err;
    uint32_t next;
    size_t n;

    assert_int_equal(store_pending(s, 0, 8, p, &n, &next, &err), 0);
    return (uint32_t)n;
}

/* -- what a client sends -- */

static struct row_item picture(uint64_t item, uint64_t n_bytes)
{
    return (struct row_item){.item = item, .key = (const uint8_t *)"-", .key_bytes = 1, .pushed_bytes = n_bytes};
}

static struct row_item failure(uint64_t item, const char *code, const char *message)
{
    struct row_item row = picture(item, 0);

    (void)snprintf(row.error_code, sizeof(row.error_code), "%s", code);
    row.error_message = (const uint8_t *)message;
    row.error_message_bytes = (uint32_t)strlen(message);
    return row;
}

static int put(struct store *s, const struct row_item *items, uint32_t n, uint64_t offset, const char *data)
{
    struct err err = {""};
    struct buf rows;
    int rc;

    buf_init(&rows, 0);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(row_item_append(&rows, &items[i]), 0);
    rc = store_push(s, rows.data, rows.size_bytes, n, offset, data, strlen(data), &err);
    buf_release(&rows);
    assert_true(rc == 0 || err.text[0]);
    return rc;
}

static int send(struct store *s, const struct row_item *items, uint32_t n, uint64_t offset, const char *data)
{
    struct err err;
    int rc;

    assert_int_equal(store_begin(s, &err), 0);
    rc = put(s, items, n, offset, data);
    if (rc < 0)
        store_abort(s);
    else
        assert_int_equal(store_commit(s, &err), 0);
    return rc;
}

static uint64_t wanted(struct store *s, uint32_t *ret_n)
{
    struct row_cursor c;
    struct row_item item = {.item = UINT64_MAX};
    struct buf rows;
    struct err err;

    buf_init(&rows, 0);
    assert_int_equal(store_push_wanted(s, &rows, ret_n, &err), 0);
    row_cursor_init(&c, &(struct row_frame){.data = rows.data, .size_bytes = rows.size_bytes}, 1, *ret_n);
    if (*ret_n) {
        uint64_t first;

        assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
        first = item.item;
        assert_memory_equal(item.path, "/pictures/", 10);
        row_cursor_release(&c);
        buf_release(&rows);
        return first;
    }
    row_cursor_release(&c);
    buf_release(&rows);
    return UINT64_MAX;
}

/* -- what a worker gets: the unit's rows, with the bytes or the errors joined by '|' -- */

static void describe(struct store *s, uint32_t unit, char ret[256])
{
    char name[PATH_MAX], bytes[128];
    struct row_cursor c;
    struct row_item item;
    struct buf rows;
    struct err err;
    uint32_t n;
    FILE *f;

    buf_init(&rows, 0);
    assert_int_equal(store_unit_items(s, unit, 0, 0, &rows, &n, NULL, &err), 0);
    assert_int_equal(store_push_file(path, unit, name), 0);
    f = fopen(name, "rb");
    ret[0] = '\0';
    row_cursor_init(&c, &(struct row_frame){.data = rows.data, .size_bytes = rows.size_bytes}, 1, n);
    while (row_cursor_next_item(&c, &item, &err) > 0) {
        assert_int_equal(item.path_bytes, 0);
        if (item.error_code[0]) {
            (void)snprintf(bytes, sizeof(bytes), "%s: %.*s", item.error_code, (int)item.error_message_bytes,
                           (const char *)item.error_message);
        } else {
            assert_true(item.pushed_bytes < sizeof(bytes));
            assert_non_null(f);
            assert_int_equal(fseek(f, (long)(store_push_head_bytes(n) + item.pushed_at), SEEK_SET), 0);
            assert_int_equal(fread(bytes, 1, item.pushed_bytes, f), item.pushed_bytes);
            bytes[item.pushed_bytes] = '\0';
        }
        (void)snprintf(ret + strlen(ret), 256 - strlen(ret), "%s|", bytes);
    }
    if (f)
        (void)fclose(f);
    row_cursor_release(&c);
    buf_release(&rows);
}

#define ASSERT_UNIT(s, unit, expected)       \
    do {                                     \
        char text[256];                      \
                                             \
        describe(s, unit, text);             \
        assert_string_equal(text, expected); \
    } while (0)

/* -- tests -- */

static void test_push_units_get_their_pictures_and_wait_for_the_others(void **state)
{
    const struct row_item first[] = {picture(0, 3), failure(1, "missing", "no such file"), picture(2, 0), picture(3, 4),
                                     picture(4, 6)};
    struct store *s = open_store(3);
    const struct row_item rest[] = {picture(4, 6), picture(5, 1)};
    uint32_t n;

    (void)state;
    fixture_import(s, 0, 6); /* 3 3 */
    assert_int_equal(wanted(s, &n), 0);
    assert_int_equal(n, 6);
    assert_true(store_push_waits(s));
    assert_int_equal(n_pending(s), 0);
    assert_int_equal(send(s, first, 5, 0, "abcdefgHI"), 0); /* of picture 4 only two bytes */
    assert_int_equal(store_n_pushed(s), 4);
    assert_int_equal(n_pending(s), 1);
    ASSERT_UNIT(s, 0, "abc|missing: no such file||");
    assert_int_equal(wanted(s, &n), 4);
    assert_int_equal(n, 2);
    assert_int_equal(send(s, rest, 2, 2, "JKLMz"), 0);
    assert_int_equal(wanted(s, &n), UINT64_MAX);
    assert_false(store_push_waits(s));
    assert_int_equal(n_pending(s), 2);
    ASSERT_UNIT(s, 1, "defg|HIJKLM|z|");
    fixture_commit_unit(s, 0, 0, 3, 0);
    store_push_drop(s, 0);
    assert_false(has_file(0));
    assert_true(has_file(1));
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* The picture at which it was cut off comes again from its beginning. */
static void test_push_goes_on_where_it_was_durable(void **state)
{
    const struct row_item items[] = {picture(0, 2), picture(1, 4), picture(2, 1)};
    struct store *s = open_store(2);
    struct err err;
    uint32_t n;

    (void)state;
    fixture_import(s, 0, 3);
    assert_int_equal(send(s, items, 2, 0, "abCD"), 0);
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(put(s, &items[1], 2, 2, "EFg"), 0);
    assert_int_equal(wanted(s, &n), UINT64_MAX); /* the next are asked for before the commit */
    store_abort(s);
    assert_int_equal(store_n_pushed(s), 1);
    assert_int_equal(wanted(s, &n), 1);
    store_close(s);
    s = open_store(2);
    assert_int_equal(store_n_pushed(s), 1);
    assert_int_equal(wanted(s, &n), 1);
    assert_int_equal(send(s, &items[1], 2, 0, "WXYZg"), 0);
    ASSERT_UNIT(s, 0, "ab|WXYZ|");
    ASSERT_UNIT(s, 1, "g|");
    fixture_commit_unit(s, 1, 2, 1, 0); /* and the broker is killed before it drops the file */
    store_close(s);
    s = open_store(2);
    assert_true(has_file(0));
    assert_false(has_file(1));
    store_close(s);
}

static void test_push_wrong_messages_change_nothing(void **state)
{
    const struct row_item good[] = {picture(0, 2), picture(1, 4)}, later[] = {picture(1, 4)},
                          huge[] = {picture(0, PUSH_MAX_PICTURE_BYTES + 1)}, twice[] = {picture(0, 2), picture(0, 2)},
                          beyond[] = {picture(0, 1), picture(1, 1), picture(2, 1), picture(3, 1)};
    struct store *s = open_store(8);
    uint32_t n;

    (void)state;
    fixture_import(s, 0, 3);
    assert_int_equal(send(s, later, 1, 0, "abcd"), -EAGAIN);
    assert_int_equal(send(s, good, 1, 1, "b"), -EAGAIN);
    assert_int_equal(send(s, good, 2, 0, "a"), -EINVAL);       /* of the first one a byte is missing */
    assert_int_equal(send(s, good, 2, 0, "abcdefg"), -EINVAL); /* one byte belongs to none */
    assert_int_equal(send(s, huge, 1, 0, "a"), -EMSGSIZE);
    assert_int_equal(send(s, twice, 2, 0, "abab"), -EINVAL);
    assert_int_equal(send(s, beyond, 4, 0, "abcd"), -EINVAL);
    assert_int_equal(store_n_pushed(s), 0);
    assert_false(has_file(0));
    assert_int_equal(send(s, good, 1, 0, "ab"), 0);
    assert_int_equal(send(s, good, 1, 0, "ab"), -EINVAL); /* it is here */
    assert_int_equal(wanted(s, &n), 1);
    store_close(s);
}

static void test_push_waits_for_room_on_the_disk(void **state)
{
    const struct row_item items[] = {picture(0, 2), picture(1, 4)};
    struct store *s = open_store(8);
    uint32_t n;

    (void)state;
    fixture_import(s, 0, 2);
    assert_int_equal(send(s, items, 1, 0, "ab"), 0);
    s->min_free_bytes = UINT64_MAX / 2;
    assert_int_equal(send(s, &items[1], 1, 0, "cdef"), -ENOSPC);
    assert_int_equal(wanted(s, &n), 1);
    s->min_free_bytes = 1 << 20;
    assert_int_equal(send(s, &items[1], 1, 0, "cdef"), 0);
    ASSERT_UNIT(s, 0, "ab|cdef|");
    store_close(s);
}

/* A file that somebody has removed or cut costs its items, not the job. */
static void test_push_a_lost_file_fails_its_items(void **state)
{
    const struct row_item items[] = {picture(0, 2), picture(1, 4)};
    struct store *s = open_store(8);
    char name[PATH_MAX];

    (void)state;
    fixture_import(s, 0, 2);
    assert_int_equal(send(s, items, 2, 0, "abcdef"), 0);
    assert_int_equal(store_push_file(path, 0, name), 0);
    assert_int_equal(truncate(name, (off_t)store_push_head_bytes(2) + 3), 0);
    ASSERT_UNIT(s, 0, "ab|missing: the picture that was sent is no longer on the broker's disk|");
    assert_int_equal(unlink(name), 0);
    ASSERT_UNIT(s, 0,
                "missing: the picture that was sent is no longer on the broker's disk|"
                "missing: the picture that was sent is no longer on the broker's disk|");
    store_close(s);
}

/* Units of large pictures have fewer of them: a unit travels and is held in memory as a whole. */
static void test_push_units_are_cut_by_the_size_of_their_pictures(void **state)
{
    struct store *s = open_store(64);
    struct err err;
    struct buf rows;

    (void)state;
    buf_init(&rows, 0);
    for (int i = 0; i < 10; i++) {
        const struct row_item item = {.key = (const uint8_t *)"k",
                                      .key_bytes = 1,
                                      .path = (const uint8_t *)"/p",
                                      .path_bytes = 2,
                                      .size_bytes = i < 8 ? 12 << 20 : UINT64_MAX};

        assert_int_equal(row_item_append(&rows, &item), 0);
    }
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, 10, &err), 0);
    assert_int_equal(store_seal(s, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
    assert_int_equal(store_counters(s)->n_units, 4); /* 3, 3, 2 and the first of the two without end, the other */
    buf_release(&rows);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_push_units_get_their_pictures_and_wait_for_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_push_goes_on_where_it_was_durable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_push_wrong_messages_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_push_waits_for_room_on_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_push_a_lost_file_fails_its_items, setup, teardown),
        cmocka_unit_test_setup_teardown(test_push_units_are_cut_by_the_size_of_their_pictures, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
