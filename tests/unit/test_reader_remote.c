/* A remote reader says word for word what a reader of the store says. */
#include "store/reader.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "proto/row_value.h"
#include "tests/unit/store_fixture.h"

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

/* -- both ends in one process -- */

struct far {
    struct reader *there;
    struct far_part {
        struct msg_store_rows head;
        struct buf rows;
        uint32_t n_rows;
    } parts[64];
    size_t n_parts, i_part;
    uint32_t n_asked;
    unsigned spoil; /* seed; 0: leave the answers as they are */
};

static int keep(void *arg, const struct msg_store_rows *head, struct buf *rows, uint32_t n_rows)
{
    struct far *f = arg;
    struct far_part *p = &f->parts[f->n_parts++];

    assert_true(f->n_parts < sizeof(f->parts) / sizeof(f->parts[0]));
    *p = (struct far_part){.head = *head, .n_rows = n_rows};
    assert_int_equal(buf_append(&p->rows, rows->data, rows->size_bytes), 0);
    return 0;
}

static void forget(struct far *f)
{
    for (size_t i = 0; i < f->n_parts; i++)
        buf_release(&f->parts[i].rows);
    f->n_parts = f->i_part = 0;
}

static void spoil(struct far *f, struct far_part *p)
{
    if (f->spoil && p->rows.size_bytes && rand_r(&f->spoil) % 2)
        p->rows.data[(size_t)rand_r(&f->spoil) % p->rows.size_bytes] ^= (uint8_t)(1 << rand_r(&f->spoil) % 8);
    if (f->spoil && rand_r(&f->spoil) % 8 == 0)
        p->n_rows += (uint32_t)rand_r(&f->spoil) % 3 - 1;
    if (f->spoil && rand_r(&f->spoil) % 8 == 0)
        p->head.next = (uint64_t)rand_r(&f->spoil);
}

static int ask(void *arg, const struct msg_store_read *q, struct msg_store_rows *ret, struct buf *rows,
               uint32_t *ret_n_rows, struct err *err)
{
    struct far *f = arg;
    struct far_part *p;
    int rc = 0;

    if (q) {
        struct buf packed;
        struct msg m;

        msg_init(&m, MSG_STORE_READ);
        m.store_read = *q;
        buf_init(&packed, 0);
        assert_int_equal(msg_pack(&m, &packed, err), 0);
        buf_release(&packed);
        forget(f);
        f->n_asked++;
        rc = reader_answer(f->there, q, keep, f, err);
    }
    if (rc < 0)
        return rc;
    assert_true(f->i_part < f->n_parts);
    p = &f->parts[f->i_part++];
    spoil(f, p);
    *ret = p->head;
    *ret_n_rows = p->n_rows;
    return buf_append(rows, p->rows.data, p->rows.size_bytes);
}

/* -- all that a reader says -- */

static void say_row(struct buf *ret, int rc, const struct reader_row *row, const struct err *err)
{
    int failed = 0;

    if (rc < 0) {
        failed = buf_appendf(ret, "%d item %" PRIu64 " unit %u: %s\n", rc, row->item, row->unit, err->text);
    } else if (rc > 0) {
        failed = buf_appendf(ret, "%" PRIu64 " %u %u %.*s %.*s %d %d %u %s\n", row->item, row->unit, row->n_attempts,
                             (int)row->listed.key_bytes, row->listed.key, (int)row->listed.path_bytes, row->listed.path,
                             row->has_record, row->has_record && row->record.failed,
                             row->has_record ? row->record.n_captions : 0,
                             row->has_record && row->record.failed ? row->record.error_code : "");
        if (row->has_record && !row->record.failed && row->record.n_captions)
            failed |= buf_append(ret, row->record.captions[0].text, row->record.captions[0].text_bytes);
    }
    assert_int_equal(failed, 0);
}

static void say_walk(struct reader *r, struct buf *ret, uint64_t from)
{
    struct reader_row row = {0};
    struct err err = {""};
    int rc, n = 0;

    reader_seek(r, from);
    while ((rc = reader_next(r, &row, &err)) != 0 && n++ < 100000) {
        say_row(ret, rc, &row, &err);
        if (rc < 0 && rc != -EBADMSG)
            return;
    }
}

