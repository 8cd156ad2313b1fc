/* Items that are done again: marks, new records, what stays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/reader.h"
#include "store/store.h"
#include "tests/unit/store_fixture.h"

enum { UNIT = 4, N = 10 }; /* units of 4, 4 and 2 items; items 0, 3, 6 and 9 have failed */

struct dir {
    char *path;
    struct store *s;
};

static int setup(void **state)
{
    static struct dir d;
    char path[256];

    d.path = fixture_dir();
    (void)snprintf(path, sizeof(path), "%s/s", d.path);
    d.s = fixture_store(path, UNIT);
    fixture_import(d.s, 0, N);
    fixture_commit_unit(d.s, 0, 0, 4, 3);
    fixture_commit_unit(d.s, 1, 4, 4, 3);
    fixture_commit_unit(d.s, 2, 8, 2, 3);
    *state = &d;
    return 0;
}

static int teardown(void **state)
{
    struct dir *d = *state;

    store_close(d->s);
    fixture_dir_remove(d->path);
    return 0;
}

static void add_row(struct buf *rows, uint64_t item, const char *key, int64_t mtime_ns)
{
    char own[32];
    struct row_item row = {.item = item, .size_bytes = 1000 + item, .mtime_ns = mtime_ns};
    char path[64];

    (void)snprintf(own, sizeof(own), "key-%08llu", (unsigned long long)item);
    row.key = (const uint8_t *)(key ? key : own);
    row.key_bytes = (uint32_t)strlen((const char *)row.key);
    row.path_bytes = (uint32_t)snprintf(path, sizeof(path), "/pictures/%s.jpg", own);
    row.path = (const uint8_t *)path;
    assert_int_equal(row_item_append(rows, &row), 0);
}

