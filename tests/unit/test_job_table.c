/* The job table, and what job_table_open makes of a creation that was cut off after each of its steps. */
#include "store/job_table.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/folder.h"
#include "store/store.h"
#include "tests/unit/store_fixture.h"

static char *dir, state_dir[300];

static int setup(void **state)
{
    (void)state;
    dir = fixture_dir();
    (void)snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_dir_remove(dir);
    return 0;
}

static struct job_table *open_table(struct job_table_found *found)
{
    struct job_table *t = NULL;
    struct err err;

    if (job_table_open(state_dir, false, &t, found, &err) < 0)
        fail_msg("%s", err.text);
    return t;
}

static struct stored_job_entry entry_of(uint64_t job)
{
    struct stored_job_entry e = {.job = job,
                                 .has_token = true,
                                 .token = "0123456789abcde",
                                 .name = "holiday",
                                 .owner = "alice",
                                 .recipe = "caption",
                                 .priority = 200,
                                 .wanted = STORED_WANTED_PAUSED,
                                 .max_failures = 32,
                                 .max_failed_per_mille = 5,
                                 .created_ms = 1700000000000,
                                 .ended_ms = 1700000000001,
                                 .text = "why",
                                 .n_items = 9,
                                 .n_done = 5,
                                 .n_failed = 2,
                                 .n_again = 1,
                                 .retrying = true,
                                 .n_retry_codes = 2,
                                 .retry_codes = {"missing", "too_large"},
                                 .sealed = true};

    return e;
}

static void test_job_table_keeps_rows_in_order(void **state)
{
    const uint64_t jobs[] = {7, 2, 1, 300};
    struct stored_job_entry e, want;
    struct job_table_found found;
    struct job_table *t = open_table(&found);
    uint64_t after = 0;
    struct err err;

    (void)state;
    assert_int_equal(job_table_last(t), 0);
    assert_int_equal(job_table_next(t, 0, &e, &err), 0);
    for (size_t i = 0; i < 4; i++) {
        e = entry_of(jobs[i]);
        assert_int_equal(job_table_put(t, &e, &err), 0);
    }
    job_table_close(t);
    t = open_table(&found);
    assert_int_equal(found.n_rows, 4);
    assert_int_equal(found.n_missing, 4); /* none has a store */
    assert_int_equal(job_table_last(t), 300);
    for (size_t i = 0; i < 4; i++) {
        want = entry_of((const uint64_t[]){1, 2, 7, 300}[i]);
        assert_int_equal(job_table_next(t, after, &e, &err), 1);
        assert_non_null(strstr(e.text, "is missing"));
        memcpy(e.text, want.text, sizeof(e.text));
        assert_int_equal(e.job, want.job);
        assert_memory_equal(e.token, want.token, sizeof(e.token));
        assert_string_equal(e.name, want.name);
        assert_string_equal(e.owner, want.owner);
        assert_string_equal(e.recipe, want.recipe);
        assert_true(e.has_token && e.priority == want.priority && e.wanted == want.wanted);
        assert_true(e.max_failures == want.max_failures && e.max_failed_per_mille == want.max_failed_per_mille);
        assert_true(e.created_ms == want.created_ms && e.ended_ms == want.ended_ms);
        assert_true(e.n_items == 9 && e.n_done == 5 && e.n_failed == 2 && e.sealed);
        after = e.job;
    }
    assert_int_equal(job_table_next(t, after, &e, &err), 0);
    assert_int_equal(job_table_next(t, UINT64_MAX, &e, &err), 0);
    job_table_close(t);
}

static void test_job_table_has_one_owner(void **state)
{
    struct job_table_found found;
    struct job_table *t = open_table(&found), *second = NULL;
    struct err err;

    (void)state;
    assert_int_equal(job_table_open(state_dir, false, &second, &found, &err), -EBUSY);
    job_table_close(t);
}

