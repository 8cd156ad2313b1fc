/* The tables of embeddings: written with the records, read back, verified. */
#include "tests/unit/store_fixture.h"

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

enum { UNIT = 8, ROWS = 3, COLS = 5, BAD = 7 };

static int setup(void **state)
{
    *state = fixture_dir();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    fixture_dir_remove(*state);
    return 0;
}

static char *in_dir(const char *dir)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/store", dir) > 0);
    return path;
}

/* Query outputs in fp32 and one row of ITC in fp16. */
static struct store *open_store(const char *path, uint32_t n_items)
{
    struct stored_job_meta meta = fixture_meta(UNIT);
    struct store_options o = {.create = true, .meta = &meta};
    struct store *s;
    struct err err;

    meta.recipe.n_embeddings = 2;
    meta.recipe.embeddings[0] = (struct msg_embedding_spec){MSG_EMBEDDING_QUERY, DTYPE_F32, false};
    meta.recipe.embeddings[1] = (struct msg_embedding_spec){MSG_EMBEDDING_ITC, DTYPE_F16, true};
    if (store_open(path, &o, &s, NULL, &err) < 0)
        fail_msg("%s", err.text);
    fixture_import(s, 0, n_items);
    return s;
}

/* What an item's embedding is: every byte follows from item and kind. */
static void fill(uint8_t *data, size_t n, uint64_t item, enum msg_embedding kind)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(item * 31 + kind * 7 + i);
}

struct unit_embeddings {
    struct buf bytes;
    struct store_embedding list[2 * UNIT];
    uint32_t n;
};

static void add_embedding(struct unit_embeddings *u, uint32_t index, uint64_t item, enum msg_embedding kind)
{
    uint8_t data[ROWS * COLS * 4];
    struct row_embedding e = {kind, DTYPE_F32, ROWS, COLS, data, sizeof(data)};
    size_t start = u->bytes.size_bytes;

    if (kind != MSG_EMBEDDING_QUERY)
        e = (struct row_embedding){kind, DTYPE_F16, 1, COLS, data, COLS * 2};
    fill(data, e.data_bytes, item, kind);
    assert_int_equal(stored_embedding_encode(&e, &u->bytes), 0);
    u->list[u->n++] = (struct store_embedding){index, kind, (uint32_t)start, (uint32_t)(u->bytes.size_bytes - start)};
}

static int put(struct store *s, uint32_t unit, const struct fixture_records *r, const struct unit_embeddings *u)
{
    const struct store_records records = {.data = r->bytes.data,
                                          .ends = r->ends,
                                          .n = r->n,
                                          .n_failed = r->n_failed,
                                          .embedding_data = u->bytes.data,
                                          .embeddings = u->list,
                                          .n_embeddings = u->n};
    struct err err = {""};
    int rc;

    assert_int_equal(store_begin(s, &err), 0);
    rc = store_put_unit(s, unit, &records, &err);
    if (rc < 0)
        store_abort(s);
    else
        assert_int_equal(store_commit(s, &err), 0);
    return rc;
}

static void commit_unit(struct store *s, uint32_t unit)
{
    struct unit_embeddings u = {.n = 0};
    struct fixture_records r;
    const uint64_t first = (uint64_t)unit * UNIT;

    buf_init(&u.bytes, 0);
    fixture_records_init(&r, first, UNIT, BAD);
    for (uint32_t i = 0; i < UNIT; i++) {
        if ((first + i) % BAD == 0)
            continue;
        add_embedding(&u, i, first + i, MSG_EMBEDDING_QUERY);
        add_embedding(&u, i, first + i, MSG_EMBEDDING_ITC);
    }
    assert_int_equal(put(s, unit, &r, &u), 0);
    buf_release(&u.bytes);
    fixture_records_release(&r);
}

static char *filled_store(void **state)
{
    char *path = in_dir(*state);
    struct store *s = open_store(path, 4 * UNIT);

    for (uint32_t i = 0; i < 4; i++)
        commit_unit(s, (i * 3 + 1) % 4); /* 1, 0, 3, 2: appended and put between */
    store_close(s);
    return path;
}

static void test_embeddings_come_back_for_every_good_item(void **state)
{
    char *path = filled_store(state);
    struct row_embedding e;
    struct reader_row row;
    struct reader *r;
    struct err err;
    uint8_t want[ROWS * COLS * 4];
    uint64_t n = 0;

    assert_int_equal(reader_open(path, false, &r, &err), 0);
    while (reader_next(r, &row, &err) == 1) {
        const bool good = row.item % BAD != 0;

        assert_int_equal(reader_embedding(r, MSG_EMBEDDING_QUERY, row.item, &e, &err), good);
        if (good) {
            fill(want, sizeof(want), row.item, MSG_EMBEDDING_QUERY);
            assert_int_equal(e.rows, ROWS);
            assert_int_equal(e.cols, COLS);
            assert_int_equal(e.data_bytes, sizeof(want));
            assert_memory_equal(e.data, want, sizeof(want));
            assert_int_equal(row.record.n_captions, 1); /* still there */
        }
        assert_int_equal(reader_embedding(r, MSG_EMBEDDING_ITC, row.item, &e, &err), good);
        n += good;
    }
    assert_int_equal(n, 27);
    assert_int_equal(reader_embedding(r, MSG_EMBEDDING_QUERY, 4 * UNIT, &e, &err), 0);
    assert_int_equal(reader_embedding(r, MSG_EMBEDDING_CLS, 1, &e, &err), -EINVAL);
    assert_non_null(strstr(err.text, "cls"));
    assert_int_equal(reader_count_embeddings(r, MSG_EMBEDDING_ITC, &n, &err), 0);
    assert_int_equal(n, 27);
    reader_close(r);
    assert_int_equal(fixture_problems(path, 1), 0);
    free(path);
}