static bool say_problem(void *arg, int64_t unit, int64_t item, const char *text)
{
    assert_int_equal(buf_appendf(arg, "problem %" PRId64 " %" PRId64 " %s\n", unit, item, text), 0);
    return true;
}

static void say_verify(struct reader *r, struct buf *ret)
{
    const struct reader_verify v = {.problem = say_problem, .arg = ret};
    struct err err = {""};
    uint64_t n = 0;
    int rc = reader_verify(r, &v, &n, &err);

    assert_int_equal(buf_appendf(ret, "verify %d %" PRIu64 " %s\n", rc, n, rc < 0 ? err.text : ""), 0);
    err.text[0] = '\0';
    rc = reader_check_pages(r, &err);
    assert_int_equal(buf_appendf(ret, "pages %d %s\n", rc, rc < 0 ? err.text : ""), 0);
}

static void say_done(struct reader *r, struct buf *ret)
{
    uint32_t from = 0, before;
    struct reader_row row = {0};
    const uint64_t *units;
    struct err err = {""};
    uint64_t last = 0;
    size_t n;

    do {
        before = from;
        assert_int_equal(reader_units_done(r, &from, &units, &n, &err), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(buf_appendf(ret, "done %" PRIu64 "\n", last = units[i]), 0);
    } while (from > before);
    reader_seek_unit(r, (uint32_t)last);
    do {
        int rc = reader_next(r, &row, &err);

        say_row(ret, rc, &row, &err);
    } while (reader_is_inside_unit(r));
}

static void say_all(struct reader *r, struct buf *ret)
{
    static const char *const keys[] = {"key-00000009", "key-00000011", "none"};
    struct stored_job_counters c = {0};
    const struct row_source *sources;
    struct err err = {""};
    struct reader_row row = {0};
    const uint64_t *found;
    uint32_t n_sources = 0;
    size_t n;
    int rc = reader_counters(r, &c, &err);

    assert_int_equal(buf_appendf(ret, "%s %s %d %" PRIu64 " %u %" PRIu64 "\n", reader_meta(r)->program,
                                 rc < 0 ? err.text : "", rc, c.n_items, c.n_units, c.n_done),
                     0);
    assert_int_equal(reader_sources(r, &sources, &n_sources, &err), 0);
    assert_int_equal(buf_appendf(ret, "%u sources\n", n_sources), 0);
    say_walk(r, ret, 0);
    say_walk(r, ret, 13);
    for (uint64_t item = 0; item < 30; item += 7) {
        rc = reader_get(r, item, &row, &err);
        say_row(ret, rc < 0 ? rc : 1, &row, &err);
    }
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        rc = reader_find(r, keys[i], strlen(keys[i]), &found, &n, &err);
        assert_int_equal(buf_appendf(ret, "%s: %d %s", keys[i], rc, rc < 0 ? err.text : ""), 0);
        for (size_t k = 0; rc == 0 && k < n; k++)
            assert_int_equal(buf_appendf(ret, " %" PRIu64, found[k]), 0);
    }
    say_done(r, ret);
    say_verify(r, ret);
}

static struct reader *open_far(struct far *f)
{
    const struct reader_source_far from = {.ask = ask, .arg = f};
    struct reader *r = NULL;
    struct err err = {""};

    if (reader_open_remote(path, 7, &from, &r, &err) < 0 && !f->spoil)
        fail_msg("%s", err.text);
    return r;
}

static struct reader *open_near(void)
{
    struct reader *r = NULL;
    struct err err = {""};

    if (reader_open(path, false, &r, &err) < 0)
        fail_msg("%s", err.text);
    return r;
}