/* As the broker makes a job; the process ends after `steps` steps. */
static void create(uint64_t job, int steps)
{
    struct stored_job_entry e = entry_of(job);
    struct stored_job_meta meta = fixture_meta(4);
    struct store_options options = {.create = true, .meta = &meta};
    struct job_table_found found;
    struct store *s = NULL;
    struct job_table *t;
    struct err err;
    char path[PATH_MAX];
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    meta.has_token = true;
    memcpy(meta.token, e.token, sizeof(meta.token));
    (void)strcpy(meta.name, e.name);
    (void)strcpy(meta.owner, e.owner);
    if (pid == 0) {
        if (job_table_open(state_dir, false, &t, &found, &err) < 0 || job_table_store_path(t, job, path, &err) < 0)
            _exit(1);
        if (steps == 1 && mkdir(path, 0700) < 0)
            _exit(1);
        if (steps >= 2 && store_open(path, &options, &s, NULL, &err) < 0)
            _exit(1);
        if (steps >= 3 && job_table_put(t, &e, &err) < 0)
            _exit(1);
        _exit(0); /* nothing is closed */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_job_table_a_creation_that_was_cut_off(void **state)
{
    struct job_table_found found;
    struct stored_job_entry e;
    struct job_table *t;
    struct err err;
    char path[PATH_MAX + 16];

    (void)state;
    for (int steps = 0; steps <= 3; steps++)
        create(10 + (uint64_t)steps, steps);
    t = open_table(&found);
    assert_int_equal(found.n_set_aside, 0); /* the later creations have opened the table, too */
    assert_int_equal(found.n_rows, 2);
    assert_int_equal(job_table_last(t), 13);
    assert_int_equal(job_table_next(t, 0, &e, &err), 1);
    assert_int_equal(e.job, 12); /* it had a store and no row */
    assert_string_equal(e.text, "");
    assert_true(e.created_ms > 0 && e.has_token && e.wanted == STORED_WANTED_RUN);
    assert_memory_equal(e.token, entry_of(12).token, sizeof(e.token));
    assert_string_equal(e.name, "holiday");
    assert_string_equal(e.owner, "alice");
    assert_int_equal(job_table_next(t, 12, &e, &err), 1);
    assert_int_equal(e.job, 13);
    assert_string_equal(e.name, "holiday");
    assert_int_equal(job_table_store_path(t, 11, path, &err), 0);
    assert_int_equal(access(path, F_OK), -1); /* a folder without a store */
    (void)strcat(path, ".set-aside");
    assert_int_equal(access(path, F_OK), 0);
    job_table_close(t);
}

/* The row, then the store are there; the process ends after `steps` steps of the removal. */
static void remove_in_steps(uint64_t job, int steps)
{
    struct stored_job_entry e = entry_of(job);
    struct job_table_found found;
    struct job_table *t;
    char path[PATH_MAX + 16];
    struct err err;

    create(job, 3);
    t = open_table(&found);
    e.wanted = STORED_WANTED_REMOVED;
    if (steps >= 1)
        assert_int_equal(job_table_put(t, &e, &err), 0);
    assert_int_equal(job_table_store_path(t, job, path, &err), 0);
    job_table_close(t);
    (void)strcat(path, "/data.mdb");
    if (steps >= 2)
        assert_int_equal(unlink(path), 0);
    *strrchr(path, '/') = '\0';
    if (steps >= 3)
        assert_int_equal(folder_remove(path, &err), 0);
}

static void test_job_table_a_removal_that_was_cut_off(void **state)
{
    struct job_table_found found;
    struct stored_job_entry e;
    char path[PATH_MAX];
    struct job_table *t;
    struct err err;

    (void)state;
    for (int steps = 0; steps <= 3; steps++) {
        const uint64_t job = 10 + (uint64_t)steps;

        remove_in_steps(job, steps);
        t = open_table(&found);
        assert_int_equal(job_table_store_path(t, job, path, &err), 0);
        assert_int_equal(access(path, F_OK), steps ? -1 : 0);
        assert_int_equal(job_table_next(t, job - 1, &e, &err), steps ? 0 : 1);
        assert_int_equal(found.n_rows, 1); /* that of job 10, which nobody has removed */
        assert_int_equal(found.n_missing + found.n_set_aside + found.n_adopted, 0);
        job_table_close(t);
        t = open_table(&found);
        assert_int_equal(job_table_last(t), job); /* nobody else gets its number */
        job_table_close(t);
    }
}

static int remove_job(struct job_table *t, const struct stored_job_entry *e, struct err *err)
{
    char path[PATH_MAX];

    assert_int_equal(job_table_remove_begin(t, e, path, err), 0);
    return job_table_remove_end(t, e, folder_remove(path, err), err);
}

static void test_job_table_removes_a_job_for_good(void **state)
{
    struct stored_job_entry e = entry_of(1);
    struct job_table_found found;
    char path[PATH_MAX + 16], inside[PATH_MAX + 32];
    struct job_table *t;
    struct err err;

    (void)state;
    create(1, 3);
    create(2, 3);
    t = open_table(&found);
    assert_int_equal(job_table_store_path(t, 2, path, &err), 0);
    (void)snprintf(inside, sizeof(inside), "%s/folder", path);
    assert_int_equal(mkdir(inside, 0700), 0); /* it cannot be removed yet */
    e = entry_of(2);
    assert_true(remove_job(t, &e, &err) < 0);
    assert_non_null(strstr(err.text, "folder: cannot remove"));
    job_table_close(t);
    t = open_table(&found);
    assert_int_equal(found.n_rows, 2);
    assert_int_equal(job_table_next(t, 1, &e, &err), 1);
    assert_int_equal(e.wanted, STORED_WANTED_REMOVED);
    assert_non_null(strstr(e.text, "folder: cannot remove"));
    assert_int_equal(rmdir(inside), 0);
    assert_int_equal(remove_job(t, &e, &err), 0);
    assert_int_equal(job_table_next(t, 1, &e, &err), 0);
    assert_int_equal(job_table_next(t, 0, &e, &err), 1);
    assert_int_equal(access(path, F_OK), -1);
    job_table_close(t);
    t = open_table(&found);
    assert_int_equal(found.n_rows, 1);
    assert_int_equal(job_table_last(t), 2);
    job_table_close(t);
}

static void test_job_table_a_store_that_cannot_be_read_is_set_aside(void **state)
{
    struct job_table_found found;
    char path[PATH_MAX];
    struct job_table *t;
    struct err err;
    FILE *f;

    (void)state;
    t = open_table(&found);
    assert_int_equal(job_table_store_path(t, 5, path, &err), 0);
    job_table_close(t);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)strcat(path, "/data.mdb");
    f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 100000; i++)
        (void)fputc('x', f);
    (void)fclose(f);
    t = open_table(&found);
    assert_int_equal(found.n_set_aside, 1);
    assert_int_equal(found.n_rows, 0);
    assert_int_equal(job_table_last(t), 5); /* nobody else gets its number now */
    job_table_close(t);
}

