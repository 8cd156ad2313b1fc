/* How much of the address space stores map, and what happens when data.mdb outgrows that. */
#include "store/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "broker/committer.h"
#include "tests/unit/completion.h"
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

enum { ROWS_AT_ONCE = 100 };

/* Some MiB of rows with long fields. */
static void append_portion(struct buf *rows)
{
    enum { FIELDS = 3 };
    static uint8_t value[ROW_MAX_FIELD_BYTES];
    struct row_field fields[FIELDS];
    struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1, .n_fields = FIELDS, .fields = fields};

    memset(value, 'v', sizeof(value));
    for (int i = 0; i < FIELDS; i++)
        fields[i] = (struct row_field){(const uint8_t *)"caption", value, 7, sizeof(value)};
    for (int i = 0; i < ROWS_AT_ONCE; i++)
        assert_int_equal(row_item_append(rows, &item), 0);
}

/* Append n such portions. */
static int put_portions(struct store *s, int n, struct err *err)
{
    struct buf rows;
    int rc = 0;

    buf_init(&rows, 0);
    append_portion(&rows);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = store_append_rows(s, rows.data, rows.size_bytes, ROWS_AT_ONCE, err);
    buf_release(&rows);
    return rc;
}

static int count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[600];
    int n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, "data.mdb") != NULL;
    (void)fclose(f);
    return n;
}

static void test_map_three_hundred_stores_are_open_at_once(void **state)
{
    enum { STORES = 300 };
    struct store *stores[STORES];
    struct rlimit limit;
    char name[400];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 0; i < STORES; i++) {
        (void)snprintf(name, sizeof(name), "%s/%d.lmdb", dir, i);
        stores[i] = fixture_store(name, 4);
    }
    for (int i = 0; i < STORES; i += 50) {
        fixture_import(stores[i], 0, 8);
        fixture_commit_unit(stores[i], 1, 4, 4, 0);
    }
    assert_int_equal(count_maps(), STORES);
    for (int i = 0; i < STORES; i++)
        store_close(stores[i]);
    assert_int_equal(count_maps(), 0);
}