/* Returns how many questions it took. */
static uint32_t assert_same(void)
{
    struct far f = {.there = open_near()};
    struct buf near, far;
    struct reader *r;

    buf_init(&near, 0);
    buf_init(&far, 0);
    say_all(f.there, &near);
    r = open_far(&f);
    say_all(r, &far);
    if (near.size_bytes != far.size_bytes || memcmp(near.data, far.data, near.size_bytes) != 0)
        fail_msg("here:\n%.*s\nthere:\n%.*s", (int)near.size_bytes, near.data, (int)far.size_bytes, far.data);
    reader_close(r);
    reader_close(f.there);
    forget(&f);
    buf_release(&near);
    buf_release(&far);
    return f.n_asked;
}

/* -- stores -- */

static void make_store(uint32_t n_units, uint32_t skip)
{
    struct store *s = fixture_store(path, 8);
    struct err err = {""};

    fixture_import(s, 0, 8 * n_units - 3);
    for (uint32_t u = 0; u < n_units; u++)
        if (u != skip)
            fixture_commit_unit(s, u, 8 * (uint64_t)u, u + 1 < n_units ? 8 : 5, 5);
    while (skip == UINT32_MAX && store_keys_wanted(s))
        assert_int_equal(store_keys_step(s, &err), 0);
    store_close(s);
}

static void test_remote_reader_of_a_whole_store(void **state)
{
    (void)state;
    make_store(5, UINT32_MAX);
    (void)assert_same();
}

static void test_remote_reader_of_a_store_that_is_not_done(void **state)
{
    (void)state;
    make_store(4, 2);
    (void)assert_same();
}

static void test_remote_reader_of_an_empty_manifest(void **state)
{
    (void)state;
    store_close(fixture_store(path, 8));
    (void)assert_same();
}

/* An answer has more units than the one that was asked for; they may be done since. */
static void test_remote_reader_sees_units_that_are_done_later(void **state)
{
    struct store *s = fixture_store(path, 8);
    struct far f = {0};
    struct reader *r;

    (void)state;
    fixture_import(s, 0, 24);
    fixture_commit_unit(s, 0, 0, 8, 5);
    store_close(s);
    f.there = open_near();
    r = open_far(&f);
    for (uint32_t u = 0; u < 3; u++) {
        uint32_t from = u;
        struct reader_row row;
        const uint64_t *units;
        struct err err;
        size_t n;

        assert_int_equal(reader_units_done(r, &from, &units, &n, &err), 0);
        assert_int_equal(n, 1);
        assert_int_equal(units[0], u);
        reader_seek_unit(r, u);
        do {
            assert_int_equal(reader_next(r, &row, &err), 1);
            assert_int_equal(row.unit, u);
            assert_true(row.has_record);
        } while (reader_is_inside_unit(r));
        if (u == 2)
            break;
        reader_close(f.there); /* a process has a store open once */
        s = fixture_store(path, 8);
        fixture_commit_unit(s, u + 1, 8 * ((uint64_t)u + 1), 8, 5);
        store_close(s);
        f.there = open_near();
    }
    reader_close(r);
    reader_close(f.there);
    forget(&f);
}

static void test_remote_reader_asks_once_for_each_mib(void **state)
{
    struct store *s = fixture_store(path, 1000);
    struct far f = {0};
    struct buf text;
    struct reader *r;

    (void)state;
    fixture_import(s, 0, 32000); /* of some 200 bytes */
    for (uint32_t u = 0; u < 32; u++)
        fixture_commit_unit(s, u, 1000 * (uint64_t)u, 1000, 5);
    store_close(s);
    f.there = open_near();
    buf_init(&text, 0);
    r = open_far(&f);
    f.n_asked = 0;
    say_walk(r, &text, 0);
    assert_true(text.size_bytes > 2000000);
    assert_in_range(f.n_asked, 3, 20); /* one is for the counters */
    reader_close(r);
    reader_close(f.there);
    forget(&f);
    buf_release(&text);
}

static uint8_t *slurp(size_t *ret_n)
{
    char name[400];
    struct stat st;
    uint8_t *data;
    FILE *f;

    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    assert_int_equal(stat(name, &st), 0);
    data = malloc((size_t)st.st_size);
    f = fopen(name, "r");
    assert_non_null(data);
    assert_non_null(f);
    assert_int_equal(fread(data, 1, (size_t)st.st_size, f), st.st_size);
    (void)fclose(f);
    *ret_n = (size_t)st.st_size;
    return data;
}

