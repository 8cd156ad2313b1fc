#include "store/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
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

static int try_open(const char *at, bool create, struct err *err)
{
    const struct stored_job_meta meta = fixture_meta(64);
    const struct store_options o = {.create = create, .meta = &meta};
    struct store *s = NULL;
    int rc = store_open(at, &o, &s, NULL, err);

    store_close(s);
    return rc;
}

static void test_store_comes_back_as_it_was_closed(void **state)
{
    struct store *s = fixture_store(path, 64);
    const struct stored_job_counters *c;
    struct err err;

    (void)state;
    fixture_import(s, 0, 200); /* 64 64 64 8 */
    fixture_commit_unit(s, 3, 192, 8, 0);
    fixture_commit_unit(s, 0, 0, 64, 10);
    store_close(s);
    assert_int_equal(try_open(path, false, &err), 0);
    s = fixture_store(path, 7); /* there is one: its own unit size stands */
    c = store_counters(s);
    assert_int_equal(c->n_items, 200);
    assert_int_equal(c->n_units, 4);
    assert_true(c->sealed);
    assert_int_equal(c->n_done, 72);
    assert_int_equal(c->n_failed, 7);
    assert_int_equal(c->n_units_done, 2);
    assert_int_equal(store_info(s)->unit_items, 64);
    assert_string_equal(store_info(s)->source, "photos/");
    assert_int_equal(store_info(s)->recipe.decode.max_new_tokens, 20);
    assert_true(store_info(s)->created_ms > 0);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_store_rows_appended_later_become_new_units(void **state)
{
    struct store *s = fixture_store(path, 64);
    struct store_pending p[8];
    uint32_t next, n_rows;
    size_t n;
    struct err err;
    struct buf items;

    (void)state;
    fixture_import(s, 0, 70);
    fixture_import(s, 70, 3);
    assert_int_equal(store_counters(s)->n_units, 3);
    assert_int_equal(store_pending(s, 0, 8, p, &n, &next, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(p[1].first_item, 64);
    assert_int_equal(p[1].n_items, 6);
    assert_int_equal(p[2].first_item, 70);
    assert_int_equal(p[2].n_items, 3);
    assert_int_equal(store_pending(s, next, 8, p, &n, &next, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(next, 3);

    buf_init(&items, 0);
    assert_int_equal(store_unit_items(s, 2, 1, 0, &items, &n_rows, NULL, &err), 0);
    assert_int_equal(n_rows, 2);
    struct row_cursor c;
    struct row_item item;
    row_cursor_init(&c, &(struct row_frame){.data = items.data, .size_bytes = items.size_bytes}, 1, n_rows);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
    assert_int_equal(item.item, 71);
    assert_memory_equal(item.key, "key-00000071", 12);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 0);
    row_cursor_release(&c);
    assert_int_equal(store_unit_items(s, 2, 2, 2, &items, &n_rows, NULL, &err), -EINVAL);
    assert_int_equal(store_unit_items(s, 3, 0, 0, &items, &n_rows, NULL, &err), -ENOENT);
    buf_release(&items);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* Columns of a list count as keys and paths do: a unit's Work message must stay small. */
static void test_store_unit_of_long_fields_is_cut_short(void **state)
{
    enum { N = 40, FIELDS = 12 };
    static uint8_t value[ROW_MAX_FIELD_BYTES];
    struct row_field fields[FIELDS];
    struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1, .n_fields = FIELDS, .fields = fields};
    struct store *s = fixture_store(path, 1024);
    uint32_t seen = 0, n_rows;
    struct buf rows;
    struct err err;

    (void)state;
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < FIELDS; i++)
        fields[i] = (struct row_field){(const uint8_t *)"caption", value, 7, sizeof(value)};
    buf_init(&rows, 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(row_item_append(&rows, &item), 0);
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, N, &err), 0);
    assert_int_equal(store_seal(s, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
    assert_in_range(store_counters(s)->n_units, 2, N / 2);
    for (uint32_t unit = 0; unit < store_counters(s)->n_units; unit++, seen += n_rows) {
        buf_clear(&rows);
        rows.max_bytes = (size_t)6 << 20;
        assert_int_equal(store_unit_items(s, unit, 0, 0, &rows, &n_rows, NULL, &err), 0);
    }
    assert_int_equal(seen, N);
    buf_release(&rows);
    store_close(s);
}

static void test_store_bad_rows_change_nothing(void **state)
{
    struct store *s = fixture_store(path, 4);
    struct buf rows;
    struct err err = {""};

    (void)state;
    buf_init(&rows, 0);
    fixture_rows(&rows, 0, 10);
    assert_int_equal(store_begin(s, &err), 0);
    assert_true(store_append_rows(s, rows.data, rows.size_bytes - 1, 10, &err) < 0);
    assert_true(store_append_rows(s, rows.data, rows.size_bytes, 9, &err) < 0);
    assert_true(store_append_rows(s, rows.data, rows.size_bytes, 11, &err) < 0);
    assert_int_equal(store_next_item(s), 0);
    assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, 10, &err), 0);
    assert_int_equal(store_next_item(s), 10);
    store_abort(s);
    assert_int_equal(store_next_item(s), 0);
    assert_int_equal(store_counters(s)->n_units, 0);
    buf_release(&rows);
    store_close(s);
}

static void test_store_unit_commits_once_and_whole(void **state)
{
    struct store *s = fixture_store(path, 8);
    struct fixture_records r;
    struct store_records records;
    struct err err;

    (void)state;
    fixture_import(s, 0, 16);
    fixture_commit_unit(s, 1, 8, 8, 0);
    fixture_records_init(&r, 0, 8, 0);
    records = (struct store_records){.data = r.bytes.data, .ends = r.ends, .n = 8};
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_put_unit(s, 1, &records, &err), -EALREADY);
    assert_int_equal(store_put_attempts(s, 1, 3, NULL, 0, &err), -EALREADY);
    assert_int_equal(store_put_unit(s, 2, &records, &err), -ENOENT);
    assert_int_equal(store_put_attempts(s, 2, 1, NULL, 0, &err), -ENOENT);
    records.n = 7;
    assert_int_equal(store_put_unit(s, 0, &records, &err), -EINVAL);
    records.n = 8;
    r.bytes.data[3] ^= 1; /* a record that does not match its checksum is not let in */
    assert_int_equal(store_put_unit(s, 0, &records, &err), -EINVAL);
    r.bytes.data[3] ^= 1;
    assert_int_equal(store_put_attempts(s, 0, 2, NULL, 0, &err), 0);
    assert_int_equal(store_put_unit(s, 0, &records, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
    assert_int_equal(store_counters(s)->n_done, 16);
    fixture_records_release(&r);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_store_remembers_into_which_parts_a_unit_is_cut(void **state)
{
    static const uint8_t parts[8] = {1, 0, 0, 0, 1, 3, 0, 0};
    struct store *s = fixture_store(path, 8);
    struct store_pending found[2];
    uint32_t next;
    struct err err;
    size_t n;

    (void)state;
    fixture_import(s, 0, 16);
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_put_attempts(s, 1, 4, parts, 8, &err), 0);
    assert_int_equal(store_put_attempts(s, 0, 4, parts, STORED_MAX_PARTS + 1, &err), -EINVAL);
    assert_int_equal(store_commit(s, &err), 0);
    assert_int_equal(store_pending(s, 0, 2, found, &n, &next, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(found[0].parts[0], 0);
    assert_int_equal(found[1].attempts, 4);
    assert_memory_equal(found[1].parts, parts, 8);
    fixture_commit_unit(s, 1, 8, 8, 0); /* done: that is over */
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* -- what is refused, and how it is said -- */

static void refuse(const char *at, bool create, int want, const char *words)
{
    struct err err = {"(nothing)"};
    int rc = try_open(at, create, &err);

    if (rc != want || !strstr(err.text, words))
        fail_msg("%s: %d \"%s\", wanted %d with \"%s\"", at, rc, err.text, want, words);
}

static void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_store_refuses_what_is_no_store(void **state)
{
    char name[400];
    uint8_t garbage[20000];

    (void)state;
    refuse(path, false, -ENOENT, "no job store");
    write_file(path, "hello", 5);
    refuse(path, true, -ENOTDIR, "is a file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    refuse(path, false, -EINVAL, "no data.mdb");
    (void)snprintf(name, sizeof(name), "%s/holiday.jpg", path);
    write_file(name, "x", 1);
    refuse(path, true, -EINVAL, "holiday.jpg");
    assert_int_equal(unlink(name), 0);
    memset(garbage, 0x55, sizeof(garbage));
    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    write_file(name, garbage, sizeof(garbage));
    refuse(path, true, -EBADMSG, "damaged or not an LMDB file");
    refuse("/proc/blipline-store", true, -ENOENT, "cannot create");
}

static void rewrite_meta(uint32_t version)
{
    /* the version is the first field of the value: tag 0x08, varint; the CRC is made anew by the encoder */
    struct stored_job_meta meta = fixture_meta(64);
    struct store *s = fixture_store(path, 64);
    struct buf old, new;
    char name[400];
    FILE *f;
    uint8_t *all;
    long size;
    bool done = false;

    meta.created_ms = store_info(s)->created_ms;
    meta.schema_version = STORED_SCHEMA_VERSION;
    store_close(s);
    buf_init(&old, 0);
    buf_init(&new, 0);
    assert_int_equal(stored_job_meta_encode(&meta, &old), 0);
    meta.schema_version = version;
    assert_int_equal(stored_job_meta_encode(&meta, &new), 0);
    assert_int_equal(old.size_bytes, new.size_bytes);
    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    f = fopen(name, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    all = malloc((size_t)size);
    assert_non_null(all);
    rewind(f);
    assert_int_equal(fread(all, 1, (size_t)size, f), size);
    for (long i = 0; i + (long)old.size_bytes <= size; i++)
        if (memcmp(all + i, old.data, old.size_bytes) == 0) {
            memcpy(all + i, new.data, new.size_bytes);
            done = true;
        }
    assert_true(done);
    rewind(f);
    assert_int_equal(fwrite(all, 1, (size_t)size, f), size);
    assert_int_equal(fclose(f), 0);
    free(all);
    buf_release(&old);
    buf_release(&new);
}

static void test_store_refuses_another_version_by_number(void **state)
{
    (void)state;
    rewrite_meta(7);
    refuse(path, true, -EPROTONOSUPPORT, "schema version 7; this program knows versions 2 to 3");
}

static void put_source(struct store *s, const char *root, int expect)
{
    struct row_source source = {.number = 1, .name = "p", .passed = {{"hidden", 3}}, .n_passed = 1};
    struct err err = {""};
    struct buf rows;

    buf_init(&rows, 0);
    (void)msg_text_set(source.root, sizeof(source.root), root);
    assert_int_equal(row_source_append(&rows, &source), 0);
    source.number = 3; /* there is no 2 */
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_put_sources(s, rows.data, rows.size_bytes, 1, &err), expect);
    buf_clear(&rows);
    assert_int_equal(row_source_append(&rows, &source), 0);
    assert_int_equal(store_put_sources(s, rows.data, rows.size_bytes, 1, &err), -EINVAL);
    buf_release(&rows);
    assert_int_equal(store_commit(s, &err), 0);
}

/* A store of the version before knows no sources: it goes on, and is one of this version from the first source on. */
static void test_store_of_version_2_goes_on(void **state)
{
    struct row_item item = {
        .key = (const uint8_t *)"k", .key_bytes = 1, .path = (const uint8_t *)"k.jpg", .path_bytes = 5, .source = 1};
    struct err err = {""};
    struct row_cursor c;
    struct buf rows, work;
    struct store *s;
    uint32_t n;

    (void)state;
    rewrite_meta(2);
    s = fixture_store(path, 64);
    assert_int_equal(store_info(s)->schema_version, 2);
    buf_init(&rows, 0);
    buf_init(&work, 0);
    assert_int_equal(row_item_append(&rows, &item), 0);
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, 1, &err), -EINVAL); /* its source is not there */
    store_abort(s);
    put_source(s, "/pictures", 0);
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, 1, &err), 0);
    assert_int_equal(store_seal(s, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
    put_source(s, "/elsewhere", 0);
    assert_int_equal(store_unit_items(s, 0, 0, 0, &work, &n, NULL, &err), 0);
    row_cursor_init(&c, &(struct row_frame){work.data, work.size_bytes}, 1, n);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
    assert_string_equal((const char *)item.path, "/elsewhere/k.jpg");
    row_cursor_release(&c);
    store_close(s);
    s = fixture_store(path, 64);
    assert_int_equal(store_info(s)->schema_version, 3);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
    buf_release(&rows);
    buf_release(&work);
}

static void test_store_refuses_a_truncated_file(void **state)
{
    struct store *s = fixture_store(path, 64);
    struct stat st;
    char name[400];

    (void)state;
    fixture_import(s, 0, 5000);
    store_close(s);
    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(truncate(name, st.st_size - 4096), 0);
    refuse(path, false, -EBADMSG, "truncated");
    assert_int_equal(truncate(name, st.st_size / 2), 0);
    refuse(path, true, -EBADMSG, "truncated");
    assert_int_equal(truncate(name, 4096), 0);
    refuse(path, false, -EINVAL, "never finished");
}

static void test_store_names_the_process_that_owns_it(void **state)
{
    char words[64];
    int ready[2], go[2], status;
    char byte;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid = fork();
    if (pid == 0) {
        struct store *s = fixture_store(path, 64);

        (void)!write(ready[1], "x", 1);
        (void)!read(go[0], &byte, 1);
        store_close(s);
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)snprintf(words, sizeof(words), "in use by process %d", (int)pid);
    refuse(path, true, -EBUSY, words);
    assert_int_equal(write(go[1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    store_close(fixture_store(path, 64));
    for (int i = 0; i < 2; i++) {
        (void)close(ready[i]);
        (void)close(go[i]);
    }
}

static void test_store_adopts_a_creation_that_crashed(void **state)
{
    char name[400];

    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(name, sizeof(name), "%s/owner", path);
    write_file(name, "1\n", 2);
    (void)snprintf(name, sizeof(name), "%s/data.mdb", path);
    write_file(name, "", 0);
    refuse(path, false, -EINVAL, "never finished");
    store_close(fixture_store(path, 64)); /* an empty file */
    assert_int_equal(truncate(name, 100), 0);
    store_close(fixture_store(path, 64)); /* half a page */
    assert_int_equal(truncate(name, 0), 0);
    assert_int_equal(truncate(name, 8192), 0);
    store_close(fixture_store(path, 64)); /* two pages of zeroes */
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_store_creation_survives_kill_at_any_moment(void **state)
{
    unsigned seed = (unsigned)time(NULL);

    (void)state;
    printf("seed %u\n", seed);
    for (int round = 0; round < 40; round++) {
        struct timespec pause = {.tv_nsec = rand_r(&seed) % 3000000};
        pid_t pid = fork();

        if (pid == 0) {
            for (;;)
                store_close(fixture_store(path, 64));
        }
        (void)nanosleep(&pause, NULL);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        store_close(fixture_store(path, 64));
        if (round % 2) {
            char command[400];

            (void)snprintf(command, sizeof(command), "rm -r %s", path);
            assert_int_equal(system(command), 0);
        }
    }
}

static void test_store_works_under_an_address_limit(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;
    skip(); /* the sanitizer's shadow needs more */
#else
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = (rlim_t)1 << 30, .rlim_max = (rlim_t)1 << 30};
        struct store *s;

        if (setrlimit(RLIMIT_AS, &limit) < 0)
            _exit(1);
        s = fixture_store(path, 64);
        fixture_import(s, 0, 10000);
        store_close(s);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
#endif
}

/* -- a full disk -- */

struct disk {
    int fail; /* negative errno of the next commits */
    uint64_t free_bytes;
};

static int disk_commit(void *arg)
{
    return ((const struct disk *)arg)->fail;
}

static int disk_free(void *arg, uint64_t *ret)
{
    *ret = ((const struct disk *)arg)->free_bytes;
    return 0;
}

static void test_store_failed_commit_undoes_its_group_only(void **state)
{
    struct disk disk = {.free_bytes = (uint64_t)1 << 30};
    const struct store_seam seam = {.before_commit = disk_commit, .free_bytes = disk_free, .arg = &disk};
    const struct stored_job_meta meta = fixture_meta(8);
    const struct store_options o = {.create = true, .meta = &meta, .seam = &seam};
    struct fixture_records r;
    struct store_records records;
    struct store *s;
    struct buf rows;
    struct err err;

    (void)state;
    assert_int_equal(store_open(path, &o, &s, NULL, &err), 0);
    fixture_import(s, 0, 16);
    fixture_records_init(&r, 0, 8, 0);
    buf_init(&rows, 0);
    fixture_rows(&rows, 16, 11);
    records = (struct store_records){.data = r.bytes.data, .ends = r.ends, .n = 8};
    for (int kind = 0; kind < 3; kind++) {
        disk.fail = kind == 0 ? -ENOSPC : kind == 1 ? -EIO : 0;
        disk.free_bytes = kind ? 1000 : (uint64_t)1 << 30;
        assert_int_equal(store_begin(s, &err), 0);
        assert_int_equal(store_put_unit(s, 0, &records, &err), 0);
        assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, 11, &err), 0);
        assert_int_equal(store_next_item(s), 27);
        assert_int_equal(store_commit(s, &err), -ENOSPC);
        assert_non_null(strstr(err.text, "disk full: "));
        assert_non_null(strstr(err.text, path));
        assert_false(store_in_txn(s));
        assert_int_equal(store_counters(s)->n_done, 0);
        assert_int_equal(store_next_item(s), 16);
        assert_true(store_counters(s)->sealed);
    }
    disk = (struct disk){.fail = -EIO, .free_bytes = (uint64_t)1 << 30};
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_put_unit(s, 0, &records, &err), 0);
    assert_int_equal(store_commit(s, &err), -EIO); /* room enough: a broken disk */
    disk.fail = 0;
    fixture_commit_unit(s, 0, 0, 8, 0); /* there is room again: the same unit, once */
    assert_int_equal(store_counters(s)->n_done, 8);
    buf_release(&rows);
    fixture_records_release(&r);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_store_full_filesystem_loses_nothing(void **state)
{
    char ballast[400], command[500];
    struct store *s;
    struct buf rows;
    uint64_t acked = 0;
    struct err err;
    int rc;

    (void)state;
    if (mount("tmpfs", dir, "tmpfs", 0, "size=20m") < 0)
        skip(); /* needs root */
    (void)snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
    (void)snprintf(command, sizeof(command), "head -c 6000000 /dev/zero > %s", ballast);
    assert_int_equal(system(command), 0);
    s = fixture_store(path, 64);
    for (;;) {
        buf_init(&rows, 0);
        fixture_rows(&rows, acked, 6400);
        rc = store_begin(s, &err);
        if (rc == 0)
            rc = store_append_rows(s, rows.data, rows.size_bytes, 6400, &err);
        if (rc == 0)
            rc = store_commit(s, &err);
        if (rc < 0)
            break;
        buf_release(&rows);
        acked += 6400;
        assert_true(acked < 10000000);
    }
    assert_int_equal(rc, -ENOSPC);
    assert_non_null(strstr(err.text, "disk full: "));
    assert_true(acked > 0);
    assert_int_equal(store_counters(s)->n_items, acked);
    assert_int_equal(unlink(ballast), 0); /* room again: the same rows, in the same store */
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_append_rows(s, rows.data, rows.size_bytes, 6400, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
    assert_int_equal(store_counters(s)->n_items, acked + 6400);
    buf_release(&rows);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
    assert_int_equal(umount(dir), 0);
}

/* -- many -- */

static void test_store_pending_walks_a_hundred_thousand_units_flat(void **state)
{
    enum { UNITS = 100000 };
    struct store *s = fixture_store(path, 1);
    struct store_pending p[64];
    uint32_t next = 0, seen = 0, before;
    int64_t worst_ns = 0, start = clock_mono_ns();
    size_t n;
    struct err err;

    (void)state;
    fixture_import(s, 0, UNITS);
    assert_int_equal(store_begin(s, &err), 0);
    for (uint32_t unit = 0; unit < 30000; unit++) { /* a long run of done units, and then each third */
        struct fixture_records r;
        uint32_t u = unit < 15000 ? unit : 15000 + 3 * (unit - 15000);

        fixture_records_init(&r, u, 1, 0);
        assert_int_equal(
            store_put_unit(s, u, &(struct store_records){.data = r.bytes.data, .ends = r.ends, .n = 1}, &err), 0);
        fixture_records_release(&r);
    }
    assert_int_equal(store_commit(s, &err), 0);
    printf("import and results: %lld ms\n", (long long)(clock_mono_ns() - start) / 1000000);
    start = clock_mono_ns();
    do {
        int64_t t = clock_mono_ns();

        before = next;
        assert_int_equal(store_pending(s, next, 64, p, &n, &next, &err), 0);
        t = clock_mono_ns() - t;
        worst_ns = t > worst_ns ? t : worst_ns;
        for (size_t i = 0; i < n; i++) {
            uint32_t u = p[i].unit;

            assert_true(u >= 15000 && (u >= 60000 || (u - 15000) % 3 != 0));
            assert_int_equal(p[i].first_item, u);
            assert_int_equal(p[i].n_items, 1);
        }
        seen += (uint32_t)n;
    } while (next != before);
    assert_int_equal(seen, UNITS - 30000);
    printf("pending: %lld us for all, worst call %lld us\n", (long long)(clock_mono_ns() - start) / 1000,
           (long long)worst_ns / 1000);
    store_close(s);
}

/* A child commits unit after unit and says so; it is killed at a random moment; what it said must be there. */
static void test_store_kill_loses_nothing_acknowledged(void **state)
{
    enum { UNITS = 3000, ROUNDS = 12 };
    unsigned seed = (unsigned)time(NULL);
    struct store *s = fixture_store(path, 2);
    uint32_t unit = 0;
    struct err err;

    (void)state;
    printf("seed %u\n", seed);
    fixture_import(s, 0, 2 * UNITS);
    store_close(s);
    for (int round = 0; round < ROUNDS && unit < UNITS; round++) {
        struct timespec pause = {.tv_nsec = 1000000 + rand_r(&seed) % 40000000};
        uint32_t acked = unit, got;
        int acks[2];
        pid_t pid;

        assert_int_equal(pipe(acks), 0);
        pid = fork();
        if (pid == 0) {
            (void)close(acks[0]);
            s = fixture_store(path, 2);
            for (uint32_t u = unit; u < UNITS; u++) {
                fixture_commit_unit(s, u, 2 * (uint64_t)u, 2, 5);
                (void)!write(acks[1], &u, sizeof(u));
            }
            _exit(0);
        }
        (void)close(acks[1]);
        (void)nanosleep(&pause, NULL);
        (void)kill(pid, SIGKILL);
        while (read(acks[0], &got, sizeof(got)) == sizeof(got))
            acked = got + 1;
        (void)close(acks[0]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        s = fixture_store(path, 2);
        unit = store_counters(s)->n_units_done;
        assert_true(unit == acked || unit == acked + 1); /* one may be durable and not yet said */
        assert_int_equal(store_counters(s)->n_done, 2 * (uint64_t)unit);
        store_close(s);
        assert_int_equal(fixture_problems(path, 1), 0);
    }
    printf("%u units committed in %d rounds\n", unit, ROUNDS);
    assert_true(unit > 0);
    (void)err;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_store_comes_back_as_it_was_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_rows_appended_later_become_new_units, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_unit_of_long_fields_is_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_bad_rows_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_unit_commits_once_and_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_remembers_into_which_parts_a_unit_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_refuses_what_is_no_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_refuses_another_version_by_number, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_of_version_2_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_refuses_a_truncated_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_names_the_process_that_owns_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_adopts_a_creation_that_crashed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_creation_survives_kill_at_any_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_works_under_an_address_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_failed_commit_undoes_its_group_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_full_filesystem_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_pending_walks_a_hundred_thousand_units_flat, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_kill_loses_nothing_acknowledged, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