/* A row that a checksum refuses is named, and the others are there. */
static void test_job_table_a_damaged_row_is_named(void **state)
{
    char path[PATH_MAX], *at, *data = malloc(1 << 20);
    struct stored_job_entry e = entry_of(1);
    struct job_table_found found;
    struct job_table *t = open_table(&found);
    struct err err;
    ssize_t n;
    int fd;

    (void)state;
    assert_non_null(data);
    (void)strcpy(e.name, "damaged-name");
    assert_int_equal(job_table_put(t, &e, &err), 0);
    e = entry_of(2);
    assert_int_equal(job_table_put(t, &e, &err), 0);
    job_table_close(t);
    (void)snprintf(path, sizeof(path), "%s/jobs.lmdb/data.mdb", state_dir);
    fd = open(path, O_RDWR);
    n = read(fd, data, 1 << 20);
    for (ssize_t i = 0; i + 12 <= n; i++) {
        at = data + i;
        if (memcmp(at, "damaged-name", 12) == 0)
            assert_int_equal(pwrite(fd, "D", 1, i), 1);
    }
    (void)close(fd);
    free(data);
    t = open_table(&found);
    assert_int_equal(found.n_rows, 1);
    assert_int_equal(job_table_next(t, 0, &e, &err), -EBADMSG);
    assert_int_equal(e.job, 1);
    assert_non_null(strstr(err.text, "job 1"));
    assert_int_equal(job_table_next(t, 1, &e, &err), 1);
    assert_int_equal(e.job, 2);
    job_table_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_job_table_keeps_rows_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_table_has_one_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_table_a_creation_that_was_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_table_a_store_that_cannot_be_read_is_set_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_table_a_damaged_row_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_table_a_removal_that_was_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_table_removes_a_job_for_good, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