static void spill(const uint8_t *data, size_t n)
{
    char name[400];
    FILE *f;

    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    f = fopen(name, "r+");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A bit of any value: in keys and captions, which are everywhere in the rows. */
static void test_remote_reader_of_a_damaged_store(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    uint8_t *data, *bad;
    size_t n;

    (void)state;
    printf("seed %u\n", seed);
    make_store(4, 2);
    data = slurp(&n);
    bad = malloc(n);
    assert_non_null(bad);
    for (int round = 0; round < 24; round++) {
        char text[64];
        unsigned item = (unsigned)rand_r(&seed) % 29;

        memcpy(bad, data, n);
        (void)snprintf(text, sizeof(text), round % 2 ? "a caption of item %u" : "key-%08u", item);
        for (uint8_t *at = bad; (at = memmem(at, n - (size_t)(at - bad), text, strlen(text))); at++)
            at[(size_t)rand_r(&seed) % strlen(text)] ^= (uint8_t)(1 << rand_r(&seed) % 8);
        spill(bad, n);
        (void)assert_same();
    }
    free(bad);
    free(data);
}

/* Nothing that a broker answers does harm: a wrong answer ends in an error, or is noticed by a CRC. */
static void test_remote_reader_of_hostile_answers(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    int refused = 0;

    (void)state;
    printf("seed %u\n", seed);
    make_store(4, 2);
    for (int round = 0; round < 100; round++) {
        struct far f = {.there = open_near(), .spoil = seed + (unsigned)round + 1};
        struct reader *r = open_far(&f);
        const uint64_t *numbers;
        uint32_t from = 0;
        struct err err;
        struct buf text;
        size_t n;

        buf_init(&text, 0);
        if (r) {
            say_walk(r, &text, 0);
            say_walk(r, &text, 13);
            (void)!reader_find(r, "key-00000009", 12, &numbers, &n, &err);
            (void)!reader_units_done(r, &from, &numbers, &n, &err);
            say_verify(r, &text);
        }
        refused += !r || memmem(text.data, text.size_bytes, "an answer", 9);
        reader_close(r);
        reader_close(f.there);
        forget(&f);
        buf_release(&text);
    }
    assert_true(refused > 30);
}

/* -- the rows -- */

static void test_remote_reader_values_longer_than_a_row(void **state)
{
    const size_t sizes[] = {0, 1, ROW_MAX_BYTES - 64, ROW_MAX_BYTES - 63, 3 * ROW_MAX_BYTES, 20 << 20};
    uint8_t *bytes = malloc(20 << 20);
    struct row_value_cursor c = {0};
    struct row_value v;
    struct err err = {""};
    uint32_t n_rows = 0;
    struct buf rows;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < (size_t)20 << 20; i++)
        bytes[i] = (uint8_t)(i * 2654435761U >> 13);
    buf_init(&rows, 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        assert_int_equal(
            row_value_append(
                &rows,
                &(struct row_value){
                    .table = ROW_VALUE_RECORD, .number = i, .unit = 2 * i, .data = bytes, .size_bytes = sizes[i]},
                &n_rows),
            0);
    assert_int_equal(row_value_cursor_set(&c, &rows, n_rows), 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(row_value_cursor_next(&c, &v, &err), 1);
        assert_int_equal(v.number, i);
        assert_int_equal(v.unit, 2 * i);
        assert_int_equal(v.size_bytes, sizes[i]);
        if (sizes[i])
            assert_memory_equal(v.data, bytes, sizes[i]);
    }
    assert_int_equal(row_value_cursor_next(&c, &v, &err), 0);
    row_value_cursor_release(&c);
    buf_release(&rows);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_remote_reader_of_a_whole_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_reader_of_a_store_that_is_not_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_reader_of_an_empty_manifest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_reader_sees_units_that_are_done_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_reader_asks_once_for_each_mib, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_reader_of_a_damaged_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_reader_of_hostile_answers, setup, teardown),
        cmocka_unit_test(test_remote_reader_values_longer_than_a_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