static void test_embeddings_that_nobody_asked_for_are_refused(void **state)
{
    char *path = in_dir(*state);
    struct store *s = open_store(path, UNIT);
    struct unit_embeddings u = {.n = 0};
    struct fixture_records r;

    buf_init(&u.bytes, 0);
    fixture_records_init(&r, 0, UNIT, 0);
    add_embedding(&u, 0, 0, MSG_EMBEDDING_CLS);
    assert_int_equal(put(s, 0, &r, &u), -EINVAL);
    u.list[0].kind = MSG_EMBEDDING_QUERY;
    u.list[0].index = UNIT;
    assert_int_equal(put(s, 0, &r, &u), -EINVAL);
    u.list[0].index = 3;
    u.list[1] = u.list[0];
    u.n = 2; /* twice */
    assert_int_equal(put(s, 0, &r, &u), -EINVAL);
    u.n = 1;
    u.list[0].size_bytes--;
    assert_int_equal(put(s, 0, &r, &u), -EINVAL);
    assert_int_equal(store_counters(s)->n_done, 0);
    store_close(s);
    buf_release(&u.bytes);
    fixture_records_release(&r);
    free(path);
}

/* -- damage -- */

enum harm { REMOVE, FLIP, COPY_TO_FAILED, COPY_BEHIND_THE_END };

static void put_be64(uint8_t ret[8], uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        ret[i] = (uint8_t)v;
}

/* To the query outputs of item 9, past the store. */
static void harm(const char *path, enum harm what)
{
    uint8_t key[8], to[8], copy[4096];
    MDB_val k = {8, key}, v, t = {8, to};
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    put_be64(key, 9);
    put_be64(to, what == COPY_TO_FAILED ? BAD : 100 * UNIT);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 16), 0);
    assert_int_equal(mdb_env_set_mapsize(env, (size_t)64 << 20), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0666), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "query", 0, &dbi), 0);
    assert_int_equal(mdb_get(txn, dbi, &k, &v), 0);
    assert_true(v.mv_size <= sizeof(copy));
    memcpy(copy, v.mv_data, v.mv_size);
    v.mv_data = copy;
    if (what == REMOVE) {
        assert_int_equal(mdb_del(txn, dbi, &k, NULL), 0);
    } else {
        if (what == FLIP)
            copy[20] ^= 1;
        assert_int_equal(mdb_put(txn, dbi, what == FLIP ? &k : &t, &v, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

struct found {
    uint64_t n;
    int64_t item;
    char text[200];
};

static bool note(void *arg, int64_t unit, int64_t item, const char *text)
{
    struct found *f = arg;

    (void)unit;
    f->n++;
    f->item = item;
    (void)snprintf(f->text, sizeof(f->text), "%s", text);
    return true;
}

static struct found verify(const char *path)
{
    struct found f = {0};
    const struct reader_verify v = {.problem = note, .arg = &f};
    struct reader *r;
    struct err err;
    uint64_t n;

    assert_int_equal(reader_open(path, false, &r, &err), 0);
    assert_int_equal(reader_verify(r, &v, &n, &err), 0);
    assert_int_equal(n, f.n);
    reader_close(r);
    return f;
}

static void test_embeddings_that_are_damaged_or_missing_are_named(void **state)
{
    static const struct {
        enum harm harm;
        int64_t item;
        const char *word;
    } cases[] = {{REMOVE, 9, "missing"},
                 {FLIP, 9, "checksum"},
                 {COPY_TO_FAILED, BAD, "no results"},
                 {COPY_BEHIND_THE_END, -1, "tables"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *path = filled_store(state);
        struct found f;

        harm(path, cases[i].harm);
        f = verify(path);
        if (f.n != 1 || f.item != cases[i].item || !strstr(f.text, cases[i].word))
            fail_msg("case %zu: %llu problems, item %lld: %s", i, (unsigned long long)f.n, (long long)f.item, f.text);
        fixture_dir_remove(path);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_embeddings_come_back_for_every_good_item),
        TEST(test_embeddings_that_nobody_asked_for_are_refused),
        TEST(test_embeddings_that_are_damaged_or_missing_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