/* Marks in one transaction; the first unit concerned. */
static uint32_t mark(struct store *s, const uint64_t *items, uint32_t n)
{
    struct err err = {""};
    uint32_t from = 0;
    struct buf rows;

    buf_init(&rows, 0);
    for (uint32_t i = 0; i < n; i++)
        add_row(&rows, items[i], NULL, (int64_t)(items[i] * 7));
    assert_int_equal(store_begin(s, &err), 0);
    if (store_again(s, rows.data, rows.size_bytes, n, &from, &err) < 0 || store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    buf_release(&rows);
    return from;
}

/* The mask of what is to be done of this unit; 0: nothing. */
static uint64_t pending(struct store *s, uint32_t unit)
{
    struct store_pending found[8];
    struct err err;
    uint32_t next;
    size_t n;

    assert_int_equal(store_pending(s, 0, 8, found, &n, &next, &err), 0);
    for (size_t i = 0; i < n; i++)
        if (found[i].unit == unit) {
            assert_true(found[i].is_again && found[i].attempts == 0);
            return found[i].again[0];
        }
    return 0;
}

/* Records of the items of the mask; every `bad`th is an error. */
static int redo(struct store *s, uint32_t unit, uint64_t mask, uint32_t bad)
{
    uint64_t again[MSG_MAX_UNIT_ITEMS / 64] = {mask};
    struct store_records r = {.again = again};
    struct err err = {""};
    uint32_t ends[UNIT];
    struct buf all;
    int rc;

    buf_init(&all, 0);
    for (uint32_t i = 0; i < UNIT; i++) {
        struct fixture_records one;

        if (!(mask >> i & 1))
            continue;
        fixture_records_init(&one, (uint64_t)unit * UNIT + i, 1, bad);
        assert_int_equal(buf_append(&all, one.bytes.data, one.bytes.size_bytes), 0);
        ends[r.n++] = (uint32_t)all.size_bytes;
        r.n_failed += one.n_failed;
        fixture_records_release(&one);
    }
    r.data = all.data;
    r.ends = ends;
    assert_int_equal(store_begin(s, &err), 0);
    rc = store_put_unit(s, unit, &r, &err);
    if (store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    buf_release(&all);
    return rc;
}

static void check_counts(const struct dir *d, uint64_t n_failed, uint64_t n_again, uint64_t n_redone)
{
    const struct stored_job_counters *c = store_counters(d->s);

    assert_int_equal(c->n_done, N);
    assert_int_equal(c->n_failed, n_failed);
    assert_int_equal(c->n_again, n_again);
    assert_int_equal(c->n_redone, n_redone);
}

static void test_again_marks_survive_and_records_stay_until_new_ones_come(void **state)
{
    static const uint64_t items[] = {0, 3, 6};
    struct dir *d = *state;
    char *path = strdup(store_path(d->s));

    assert_int_equal(mark(d->s, items, 3), 0);
    check_counts(d, 4, 3, 0);
    store_close(d->s);
    assert_int_equal(fixture_problems(path, 1), 0);
    d->s = fixture_store(path, UNIT);
    check_counts(d, 4, 3, 0);
    assert_int_equal(pending(d->s, 0), 1 | 8);
    assert_int_equal(pending(d->s, 1), 4);
    assert_int_equal(pending(d->s, 2), 0);
    assert_int_equal(redo(d->s, 0, 1 | 8, 3), 0); /* still errors */
    check_counts(d, 4, 1, 2);
    assert_int_equal(pending(d->s, 0), 0);
    assert_int_equal(redo(d->s, 1, 4, 0), 0);
    check_counts(d, 3, 0, 3);
    assert_int_equal(pending(d->s, 1), 0);
    store_close(d->s);
    assert_int_equal(fixture_problems(path, 1), 0);
    d->s = fixture_store(path, UNIT);
    free(path);
}

static void test_again_a_failure_never_takes_the_place_of_a_record(void **state)
{
    static const uint64_t items[] = {4, 5, 6};
    struct dir *d = *state;

    assert_int_equal(mark(d->s, items, 3), 1);
    assert_int_equal(redo(d->s, 1, 1 | 2 | 4, 1), 0); /* all of them fail; item 6 had failed before */
    check_counts(d, 4, 2, 1);
    assert_int_equal(pending(d->s, 1), 1 | 2);
    assert_int_equal(redo(d->s, 1, 1 | 2, 0), 0);
    check_counts(d, 4, 0, 3);
}

static void test_again_only_marked_items_of_a_done_unit_are_taken(void **state)
{
    static const uint64_t items[] = {0};
    struct dir *d = *state;

    assert_int_equal(redo(d->s, 0, 1, 0), -EALREADY);
    (void)mark(d->s, items, 1);
    assert_int_equal(redo(d->s, 0, 1 | 2, 0), 0); /* item 1 was not asked for: its record stays, and is not counted */
    check_counts(d, 3, 0, 1);
    (void)mark(d->s, items, 1);
    (void)mark(d->s, items, 1); /* twice is once */
    check_counts(d, 3, 1, 1);
}

/* Bytes in the place of a record, behind the store's back; NULL: none. */
static void spoil(struct dir *d, uint64_t item, const char *bytes)
{
    char *path = strdup(store_path(d->s));
    MDB_val k, v = {.mv_size = bytes ? strlen(bytes) : 0, .mv_data = (void *)(uintptr_t)bytes};
    uint8_t key[8];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi items;

    store_close(d->s);
    for (int i = 0; i < 8; i++)
        key[i] = (uint8_t)(item >> (56 - 8 * i));
    k = (MDB_val){.mv_size = 8, .mv_data = key};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 16), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "items", 0, &items), 0);
    assert_int_equal(bytes ? mdb_put(txn, items, &k, &v, 0) : mdb_del(txn, items, &k, NULL), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    d->s = fixture_store(path, UNIT);
    free(path);
}

static void test_again_a_record_that_is_lost_is_replaced_and_counted_right(void **state)
{
    static const uint64_t items[] = {0, 1, 3};
    struct dir *d = *state;
    char *path = strdup(store_path(d->s));

    spoil(d, 0, "not a record at all"); /* had failed */
    spoil(d, 1, NULL);                  /* had not */
    (void)mark(d->s, items, 3);
    assert_int_equal(redo(d->s, 0, 1 | 2 | 8, 3), 0); /* items 0 and 3 fail */
    check_counts(d, 4, 0, 3);
    store_close(d->s);
    assert_int_equal(fixture_problems(path, 1), 0);
    d->s = fixture_store(path, UNIT);
    free(path);
}

