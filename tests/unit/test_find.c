/* find_items with the table `keys`, without it, and with a part of it. */
#include "store/find.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/row.h"
#include "tests/unit/store_fixture.h"

enum { N_ITEMS = 20000 };

/* Of this process: other processes do not matter. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static char *dir;
static char path[300];

static int setup(void **state)
{
    (void)state;
    dir = fixture_dir();
    (void)snprintf(path, sizeof(path), "%s/photos.lmdb", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_dir_remove(dir);
    return 0;
}

/* "key-%08u" of these numbers; returns what the rows of the answer say, as "number:key" words. */
static const char *find(const uint32_t *numbers, uint32_t n, int64_t *ret_ns)
{
    static char said[4096];
    struct reader *r = NULL;
    struct row_cursor c;
    struct row_frame frame;
    struct row_item item;
    struct buf keys, found;
    uint32_t n_found = 0;
    struct err err;
    size_t at = 0;
    int64_t begun;

    buf_init(&keys, 0);
    buf_init(&found, 0);
    for (uint32_t i = 0; i < n; i++)
        fixture_rows(&keys, numbers[i], 1);
    assert_int_equal(reader_open(path, false, &r, &err), 0);
    begun = cpu_ns();
    if (find_items(r, &keys, n, &found, &n_found, &err) < 0)
        fail_msg("%s", err.text);
    *ret_ns = cpu_ns() - begun;
    reader_close(r);
    frame = (struct row_frame){.data = found.data, .size_bytes = found.size_bytes};
    row_cursor_init(&c, &frame, 1, n_found);
    said[0] = '\0';
    while (row_cursor_next_item(&c, &item, &err) > 0)
        at += (size_t)snprintf(said + at, sizeof(said) - at, "%" PRIu64 ":%.*s ", item.item, (int)item.key_bytes,
                               item.key);
    row_cursor_release(&c);
    buf_release(&keys);
    buf_release(&found);
    return said;
}

static void test_find_items_reads_only_what_the_keys_do_not_have(void **state)
{
    static const uint32_t numbers[] = {19990, 7, 50000, 12, 7};
    struct store *s = fixture_store(path, 100);
    int64_t whole_ns, keys_ns;
    struct err err;

    (void)state;
    fixture_import(s, 0, N_ITEMS);
    store_close(s);
    assert_string_equal(find(numbers, 5, &whole_ns), "7:key-00000007 12:key-00000012 19990:key-00019990 ");
    s = fixture_store(path, 100);
    assert_int_equal(store_keys_step(s, &err), 0); /* a part */
    assert_true(store_keys_wanted(s));
    store_close(s);
    assert_string_equal(find(numbers, 5, &keys_ns), "7:key-00000007 12:key-00000012 19990:key-00019990 ");
    s = fixture_store(path, 100);
    while (store_keys_wanted(s))
        assert_int_equal(store_keys_step(s, &err), 0);
    store_close(s);
    assert_string_equal(find(numbers, 5, &keys_ns), "7:key-00000007 12:key-00000012 19990:key-00019990 ");
    printf("%" PRId64 " us without keys, %" PRId64 " us with them\n", whole_ns / 1000, keys_ns / 1000);
    assert_true(keys_ns < whole_ns / 3);
}

static void test_find_items_of_a_key_that_many_have(void **state)
{
    static const uint32_t numbers[] = {3, 1};
    struct store *s = fixture_store(path, 8);
    struct err err;
    int64_t ns;

    (void)state;
    fixture_import(s, 0, 20);
    store_close(s);
    s = fixture_store(path, 8);
    fixture_import(s, 1, 5);
    while (store_keys_wanted(s))
        assert_int_equal(store_keys_step(s, &err), 0);
    store_close(s);
    assert_string_equal(find(numbers, 2, &ns), "1:key-00000001 3:key-00000003 20:key-00000001 22:key-00000003 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_find_items_reads_only_what_the_keys_do_not_have, setup, teardown),
        cmocka_unit_test_setup_teardown(test_find_items_of_a_key_that_many_have, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
