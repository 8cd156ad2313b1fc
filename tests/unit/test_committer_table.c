/* The committer's requests about the job table. */
#include "broker/committer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/store_fixture.h"

static char *dir;
static struct job_table *table;
static struct committer *committer;

static int setup(void **state)
{
    struct committer_conf conf = {0};
    struct job_table_found found;
    char path[300];
    struct err err;

    (void)state;
    dir = fixture_dir();
    (void)snprintf(path, sizeof(path), "%s/state", dir);
    assert_int_equal(job_table_open(path, false, &table, &found, &err), 0);
    conf.table = table;
    assert_int_equal(committer_start(&conf, &committer, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    committer_free(committer);
    job_table_close(table);
    fixture_dir_remove(dir);
    return 0;
}

/* The caller frees it. */
static struct committer_completion *next(void)
{
    struct pollfd ready = {.fd = committer_fd(committer), .events = POLLIN};
    struct committer_completion *done = NULL;

    while (!done) {
        assert_true(poll(&ready, 1, 60000) == 1);
        done = committer_take(committer);
    }
    return done;
}

/* Takes the request; the caller frees the completion. */
static struct committer_completion *do_one(struct committer_request *r)
{
    assert_non_null(r);
    assert_int_equal(committer_post(committer, &r), 0);
    return next();
}

static void put(uint64_t job, const char *owner, int64_t ended_ms)
{
    struct committer_request *r = committer_request_new(COMMITTER_ENTRY, job, 0);
    struct committer_completion *done;

    r->entry = calloc(1, sizeof(*r->entry));
    r->entry->job = job;
    r->entry->ended_ms = ended_ms;
    (void)msg_text_set(r->entry->owner, sizeof(r->entry->owner), owner);
    done = do_one(r);
    assert_int_equal(done->rc, 0);
    assert_int_equal(done->entry->job, job);
    committer_completion_free(done);
}

static struct committer_completion *list(uint64_t first_job, const char *owner)
{
    struct committer_request *r = committer_request_new(COMMITTER_LIST, 0, 0);
    struct committer_completion *done;

    r->first_job = first_job;
    r->of_owner = owner != NULL;
    (void)msg_text_set(r->owner, sizeof(r->owner), owner ? owner : "");
    done = do_one(r);
    assert_int_equal(done->rc, 0);
    return done;
}

static const struct stored_job_entry *row(const struct committer_completion *done, uint32_t i)
{
    return (const struct stored_job_entry *)(const void *)done->found.data + i;
}

static void test_committer_table_lists_page_by_page(void **state)
{
    enum { N = MSG_MAX_LISTED_JOBS + 44 };
    struct committer_completion *done;
    uint64_t at = 0;
    uint32_t n = 0;

    (void)state;
    for (uint64_t job = 1; job <= N; job++)
        put(2 * job, job % 10 ? "alice" : "bob", 0);
    do {
        done = list(at, NULL);
        assert_true(done->n_found <= MSG_MAX_LISTED_JOBS);
        for (uint32_t i = 0; i < done->n_found; i++)
            assert_int_equal(row(done, i)->job, 2 * ++n);
        at = done->next_job;
        committer_completion_free(done);
    } while (at);
    assert_int_equal(n, N);
    done = list(0, "bob");
    assert_int_equal(done->n_found, N / 10);
    assert_int_equal(done->next_job, 0);
    assert_int_equal(row(done, 1)->job, 40);
    assert_string_equal(row(done, 1)->owner, "bob");
    committer_completion_free(done);
    done = list(2 * N + 1, NULL);
    assert_int_equal(done->n_found + done->next_job, 0);
    committer_completion_free(done);
}

static void test_committer_table_changes_the_row_of_a_job(void **state)
{
    struct committer_request *r = committer_request_new(COMMITTER_ENTRY, 7, 0);
    struct committer_completion *done;

    (void)state;
    put(6, "alice", 0);
    put(8, "alice", 0);
    r->control = (struct msg_job_control){.job = 7, .action = MSG_JOB_PRIORITY, .priority = 300};
    done = do_one(r);
    assert_int_equal(done->rc, -ENOENT);
    assert_string_equal(done->text, "there is no job 7");
    committer_completion_free(done);
    r = committer_request_new(COMMITTER_ENTRY, 8, 0);
    r->control = (struct msg_job_control){.job = 8, .action = MSG_JOB_PRIORITY, .priority = 300};
    done = do_one(r);
    assert_int_equal(done->rc, 0);
    assert_int_equal(done->entry->priority, 300);
    committer_completion_free(done);
    r = committer_request_new(COMMITTER_ENTRY, 8, 0);
    r->control = (struct msg_job_control){.job = 8, .action = MSG_JOB_REMOVE};
    done = do_one(r);
    assert_int_equal(done->rc, -EPERM);
    committer_completion_free(done);
    done = list(0, NULL);
    assert_int_equal(done->n_found, 2);
    assert_int_equal(row(done, 1)->priority, 300);
    assert_string_equal(row(done, 1)->owner, "alice");
    committer_completion_free(done);
}

/* Files are not deleted while this is locked. */
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;

int unlinkat(int folder, const char *name, int flags)
{
    long rc;

    pthread_mutex_lock(&disk);
    rc = syscall(SYS_unlinkat, folder, name, flags);
    pthread_mutex_unlock(&disk);
    return (int)rc;
}

static void test_committer_table_does_other_things_while_a_store_is_deleted(void **state)
{
    struct committer_completion *done;
    char path[PATH_MAX + 16];
    struct err err;

    (void)state;
    for (uint64_t job = 1; job <= 3; job++) {
        put(job, "alice", 1);
        assert_int_equal(job_table_store_path(table, job, path, &err), 0);
        assert_int_equal(mkdir(path, 0700), 0);
        (void)strcat(path, "/data.mdb");
        assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
    }
    pthread_mutex_lock(&disk);
    for (uint64_t job = 1; job <= 2; job++) {
        struct committer_request *r = committer_request_new(COMMITTER_ENTRY, job, 0);

        r->control = (struct msg_job_control){.job = job, .action = MSG_JOB_REMOVE};
        assert_int_equal(committer_post(committer, &r), 0);
    }
    put(4, "alice", 0);
    done = list(0, NULL);
    assert_int_equal(done->n_found, 4);
    assert_int_equal(row(done, 0)->wanted, STORED_WANTED_REMOVED);
    assert_int_equal(row(done, 1)->wanted, STORED_WANTED_REMOVED);
    committer_completion_free(done);
    pthread_mutex_unlock(&disk);
    for (uint64_t job = 1; job <= 2; job++) {
        done = next();
        assert_int_equal(done->job, job);
        assert_int_equal(done->rc, 0);
        committer_completion_free(done);
        assert_int_equal(job_table_store_path(table, job, path, &err), 0);
        assert_int_equal(access(path, F_OK), -1);
    }
    done = list(0, NULL);
    assert_int_equal(done->n_found, 2);
    assert_int_equal(row(done, 0)->job, 3);
    committer_completion_free(done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_committer_table_lists_page_by_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_table_changes_the_row_of_a_job, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_table_does_other_things_while_a_store_is_deleted, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
