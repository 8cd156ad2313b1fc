#include "store/reader.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/reader_state.h"
#include "store/store_state.h"
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

static struct reader *open_reader(void)
{
    struct reader *r = NULL;
    struct err err;

    if (reader_open(path, false, &r, &err) < 0)
        fail_msg("%s", err.text);
    return r;
}

static void build_keys(struct store *s)
{
    struct err err = {""};

    while (store_keys_wanted(s))
        if (store_keys_step(s, &err) < 0)
            fail_msg("%s", err.text);
}

static void test_reader_joins_manifest_and_records_in_order(void **state)
{
    struct store *s = fixture_store(path, 8);
    struct reader_row row;
    struct reader *r;
    struct err err = {""};
    uint64_t n = 0;

    (void)state;
    fixture_import(s, 0, 20); /* 8 8 4 */
    fixture_commit_unit(s, 2, 16, 4, 17);
    fixture_commit_unit(s, 0, 0, 8, 5);
    store_close(s);
    r = open_reader();
    assert_string_equal(reader_meta(r)->program, "blipline test");
    for (int rc; (rc = reader_next(r, &row, &err)) != 0; n++) {
        char key[32];

        assert_int_equal(rc, 1);
        assert_int_equal(row.item, n);
        assert_int_equal(row.unit, n / 8);
        (void)snprintf(key, sizeof(key), "key-%08u", (unsigned)n);
        assert_int_equal(row.listed.key_bytes, strlen(key));
        assert_memory_equal(row.listed.key, key, strlen(key));
        assert_int_equal(row.listed.size_bytes, 1000 + n);
        assert_int_equal(row.has_record, n / 8 != 1);
        if (row.has_record) {
            assert_int_equal(row.record.failed, n == 0 || n == 5 || n == 17);
            if (!row.record.failed)
                assert_memory_equal(row.record.captions[0].text, "a caption of item ", 18);
        }
    }
    assert_int_equal(n, 20);
    reader_seek(r, 13);
    assert_int_equal(reader_next(r, &row, &err), 1);
    assert_int_equal(row.item, 13);
    assert_int_equal(reader_get(r, 19, &row, &err), 0);
    assert_true(row.has_record);
    assert_int_equal(reader_get(r, 20, &row, &err), -ENOENT);
    assert_int_equal(reader_get(r, UINT64_MAX, &row, &err), -ENOENT);
    reader_close(r);
}