static void test_map_grows_for_a_transaction_that_does_not_fit(void **state)
{
    struct store *s = fixture_store(path, 2);
    struct err err = {""};

    (void)state;
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(put_portions(s, 16, &err), -ENOBUFS);
    store_abort(s);
    assert_int_equal(store_counters(s)->n_items, 0);
    assert_int_equal(store_begin(s, &err), 0);
    if (put_portions(s, 16, &err) < 0 || store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(store_counters(s)->n_items, 16 * ROWS_AT_ONCE);
    store_close(s);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static struct committer_request *rows_request(uint64_t tag)
{
    struct committer_request *r = committer_request_new(COMMITTER_ROWS, 1, tag);

    assert_non_null(r);
    append_portion(&r->rows);
    r->n_rows = ROWS_AT_ONCE;
    return r;
}

static atomic_bool all_posted;

static int wait_until_all_are_posted(void *arg)
{
    (void)arg;
    while (!atomic_load(&all_posted))
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return 0;
}

/* Requests of one group, of which none is answered before all are durable. */
static void test_map_group_that_does_not_fit_is_committed_all_the_same(void **state)
{
    enum { REQUESTS = 16 };
    const struct store_seam seam = {.before_commit = wait_until_all_are_posted}; /* while the store is made */
    const struct committer_conf conf = {.group_bytes = UINT64_MAX,
                                        .group_ms = 100000,
                                        .group_requests = REQUESTS,
                                        .max_bytes = (uint64_t)1 << 30,
                                        .seam = &seam};
    struct committer_request *r = committer_request_new(COMMITTER_OPEN, 1, 1);
    struct committer_completion *done;
    struct committer *c = NULL;
    struct err err;

    (void)state;
    if (committer_start(&conf, &c, &err) < 0)
        fail_msg("%s", err.text);
    r->path = strdup(path);
    r->create = true;
    r->meta = malloc(sizeof(*r->meta));
    *r->meta = fixture_meta(2);
    assert_int_equal(committer_post(c, &r), 0);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        r = rows_request(2 + i);
        assert_int_equal(committer_post(c, &r), 0);
    }
    atomic_store(&all_posted, true);
    for (uint32_t i = 0; i < 1 + REQUESTS; i++) {
        done = completion_wait(c, 20000);
        assert_non_null(done);
        assert_string_equal(done->text, "");
        assert_int_equal(done->rc, 0);
        assert_int_equal(done->tag, 1 + i);
        if (i > 0)
            assert_int_equal(done->counters.n_items, REQUESTS * ROWS_AT_ONCE);
        committer_completion_free(done);
    }
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* -- others that read meanwhile -- */

static atomic_bool reading;

static void *read_in_a_thread(void *arg)
{
    struct store *s = arg;
    uint64_t n = 0;
    struct buf rows;
    struct err err;

    buf_init(&rows, 0);
    for (uint32_t unit = 0; atomic_load(&reading); n++) {
        struct store_pending found;
        uint32_t next, n_rows;
        size_t n_found;

        if (store_pending(s, unit, 1, &found, &n_found, &next, &err) < 0)
            fail_msg("%s", err.text);
        buf_clear(&rows);
        if (n_found && store_unit_items(s, found.unit, 0, 0, &rows, &n_rows, NULL, &err) < 0)
            fail_msg("%s", err.text);
        unit = n_found ? next : 0;
    }
    buf_release(&rows);
    printf("%llu reads\n", (unsigned long long)n);
    return NULL;
}

/* Reads the last item again and again, until it is `n_items`th. One reader from beginning to end. */
static void read_in_a_process(uint64_t n_items, int ready)
{
    struct stored_job_counters c = {0};
    struct reader_row row;
    struct reader *r;
    struct err err = {""};

    if (reader_open(path, false, &r, &err) < 0 || write(ready, "r", 1) != 1)
        _exit(1);
    while (c.n_items < n_items)
        if (reader_counters(r, &c, &err) < 0 || reader_get(r, c.n_items - 1, &row, &err) < 0) {
            (void)fprintf(stderr, "the reader: %s\n", err.text);
            _exit(2);
        }
    reader_close(r);
    _exit(0);
}

static void test_map_grows_under_readers(void **state)
{
    enum { COMMITS = 18 };
    struct store *s = fixture_store(path, 2);
    pthread_t thread;
    int status, ready[2];
    struct err err = {""};
    char byte;
    pid_t pid;

    (void)state;
    if (store_begin(s, &err) < 0 || put_portions(s, 1, &err) < 0 || store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    store_close(s);
    assert_int_equal(pipe(ready), 0);
    pid = fork(); /* no store is open across it */
    if (pid == 0)
        read_in_a_process((uint64_t)ROWS_AT_ONCE * (1 + COMMITS), ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    s = fixture_store(path, 2);
    atomic_store(&reading, true);
    assert_int_equal(pthread_create(&thread, NULL, read_in_a_thread, s), 0);
    for (int i = 0; i < COMMITS; i++)
        if (store_begin(s, &err) < 0 || put_portions(s, 1, &err) < 0 || store_commit(s, &err) < 0)
            fail_msg("%s", err.text);
    atomic_store(&reading, false);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
    store_close(s);
}

/* Of this process, now. */
static rlim_t address_space_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu", &pages), 1);
    (void)fclose(f);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void test_map_that_may_not_grow_is_an_error_with_a_cure(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;
    skip(); /* the sanitizer's shadow needs more */
#else
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        struct rlimit limit = {.rlim_max = RLIM_INFINITY};
        struct store *s;
        struct err err = {""};
        int rc = 0;

        limit.rlim_cur = address_space_bytes() + ((rlim_t)100 << 20);
        if (setrlimit(RLIMIT_AS, &limit) < 0)
            _exit(1);
        s = fixture_store(path, 2);
        for (int i = 0; rc == 0 && i < 100; i++) {
            rc = store_begin(s, &err);
            if (rc == 0)
                rc = put_portions(s, 1, &err);
            if (rc == -ENOBUFS) {
                store_abort(s);
                rc = store_begin(s, &err);
            } else if (rc == 0) {
                rc = store_commit(s, &err);
            }
        }
        if (rc != -ENOSPC || !strstr(err.text, "ulimit -v") || store_counters(s)->n_items < ROWS_AT_ONCE)
            _exit(2);
        store_close(s);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(fixture_problems(path, 1), 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_map_three_hundred_stores_are_open_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_grows_for_a_transaction_that_does_not_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_group_that_does_not_fit_is_committed_all_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_grows_under_readers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_that_may_not_grow_is_an_error_with_a_cure, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