static void test_again_rows_bring_what_is_true_now(void **state)
{
    struct dir *d = *state;
    char *path = strdup(store_path(d->s));
    struct reader_row row;
    struct reader *r;
    struct err err;
    struct buf rows;
    uint32_t from;

    buf_init(&rows, 0);
    add_row(&rows, 5, NULL, 777);
    assert_int_equal(store_begin(d->s, &err), 0);
    assert_int_equal(store_again(d->s, rows.data, rows.size_bytes, 1, &from, &err), 0);
    assert_int_equal(store_commit(d->s, &err), 0);
    buf_release(&rows);
    store_close(d->s);
    assert_int_equal(reader_open(path, false, &r, &err), 0);
    assert_int_equal(reader_get(r, 5, &row, &err), 0);
    assert_int_equal(row.listed.mtime_ns, 777);
    assert_true(row.has_record && !row.record.failed);
    assert_int_equal(reader_get(r, 4, &row, &err), 0);
    assert_int_equal(row.listed.mtime_ns, 28);
    reader_close(r);
    d->s = fixture_store(path, UNIT);
    free(path);
}

static void test_again_rows_that_make_no_sense_are_refused(void **state)
{
    struct dir *d = *state;

    {
        struct err err = {""};
        struct buf rows;
        uint32_t from;

        buf_init(&rows, 0);
        add_row(&rows, 6, NULL, 1); /* is taken */
        add_row(&rows, N, NULL, 1);
        assert_int_equal(store_begin(d->s, &err), 0);
        assert_int_equal(store_again(d->s, rows.data, rows.size_bytes, 2, &from, &err), -EINVAL);
        assert_int_equal(store_commit(d->s, &err), 0);
        buf_release(&rows);
    }
    check_counts(d, 4, 1, 0);
    assert_int_equal(pending(d->s, 1), 4);
}

static uint32_t retry(struct store *s, const char *code, uint32_t from, uint32_t *ret_from_unit)
{
    char codes[1][MSG_CODE_SIZE] = {""};
    struct err err = {""};
    uint32_t next;

    (void)snprintf(codes[0], sizeof(codes[0]), "%s", code ? code : "");
    assert_int_equal(store_begin(s, &err), 0);
    if (store_retry(s, from, code != NULL, codes, &next, ret_from_unit, &err) < 0 || store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    return next;
}

static void test_again_failed_items_are_marked_by_their_code(void **state)
{
    struct dir *d = *state;
    char *path = strdup(store_path(d->s));
    uint32_t from;

    assert_int_equal(retry(d->s, "another", 0, &from), UINT32_MAX);
    assert_int_equal(from, UINT32_MAX);
    check_counts(d, 4, 0, 0);
    assert_int_equal(retry(d->s, "truncated", 1, &from), UINT32_MAX);
    assert_int_equal(from, 1);
    check_counts(d, 4, 2, 0);
    spoil(d, 3, "not a record at all"); /* it is left alone */
    assert_int_equal(retry(d->s, NULL, 0, &from), UINT32_MAX);
    assert_int_equal(from, 0);
    check_counts(d, 4, 3, 0);
    assert_true(pending(d->s, 0) == 1 && pending(d->s, 1) == 4 && pending(d->s, 2) == 2);
    assert_int_equal(retry(d->s, NULL, 0, &from), UINT32_MAX); /* twice is once */
    assert_int_equal(from, UINT32_MAX);
    assert_int_equal(redo(d->s, 1, 4, 0), 0);
    assert_int_equal(retry(d->s, NULL, 0, &from), UINT32_MAX); /* it has no failed items any more */
    check_counts(d, 3, 2, 1);
    store_close(d->s);
    assert_int_equal(fixture_problems(path, 0), 1); /* that record */
    d->s = fixture_store(path, UNIT);
    free(path);
}

static void test_again_failed_items_are_marked_step_by_step(void **state)
{
    enum { UNITS = 5, BIG = 1024 };
    struct dir *d = *state;
    uint32_t at = 0, from, steps = 0;
    struct store *s;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/big", d->path);
    s = fixture_store(path, BIG);
    fixture_import(s, 0, UNITS * BIG);
    for (uint32_t unit = 0; unit < UNITS; unit++)
        fixture_commit_unit(s, unit, BIG * unit, BIG, 1);
    for (; at != UINT32_MAX; steps++) {
        const uint32_t next = retry(s, NULL, at, &from);

        assert_true(next > at);
        at = next;
    }
    assert_true(steps > 1);
    assert_int_equal(store_counters(s)->n_again, UNITS * BIG);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_again_marks_survive_and_records_stay_until_new_ones_come, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_a_failure_never_takes_the_place_of_a_record, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_only_marked_items_of_a_done_unit_are_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_a_record_that_is_lost_is_replaced_and_counted_right, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_again_rows_bring_what_is_true_now, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_rows_that_make_no_sense_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_failed_items_are_marked_by_their_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_failed_items_are_marked_step_by_step, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