static void expect_found(struct reader *r, const void *key, size_t n_bytes, size_t n, const uint64_t *want)
{
    const uint64_t *found;
    size_t n_found;
    struct err err = {""};

    if (reader_find(r, key, n_bytes, &found, &n_found, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(n_found, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(found[i], want[i]);
}

static void append(struct store *s, struct buf *rows, uint32_t n)
{
    struct err err = {""};

    assert_int_equal(store_begin(s, &err), 0);
    if (store_append_rows(s, rows->data, rows->size_bytes, n, &err) < 0 || store_seal(s, &err) < 0 ||
        store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    buf_release(rows);
}

static void test_reader_finds_keys_of_any_bytes_and_duplicates(void **state)
{
    struct store *s = fixture_store(path, 4);
    static const char newline[] = "a\nb", bad_utf8[] = "\xff\xfe\x80", nul[] = "x\0y";
    char longest[4096], other[4096];
    struct reader *r;
    struct buf rows;

    (void)state;
    memset(longest, 'z', sizeof(longest));
    memcpy(other, longest, sizeof(other));
    other[4095] = 'y';
    buf_init(&rows, 0);
    fixture_one_row(&rows, "dup", 3);                 /* 0 */
    fixture_one_row(&rows, newline, 3);               /* 1 */
    fixture_one_row(&rows, bad_utf8, 3);              /* 2 */
    fixture_one_row(&rows, "dup", 3);                 /* 3 */
    fixture_one_row(&rows, longest, sizeof(longest)); /* 4 */
    fixture_one_row(&rows, other, sizeof(other));     /* 5 */
    fixture_one_row(&rows, nul, 3);                   /* 6 */
    append(s, &rows, 7);
    for (int built = 0; built < 2; built++) {
        if (built)
            build_keys(s);
        else
            assert_true(store_keys_wanted(s));
        store_close(s);
        r = open_reader();
        expect_found(r, "dup", 3, 2, (const uint64_t[]){0, 3});
        expect_found(r, newline, 3, 1, (const uint64_t[]){1});
        expect_found(r, bad_utf8, 3, 1, (const uint64_t[]){2});
        expect_found(r, longest, sizeof(longest), 1, (const uint64_t[]){4});
        expect_found(r, other, sizeof(other), 1, (const uint64_t[]){5});
        expect_found(r, nul, 3, 1, (const uint64_t[]){6});
        expect_found(r, nul, 1, 0, NULL);
        expect_found(r, "", 0, 0, NULL);
        reader_close(r);
        s = fixture_store(path, 4);
    }
    assert_false(store_keys_wanted(s));
    buf_init(&rows, 0); /* later items: not covered, then covered */
    fixture_one_row(&rows, "dup", 3);
    fixture_one_row(&rows, "new", 3);
    append(s, &rows, 2);
    for (int built = 0; built < 2; built++) {
        if (built)
            build_keys(s);
        store_close(s);
        r = open_reader();
        expect_found(r, "dup", 3, 3, (const uint64_t[]){0, 3, 7});
        expect_found(r, "new", 3, 1, (const uint64_t[]){8});
        reader_close(r);
        assert_int_equal(fixture_problems(path, 1), 0);
        s = fixture_store(path, 4);
    }
    store_close(s);
}

static void test_reader_keys_interrupted_anywhere_are_rebuilt(void **state)
{
    struct store *s = fixture_store(path, 64);
    struct reader *r;
    struct err err;

    (void)state;
    fixture_import(s, 0, 50000);
    for (int steps = 1; steps < 8; steps++) { /* begin, collect x3, insert x3: stop after each */
        for (int i = 0; i < steps && store_keys_wanted(s); i++)
            assert_int_equal(store_keys_step(s, &err), 0);
        store_close(s);
        r = open_reader();
        expect_found(r, "key-00049999", 12, 1, (const uint64_t[]){49999});
        reader_close(r);
        s = fixture_store(path, 64);
    }
    build_keys(s);
    store_close(s);
    r = open_reader();
    expect_found(r, "key-00000000", 12, 1, (const uint64_t[]){0});
    expect_found(r, "key-00049999", 12, 1, (const uint64_t[]){49999});
    expect_found(r, "key-00050000", 12, 0, NULL);
    reader_close(r);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void expect_refused(const char *at, int want, const char *words)
{
    struct reader *r = NULL;
    struct err err = {""};
    int rc = reader_open(at, false, &r, &err);

    if (rc != want || !strstr(err.text, words))
        fail_msg("%d \"%s\", wanted %d with \"%s\"", rc, err.text, want, words);
}

static void test_reader_refuses_what_is_no_store(void **state)
{
    char name[400];
    struct stat st;

    (void)state;
    expect_refused(path, -ENOENT, "no job store");
    assert_int_equal(mkdir(path, 0700), 0);
    expect_refused(path, -EINVAL, "no data.mdb");
    assert_int_equal(rmdir(path), 0);
    store_close(fixture_store(path, 8));
    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(truncate(name, st.st_size - 1), 0);
    expect_refused(path, -EBADMSG, "truncated");
    expect_refused(name, -ENOTDIR, "is a file");
}

/* -- damage -- */

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

/* Flip one bit of the only place where `text` is in the file. */
static void flip(const char *text, size_t within, int bit)
{
    size_t n, hits = 0;
    uint8_t *data = slurp(&n);

    for (size_t i = 0; i + strlen(text) <= n; i++)
        if (memcmp(data + i, text, strlen(text)) == 0) {
            data[i + within] ^= (uint8_t)(1 << bit);
            i += within + 1;
            hits++;
        }
    assert_true(hits > 0);
    spill(data, n);
    free(data);
}

static void test_reader_flipped_bit_of_a_record_is_named(void **state)
{
    struct store *s = fixture_store(path, 8);
    struct reader_row row;
    struct reader *r;
    struct err err = {""};
    int bad = 0, good = 0, rc;

    (void)state;
    fixture_import(s, 0, 24);
    for (uint32_t u = 0; u < 3; u++)
        fixture_commit_unit(s, u, 8 * (uint64_t)u, 8, 0);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
    flip("a caption of item 11", 3, 0);
    r = open_reader();
    while ((rc = reader_next(r, &row, &err)) != 0) {
        if (rc == -EBADMSG) {
            bad++;
            assert_int_equal(row.item, 11);
            assert_int_equal(row.unit, 1);
            assert_non_null(strstr(err.text, "item 11 (unit 1)"));
        } else {
            good++;
        }
    }
    assert_int_equal(bad, 1);
    assert_int_equal(good, 23);
    assert_int_equal(reader_get(r, 11, &row, &err), -EBADMSG);
    reader_close(r);
    assert_int_equal(fixture_problems(path, 0), 1);
}

static void test_reader_damaged_manifest_row_is_stepped_over(void **state)
{
    struct store *s = fixture_store(path, 8);
    struct reader_row row;
    struct reader *r;
    struct err err = {""};
    uint64_t seen = 0;
    int bad = 0, rc;

    (void)state;
    fixture_import(s, 0, 24);
    store_close(s);
    flip("key-00000009", 11, 1);
    r = open_reader();
    while ((rc = reader_next(r, &row, &err)) != 0) {
        if (rc == -EBADMSG) {
            bad++;
            assert_int_equal(row.unit, 1);
            assert_non_null(strstr(err.text, "unit 1"));
        } else {
            assert_true(row.item < 8 || row.item >= 16);
            seen++;
        }
        assert_true(bad < 3);
    }
    assert_int_equal(bad, 1);
    assert_int_equal(seen, 16);
    assert_int_equal(reader_get(r, 12, &row, &err), -EBADMSG);
    assert_int_equal(reader_get(r, 17, &row, &err), 0); /* bisection meets the damaged row first */
    reader_seek(r, 23);
    assert_int_equal(reader_next(r, &row, &err), 1);
    assert_int_equal(reader_next(r, &row, &err), 0);
    reader_close(r);
    assert_true(fixture_problems(path, 0) >= 1);
}

/* Any one bit flipped in any value: verify finds it, or the byte is in no row. Never a wrong row without a word. */
static void test_reader_no_flipped_bit_passes_as_good(void **state)
{
    struct store *s = fixture_store(path, 8);
    unsigned seed = (unsigned)time(NULL);
    size_t n, named = 0;
    uint8_t *data;

    (void)state;
    printf("seed %u\n", seed);
    fixture_import(s, 0, 64);
    for (uint32_t u = 0; u < 8; u++)
        fixture_commit_unit(s, u, 8 * (uint64_t)u, 8, 3);
    store_close(s);
    data = slurp(&n);
    for (int round = 0; round < 60; round++) {
        char text[64];
        unsigned item = (unsigned)rand_r(&seed) % 64, bit = (unsigned)rand_r(&seed) % 8;

        (void)snprintf(text, sizeof(text), round % 2 ? "a caption of item %u" : "key-%08u", item);
        flip(text, (unsigned)rand_r(&seed) % strlen(text), (int)bit);
        named += fixture_problems(path, 0) > 0;
        spill(data, n);
    }
    free(data);
    assert_int_equal(named, 60);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* -- with others -- */

/* Nobody has to want the words. */
static void test_reader_reports_an_end_and_damage_without_words(void **state)
{
    struct store *s = fixture_store(path, 8);
    struct reader_row row;
    struct reader *r;
    int n = 0, bad = 0, rc;

    (void)state;
    fixture_import(s, 0, 24);
    store_close(s);
    flip("key-00000009", 11, 1);
    r = open_reader();
    while ((rc = reader_next(r, &row, NULL)) != 0) {
        n += rc == 1;
        bad += rc == -EBADMSG;
        assert_true(bad < 3);
    }
    assert_int_equal(n, 16);
    assert_int_equal(bad, 1);
    reader_close(r);
}

static void test_reader_reads_while_a_broker_writes(void **state)
{
    enum { UNITS = 600 };
    struct store *s = fixture_store(path, 4);
    int status, rounds = 0;
    uint64_t last_done = 0;
    pid_t pid;
    struct err err;

    (void)state;
    fixture_import(s, 0, 4 * UNITS);
    store_close(s);
    pid = fork();
    if (pid == 0) {
        s = fixture_store(path, 4);
        for (uint32_t u = 0; u < UNITS; u++)
            fixture_commit_unit(s, (u * 7) % UNITS, 4 * (uint64_t)((u * 7) % UNITS), 4, 9);
        store_close(s);
        _exit(0);
    }
    for (bool running = true; running; rounds++) {
        struct stored_job_counters c;
        struct reader_row row;
        struct reader *r;
        int rc, in_unit = 0;

        running = waitpid(pid, &status, WNOHANG) == 0;
        assert_int_equal(fixture_problems(path, 1), 0);
        r = open_reader();
        while ((rc = reader_next(r, &row, &err)) > 0) {
            in_unit = row.item % 4 == 0 ? 0 : in_unit;
            in_unit += row.has_record;
            if (row.item % 4 == 3)
                assert_true(in_unit == 0 || in_unit == 4); /* all of a unit, or nothing */
        }
        assert_int_equal(rc, 0);
        assert_int_equal(reader_counters(r, &c, &err), 0);
        assert_true(c.n_done >= last_done);
        last_done = c.n_done;
        reader_close(r);
    }
    assert_int_equal(status, 0);
    assert_int_equal(last_done, 4 * UNITS);
    printf("%d rounds\n", rounds);
}

/* The other program of the next test. */
static int killed_reader(const char *at)
{
    struct reader *r;
    struct err err;

    if (reader_open(at, false, &r, &err) < 0 || reader_begin(r, &err) < 0)
        return 1;
    return raise(SIGKILL);
}

static int count_lines(const char *text, void *arg)
{
    (void)text;
    ++*(int *)arg;
    return 0;
}

static void test_reader_that_was_killed_pins_no_pages_for_long(void **state)
{
    struct store *s = fixture_store(path, 4);
    int status, before = 0, after = 0;
    pid_t pid;

    (void)state;
    fixture_import(s, 0, 400);
    store_close(s);
    s = fixture_store(path, 4);
    fixture_commit_unit(s, 0, 0, 4, 9);
    pid = fork();
    if (pid == 0) { /* LMDB must not see the parent's environment again */
        (void)execl("/proc/self/exe", "test_reader", "--killed-reader", path, (char *)NULL);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(mdb_reader_list(s->env.mdb, count_lines, &before) >= 0);
    for (uint32_t u = 1; u < 80; u++)
        fixture_commit_unit(s, u, 4 * (uint64_t)u, 4, 9);
    assert_true(mdb_reader_list(s->env.mdb, count_lines, &after) >= 0);
    assert_int_equal(after, before - 1);
    store_close(s);
}

static void test_reader_reads_from_a_read_only_filesystem(void **state)
{
    struct store *s;
    struct reader_row row;
    struct reader *r;
    char name[400];
    struct err err;

    (void)state;
    if (mount("tmpfs", dir, "tmpfs", 0, "size=20m") < 0)
        skip(); /* needs root */
    s = fixture_store(path, 8);
    fixture_import(s, 0, 8);
    store_close(s);
    (void)snprintf(name, sizeof(name), "%s/lock.mdb", path);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(mount("tmpfs", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=20m"), 0);
    r = open_reader();
    assert_int_equal(reader_get(r, 7, &row, &err), 0);
    reader_close(r);
    assert_int_equal(umount(dir), 0);
}

static void test_reader_without_a_lock_keeps_writers_out(void **state)
{
    const struct stored_job_meta meta = fixture_meta(8);
    const struct store_options o = {.create = true, .meta = &meta};
    struct store *s = fixture_store(path, 8);
    struct reader *r;
    int status, back[2];
    char name[400], byte;
    struct err err;
    pid_t pid;

    (void)state;
    if (geteuid() != 0) {
        store_close(s);
        skip(); /* changes user */
    }
    fixture_import(s, 0, 8);
    assert_int_equal(chmod(dir, 0755), 0);
    (void)snprintf(name, sizeof(name), "%s/lock.mdb", path);
    assert_int_equal(chmod(name, 0644), 0);
    assert_int_equal(pipe(back), 0);
    for (int writing = 1; writing >= 0; writing--) {
        pid = fork();
        if (pid == 0) { /* may read, may not write lock.mdb */
            int rc;

            if (setuid(65534) < 0)
                _exit(9);
            rc = reader_open(path, false, &r, &err);
            if (writing)
                _exit(rc == -EBUSY ? 0 : 1);
            (void)!write(back[1], rc == 0 ? "y" : "n", 1);
            (void)pause();
            _exit(0);
        }
        if (writing) {
            assert_int_equal(waitpid(pid, &status, 0), pid);
            assert_int_equal(status, 0);
            store_close(s);
        }
    }
    assert_int_equal(read(back[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(store_open(path, &o, &s, NULL, &err), -EBUSY);
    assert_int_equal(kill(pid, 9), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    store_close(fixture_store(path, 8));
    (void)close(back[0]);
    (void)close(back[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reader_joins_manifest_and_records_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_finds_keys_of_any_bytes_and_duplicates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_keys_interrupted_anywhere_are_rebuilt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_refuses_what_is_no_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_flipped_bit_of_a_record_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_damaged_manifest_row_is_stepped_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_no_flipped_bit_passes_as_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_reports_an_end_and_damage_without_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_reads_while_a_broker_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_that_was_killed_pins_no_pages_for_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_reads_from_a_read_only_filesystem, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_without_a_lock_keeps_writers_out, setup, teardown),
    };

    if (argc == 3 && strcmp(argv[1], "--killed-reader") == 0)
        return killed_reader(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
