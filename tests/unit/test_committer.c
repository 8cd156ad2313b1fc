#include "broker/committer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/unit/completion.h"
#include "tests/unit/store_fixture.h"

enum { WAIT_MS = 20000 };

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

static struct committer *start(const struct committer_conf *conf)
{
    static const struct committer_conf defaults;
    struct committer *c = NULL;
    struct err err;

    if (committer_start(conf ? conf : &defaults, &c, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

static struct committer_completion *wait_one(struct committer *c)
{
    struct committer_completion *done = completion_wait(c, WAIT_MS);

    assert_non_null(done);
    return done;
}

static struct committer_request *request(enum committer_op op, uint64_t job, uint64_t tag)
{
    struct committer_request *r = committer_request_new(op, job, tag);

    assert_non_null(r);
    return r;
}

static struct committer_request *open_request(uint64_t job, const char *at, uint32_t unit_items)
{
    struct committer_request *r = request(COMMITTER_OPEN, job, 1000 + job);

    r->path = strdup(at);
    r->create = true;
    r->meta = malloc(sizeof(*r->meta));
    assert_non_null(r->meta);
    *r->meta = fixture_meta(unit_items);
    return r;
}

static struct committer_request *rows_request(uint64_t job, uint64_t first, uint32_t n)
{
    struct committer_request *r = request(COMMITTER_ROWS, job, first);

    buf_init(&r->rows, 0);
    fixture_rows(&r->rows, first, n);
    r->n_rows = n;
    r->first_item = first;
    return r;
}

static struct committer_request *unit_request(uint64_t job, uint32_t unit, uint64_t first, uint32_t n, uint32_t bad)
{
    struct committer_request *r = request(COMMITTER_UNIT, job, unit);
    struct fixture_records records;

    fixture_records_init(&records, first, n, bad);
    r->unit = unit;
    r->records = records.bytes;
    r->ends = records.ends;
    r->n_records = records.n;
    r->n_failed = records.n_failed;
    return r;
}

/* Post and wait for this one completion; the return code. */
static int do_one(struct committer *c, struct committer_request *r, struct committer_completion *ret)
{
    struct committer_completion *done;
    int rc;

    assert_int_equal(committer_post(c, &r), 0);
    assert_null(r);
    done = wait_one(c);
    rc = done->rc;
    if (rc == 0)
        assert_string_equal(done->text, "");
    else
        assert_true(strlen(done->text) > 0);
    if (ret)
        *ret = *done;
    committer_completion_free(done);
    return rc;
}

static struct store *open_job(struct committer *c, uint64_t job, const char *at, uint32_t unit_items)
{
    struct committer_completion done;

    assert_int_equal(do_one(c, open_request(job, at, unit_items), &done), 0);
    assert_non_null(done.store);
    return done.store;
}

static void test_committer_imports_seals_and_commits(void **state)
{
    struct committer *c = start(NULL);
    struct committer_completion done;
    struct store_pending p[8];
    struct store *s;
    uint32_t next;
    size_t n;
    struct err err;

    (void)state;
    s = open_job(c, 5, path, 64);
    assert_int_equal(do_one(c, rows_request(5, 0, 100), &done), 0);
    assert_int_equal(done.counters.n_items, 64);
    assert_int_equal(done.next_item, 100);
    assert_int_equal(do_one(c, rows_request(5, 100, 50), &done), 0);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 5, 9), &done), 0);
    assert_int_equal(done.tag, 9);
    assert_int_equal(done.counters.n_items, 150);
    assert_int_equal(done.counters.n_units, 3);
    assert_true(done.counters.sealed);
    assert_int_equal(store_pending(s, 0, 8, p, &n, &next, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(do_one(c, unit_request(5, 2, 128, 22, 0), &done), 0);
    assert_int_equal(done.counters.n_done, 22);
    assert_int_equal(done.unit, 2);
    assert_int_equal(do_one(c, unit_request(5, 2, 128, 22, 0), NULL), -EALREADY);
    assert_int_equal(do_one(c, unit_request(5, 1, 64, 63, 0), NULL), -EINVAL);
    assert_int_equal(do_one(c, unit_request(5, 3, 192, 64, 0), NULL), -ENOENT);
    struct committer_request *r = request(COMMITTER_ATTEMPTS, 5, 0);
    r->unit = 1;
    r->attempts = 4;
    assert_int_equal(do_one(c, r, NULL), 0);
    assert_int_equal(store_pending(s, 0, 8, p, &n, &next, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(p[1].attempts, 4);
    assert_int_equal(do_one(c, request(COMMITTER_CLOSE, 5, 0), NULL), 0);
    assert_int_equal(do_one(c, unit_request(5, 0, 0, 64, 0), NULL), -EBADF);
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* Rows of units, and where each ends, as one lease of all items would have them. */
static void test_committer_loads_units_with_their_rows(void **state)
{
    struct committer *c = start(NULL);
    struct store *s = open_job(c, 5, path, 8);
    struct committer_completion *done;
    struct committer_request *r;
    uint32_t n_rows;
    struct buf rows;
    struct err err;

    (void)state;
    assert_int_equal(do_one(c, rows_request(5, 0, 30), NULL), 0);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 5, 0), NULL), 0);
    assert_int_equal(do_one(c, unit_request(5, 1, 8, 8, 0), NULL), 0);
    buf_init(&rows, 0);
    for (int few = 0; few < 2; few++) {
        r = request(COMMITTER_LOAD, 5, 0);
        r->max_units = 10;
        r->max_bytes = few ? 1 : SIZE_MAX;
        assert_int_equal(committer_post(c, &r), 0);
        done = wait_one(c);
        assert_int_equal(done->rc, 0);
        assert_int_equal(done->load->n, few ? 1 : 3);
        assert_false(done->load->exhausted);
        for (size_t i = 0; i < done->load->n; i++) {
            const struct unit_rows *u = done->load->rows[i];
            const uint32_t unit = done->load->pending[i].unit;

            assert_int_equal(unit, i ? i + 1 : 0);
            assert_int_equal(u->first_item, unit * 8);
            assert_int_equal(u->n_items, unit == 3 ? 6 : 8);
            for (uint32_t k = 0; k < u->n_items; k++) {
                buf_clear(&rows);
                assert_int_equal(store_unit_items(s, unit, k, 1, &rows, &n_rows, NULL, &err), 0);
                assert_int_equal(u->ends[k] - unit_rows_start(u, k), rows.size_bytes);
                assert_memory_equal(u->bytes + unit_rows_start(u, k), rows.data, rows.size_bytes);
            }
        }
        committer_completion_free(done);
    }
    buf_release(&rows);
    r = request(COMMITTER_LOAD, 5, 0);
    r->unit = 4;
    r->max_units = 10;
    r->max_bytes = SIZE_MAX;
    assert_int_equal(committer_post(c, &r), 0);
    done = wait_one(c);
    assert_int_equal(done->load->n, 0);
    assert_true(done->load->exhausted);
    committer_completion_free(done);
    r = request(COMMITTER_LOAD, 6, 0);
    assert_int_equal(do_one(c, r, NULL), -EBADF);
    committer_free(c);
}

static void test_committer_rows_out_of_order_come_back(void **state)
{
    struct committer *c = start(NULL);
    struct committer_request *early = rows_request(1, 10, 10);
    struct committer_completion *done;

    (void)state;
    (void)open_job(c, 1, path, 4);
    assert_int_equal(committer_post(c, &early), 0);
    done = wait_one(c);
    assert_int_equal(done->rc, -EAGAIN);
    early = done->request;
    done->request = NULL;
    committer_completion_free(done);
    assert_non_null(early);
    assert_int_equal(do_one(c, rows_request(1, 0, 10), NULL), 0);
    assert_int_equal(do_one(c, early, NULL), 0);
    committer_free(c);
}

static atomic_int n_commits;

static int count_commit(void *arg)
{
    (void)arg;
    atomic_fetch_add(&n_commits, 1);
    return 0;
}

static void test_committer_many_units_share_a_commit(void **state)
{
    enum { UNITS = 2000 };
    const struct store_seam seam = {.before_commit = count_commit};
    struct committer *c = start(&(struct committer_conf){.seam = &seam});
    int before;

    (void)state;
    (void)open_job(c, 1, path, 4);
    assert_int_equal(do_one(c, rows_request(1, 0, 4 * UNITS), NULL), 0);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 1, 0), NULL), 0);
    before = atomic_load(&n_commits);
    for (uint32_t u = 0; u < UNITS; u++) {
        struct committer_request *r = unit_request(1, u, 4 * (uint64_t)u, 4, 7);

        assert_int_equal(committer_post(c, &r), 0);
    }
    for (uint32_t u = 0; u < UNITS; u++) { /* in order, one each */
        struct committer_completion *done = wait_one(c);

        assert_int_equal(done->rc, 0);
        assert_int_equal(done->unit, u);
        assert_true(done->counters.n_units_done > u);
        committer_completion_free(done);
    }
    assert_true(atomic_load(&n_commits) - before < UNITS / 2);
    printf("%d units in %d commits\n", UNITS, atomic_load(&n_commits) - before);
    assert_int_equal(do_one(c, request(COMMITTER_CLOSE, 1, 0), NULL), 0);
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_committer_says_when_it_is_full(void **state)
{
    const struct committer_conf conf = {.max_requests = 4, .max_bytes = 64 << 10};
    struct committer *c = start(&conf);
    struct committer_request *r;
    int posted = 0;

    (void)state;
    (void)open_job(c, 1, path, 4);
    for (;; posted++) { /* completions are not taken: the fifth finds no room, however fast the thread is */
        r = request(COMMITTER_SEAL, 1, 0);
        if (committer_post(c, &r) == -EAGAIN)
            break;
    }
    assert_int_equal(posted, 4);
    assert_non_null(r);
    committer_completion_free(wait_one(c));
    assert_int_equal(committer_post(c, &r), 0);
    for (int i = 0; i < 4; i++)
        committer_completion_free(wait_one(c));
    r = rows_request(1, 0, 3000); /* larger than max_bytes: alone it may go */
    assert_true(r->rows.capacity_bytes > conf.max_bytes);
    assert_int_equal(committer_post(c, &r), 0);
    r = request(COMMITTER_SEAL, 1, 0);
    assert_int_equal(committer_post(c, &r), -EAGAIN);
    committer_completion_free(wait_one(c));
    assert_int_equal(committer_post(c, &r), 0);
    committer_free(c); /* what was not taken is dropped */
}

static atomic_int fail_with;

static int failing_commit(void *arg)
{
    (void)arg;
    return atomic_load(&fail_with);
}

static int free_space(void *arg, uint64_t *ret)
{
    (void)arg;
    *ret = atomic_load(&fail_with) ? 0 : (uint64_t)1 << 30;
    return 0;
}

static void test_committer_full_disk_gives_requests_back(void **state)
{
    enum { UNITS = 20 };
    const struct store_seam seam = {.before_commit = failing_commit, .free_bytes = free_space};
    const struct committer_conf conf = {.seam = &seam};
    struct committer *c = start(&conf);
    struct committer_request *back[UNITS + 1];

    (void)state;
    (void)open_job(c, 1, path, 2);
    assert_int_equal(do_one(c, rows_request(1, 0, 2 * UNITS), NULL), 0);
    atomic_store(&fail_with, -ENOSPC);
    for (uint32_t u = 0; u < UNITS; u++) {
        back[u] = unit_request(1, u, 2 * (uint64_t)u, 2, 0);
        assert_int_equal(committer_post(c, &back[u]), 0);
    }
    back[UNITS] = rows_request(1, 2 * UNITS, 7);
    assert_int_equal(committer_post(c, &back[UNITS]), 0);
    for (uint32_t u = 0; u <= UNITS; u++) {
        struct committer_completion *done = wait_one(c);

        assert_int_equal(done->rc, -ENOSPC);
        assert_non_null(strstr(done->text, "disk full"));
        assert_non_null(done->request);
        assert_int_equal(done->counters.n_done, 0);
        back[u] = done->request;
        done->request = NULL;
        committer_completion_free(done);
    }
    atomic_store(&fail_with, 0);
    for (uint32_t u = 0; u <= UNITS; u++)
        assert_int_equal(do_one(c, back[u], NULL), 0);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 1, 0), NULL), 0);
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

/* Every branch page leads to one page alone: LMDB asserts that there are two. */
static void spoil_branches(const char *file)
{
    enum { FLAGS_AT = 10, LOWER_AT = 12, PAGE_BRANCH = 1, HEAD_BYTES = 16 };
    const off_t page_bytes = sysconf(_SC_PAGESIZE);
    const uint16_t lower = HEAD_BYTES + sizeof(uint16_t);
    int fd = open(file, O_RDWR), n = 0;
    uint16_t flags;

    assert_true(fd >= 0);
    for (off_t at = 2 * page_bytes; pread(fd, &flags, sizeof(flags), at + FLAGS_AT) == sizeof(flags); at += page_bytes)
        if (flags == PAGE_BRANCH) {
            assert_int_equal(pwrite(fd, &lower, sizeof(lower), at + LOWER_AT), sizeof(lower));
            n++;
        }
    assert_true(n > 0);
    (void)close(fd);
}

/* One store is spoiled while it is open: the requests of the others are carried out, in the same group too. */
static void spoil_one_store(bool shorten)
{
    enum { N = 3000, UNIT = 8 };
    const struct committer_conf conf = {.group_ms = 200};
    struct committer *c = start(&conf);
    struct committer_completion done;
    struct committer_request *r;
    char file[320], other[310];

    (void)snprintf(other, sizeof(other), "%s/other.lmdb", dir);
    (void)snprintf(file, sizeof(file), "%s/data.mdb", path);
    for (uint64_t job = 1; job <= 2; job++) {
        (void)open_job(c, job, job == 1 ? path : other, UNIT);
        assert_int_equal(do_one(c, rows_request(job, 0, N), NULL), 0);
    }
    if (shorten)
        assert_int_equal(truncate(file, 2 * sysconf(_SC_PAGESIZE)), 0);
    else
        spoil_branches(file);
    for (uint32_t i = 0; i < 4; i++) {
        r = unit_request(1 + i % 2, i / 2, (uint64_t)(i / 2) * UNIT, UNIT, 0);
        assert_int_equal(committer_post(c, &r), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct committer_completion *one = wait_one(c);

        assert_int_equal(one->rc, one->job == 1 ? -EIO : 0);
        if (one->job == 1 && (!strstr(one->text, path) || !strstr(one->text, shorten ? "truncated" : "damaged")))
            fail_msg("%s", one->text);
        committer_completion_free(one);
    }
    r = request(COMMITTER_LOAD, 1, 0);
    r->max_units = 10;
    r->max_bytes = SIZE_MAX;
    assert_int_equal(do_one(c, r, NULL), -EIO);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 1, 0), NULL), -EIO);
    assert_int_equal(do_one(c, request(COMMITTER_CLOSE, 1, 0), NULL), 0);
    assert_int_equal(do_one(c, open_request(3, path, UNIT), NULL), -EBUSY); /* locked until the process ends */
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 2, 0), &done), 0);
    assert_int_equal(done.counters.n_done, 2 * UNIT);
    committer_free(c);
    assert_int_equal(fixture_problems(other, 1), 0);
}

static void test_committer_a_store_that_becomes_shorter_fails_alone(void **state)
{
    (void)state;
    spoil_one_store(true);
}

static void test_committer_an_assertion_of_lmdb_fails_its_store_alone(void **state)
{
    (void)state;
    spoil_one_store(false);
}

static struct committer_request *compare_request(uint64_t job, uint64_t first, uint32_t n, bool begin)
{
    struct committer_request *r = rows_request(job, first, n);

    r->op = COMMITTER_COMPARE;
    r->first_item = COMMITTER_ANY_ITEM;
    if (begin) {
        r->begin = calloc(1, sizeof(*r->begin));
        assert_non_null(r->begin);
    }
    return r;
}

/* Post all, and those that are given back again in the other order, until all are done. */
static void do_all(struct committer *c, struct committer_request **list, uint32_t n)
{
    struct committer_request *back[8];

    while (n > 0) {
        uint32_t n_back = 0;

        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(committer_post(c, &list[i]), 0);
        for (uint32_t i = 0; i < n; i++) {
            struct committer_completion *done = wait_one(c);

            assert_true(done->rc == 0 || done->rc == -ENOSPC || done->rc == -EAGAIN);
            if (done->rc < 0) {
                back[n_back++] = done->request;
                done->request = NULL;
            }
            committer_completion_free(done);
        }
        for (uint32_t i = 0; i < n_back; i++)
            list[i] = back[n_back - 1 - i];
        n = n_back;
        atomic_store(&fail_with, 0);
    }
}

static void test_committer_a_walk_adds_what_is_new_in_order_whatever_fails(void **state)
{
    const struct store_seam seam = {.before_commit = failing_commit, .free_bytes = free_space};
    const struct committer_conf conf = {.seam = &seam};
    struct committer *c = start(&conf);
    struct committer_request *list[8];
    struct committer_completion done;

    (void)state;
    (void)open_job(c, 1, path, 4);
    list[0] = rows_request(1, 0, 10);
    list[1] = request(COMMITTER_SEAL, 1, 0);
    do_all(c, list, 2);
    atomic_store(&fail_with, -ENOSPC);
    list[0] = compare_request(1, 0, 8, true);
    list[1] = compare_request(1, 8, 8, false); /* the last of them are new */
    list[2] = compare_request(1, 16, 3, false);
    list[3] = compare_request(1, 19, 11, false);
    list[4] = request(COMMITTER_SEAL, 1, 0);
    do_all(c, list, 5);
    assert_int_equal(do_one(c, compare_request(1, 0, 30, true), &done), 0);
    assert_int_equal(done.counters.n_items, 30);
    assert_int_equal(done.n_added, 0);
    assert_int_equal(done.n_again, 0);
    assert_int_equal(done.compared.n_new, 0);
    assert_int_equal(done.compared.n_changed, 0); /* in step: each has the number that it had in the walk */
    assert_int_equal(do_one(c, compare_request(1, 29, 3, false), &done), 0); /* 29 a second time */
    assert_int_equal(done.n_added, 3);
    assert_int_equal(done.next_item, 33);
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_committer_a_walk_that_has_ended_adds_nothing(void **state)
{
    struct committer *c = start(NULL);
    struct committer_request *broken;
    struct committer_completion done;

    (void)state;
    (void)open_job(c, 1, path, 4);
    assert_int_equal(do_one(c, compare_request(1, 0, 4, false), NULL), -EINVAL); /* none has begun */
    assert_int_equal(do_one(c, compare_request(1, 0, 4, true), &done), 0);
    assert_int_equal(done.n_added, 4);
    broken = compare_request(1, 4, 4, false);
    broken->rows.size_bytes--;
    assert_int_equal(do_one(c, broken, NULL), -EBADMSG);
    assert_int_equal(do_one(c, compare_request(1, 8, 4, false), NULL), -EINVAL);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 1, 0), NULL), 0); /* of what there is */
    assert_int_equal(do_one(c, compare_request(1, 0, 12, true), &done), 0);
    assert_int_equal(done.n_added, 8);
    assert_int_equal(do_one(c, request(COMMITTER_SEAL, 1, 0), &done), 0);
    assert_int_equal(done.counters.n_items, 12);
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void test_committer_serves_several_stores(void **state)
{
    enum { JOBS = 4, UNITS = 50 };
    struct committer *c = start(NULL);
    struct committer_request *r;
    char name[JOBS][400];

    (void)state;
    for (uint64_t j = 0; j < JOBS; j++) {
        (void)snprintf(name[j], sizeof(name[j]), "%s.%d", path, (int)j);
        (void)open_job(c, j, name[j], 3);
        assert_int_equal(do_one(c, rows_request(j, 0, 3 * UNITS), NULL), 0);
        assert_int_equal(do_one(c, request(COMMITTER_SEAL, j, 0), NULL), 0);
    }
    assert_int_equal(do_one(c, open_request(2, name[2], 3), NULL), -EEXIST);
    assert_int_equal(do_one(c, open_request(9, name[2], 3), NULL), -EBUSY);
    for (uint32_t u = 0; u < UNITS; u++)
        for (uint64_t j = 0; j < JOBS; j++) {
            r = unit_request(j, u, 3 * (uint64_t)u, 3, 0);
            assert_int_equal(committer_post(c, &r), 0);
        }
    for (uint64_t j = 0; j < JOBS; j += 2) { /* behind its units */
        r = request(COMMITTER_CLOSE, j, 77);
        assert_int_equal(committer_post(c, &r), 0);
    }
    for (uint32_t i = 0; i < UNITS * JOBS + JOBS / 2; i++) {
        struct committer_completion *done = wait_one(c);

        assert_int_equal(done->rc, 0);
        if (done->op == COMMITTER_CLOSE)
            assert_int_equal(done->counters.n_units_done, UNITS);
        committer_completion_free(done);
    }
    committer_free(c);
    for (uint64_t j = 0; j < JOBS; j++)
        assert_int_equal(fixture_problems(name[j], 1), 0);
}

static void test_committer_finish_does_what_was_posted(void **state)
{
    struct committer *c = start(NULL);
    struct committer_completion *done;
    struct committer_request *r;
    struct pollfd p = {.events = POLLIN};
    int n = 0;

    (void)state;
    (void)open_job(c, 1, path, 2);
    r = rows_request(1, 0, 101);
    assert_int_equal(committer_post(c, &r), 0);
    r = request(COMMITTER_SEAL, 1, 0);
    assert_int_equal(committer_post(c, &r), 0);
    committer_finish(c);
    r = request(COMMITTER_SEAL, 1, 0);
    assert_int_equal(committer_post(c, &r), -EPIPE);
    committer_request_free(r);
    p.fd = committer_fd(c);
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    while ((done = completion_wait(c, WAIT_MS))) {
        assert_int_equal(done->rc, 0);
        committer_completion_free(done);
        n++;
    }
    assert_int_equal(n, 2);
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
    struct reader *reader;
    const uint64_t *items;
    size_t n_items;
    struct err err;
    assert_int_equal(reader_open(path, false, &reader, &err), 0);
    assert_int_equal(reader_find(reader, "key-00000100", 12, &items, &n_items, &err), 0);
    assert_int_equal(n_items, 1);
    assert_int_equal(items[0], 100);
    reader_close(reader);
}

/* The loop reads what is committed while the thread commits. */
static void test_committer_pending_beside_commits(void **state)
{
    enum { UNITS = 3000 };
    struct committer *c = start(NULL);
    struct store *s;
    uint32_t posted = 0, taken = 0;

    (void)state;
    s = open_job(c, 1, path, 1);
    assert_int_equal(do_one(c, rows_request(1, 0, UNITS), NULL), 0);
    while (taken < UNITS) {
        struct store_pending p[32];
        struct committer_completion *done;
        uint32_t next, n_rows;
        size_t n;
        struct err err;
        struct buf items;

        assert_int_equal(store_pending(s, posted, 32, p, &n, &next, &err), 0);
        for (size_t i = 0; i < n; i++) {
            struct committer_request *r;

            buf_init(&items, 0);
            assert_int_equal(store_unit_items(s, p[i].unit, 0, 0, &items, &n_rows, NULL, &err), 0);
            assert_int_equal(n_rows, 1);
            buf_release(&items);
            r = unit_request(1, p[i].unit, p[i].first_item, p[i].n_items, 0);
            assert_int_equal(committer_post(c, &r), 0);
        }
        posted = next;
        for (done = n ? committer_take(c) : wait_one(c); done; done = committer_take(c)) {
            assert_int_equal(done->rc, 0);
            committer_completion_free(done);
            taken++;
        }
    }
    committer_free(c);
    assert_int_equal(fixture_problems(path, 1), 0);
}

static void child_commits(int acks, uint32_t from, uint32_t n_units)
{
    struct committer *c = start(NULL);
    uint32_t posted = from, taken = from;

    (void)open_job(c, 1, path, 2);
    while (taken < n_units) {
        struct committer_completion *done;

        for (; posted < n_units && posted < taken + 16; posted++) {
            struct committer_request *r = unit_request(1, posted, 2 * (uint64_t)posted, 2, 0);

            (void)!committer_post(c, &r);
        }
        done = wait_one(c);
        if (done->rc == 0 || done->rc == -EALREADY)
            (void)!write(acks, &done->unit, sizeof(done->unit));
        committer_completion_free(done);
        taken++;
    }
    _exit(0);
}

static void test_committer_kill_loses_nothing_acknowledged(void **state)
{
    enum { UNITS = 4000, ROUNDS = 10 };
    unsigned seed = (unsigned)time(NULL);
    struct store *s = fixture_store(path, 2);
    uint32_t from = 0, n_acked = 0;

    (void)state;
    printf("seed %u\n", seed);
    fixture_import(s, 0, 2 * UNITS);
    store_close(s);
    for (int round = 0; round < ROUNDS; round++) {
        struct timespec pause = {.tv_nsec = 2000000 + rand_r(&seed) % 50000000};
        uint32_t last = from, unit;
        struct reader *r;
        struct reader_row row;
        struct err err;
        int acks[2];
        pid_t pid;

        assert_int_equal(pipe(acks), 0);
        pid = fork();
        if (pid == 0) {
            (void)close(acks[0]);
            child_commits(acks[1], from, UNITS);
        }
        (void)close(acks[1]);
        if (round % 2 &&
            read(acks[0], &unit, sizeof(unit)) == sizeof(unit)) { /* on a busy machine too it gets so far */
            last = unit + 1;
            n_acked++;
        }
        (void)nanosleep(&pause, NULL);
        (void)kill(pid, SIGKILL);
        for (; read(acks[0], &unit, sizeof(unit)) == sizeof(unit); n_acked++)
            last = unit + 1; /* completions come in order */
        (void)close(acks[0]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(reader_open(path, false, &r, &err), 0);
        for (uint64_t item = 2 * (uint64_t)from; item < 2 * (uint64_t)last; item++) {
            assert_int_equal(reader_get(r, item, &row, &err), 0);
            assert_true(row.has_record);
        }
        reader_close(r);
        assert_int_equal(fixture_problems(path, 1), 0);
        from = last; /* the next child meets units that are durable and were not acknowledged: -EALREADY */
    }
    printf("%u acknowledged in %d rounds\n", n_acked, ROUNDS);
    assert_true(n_acked > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_committer_imports_seals_and_commits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_loads_units_with_their_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_rows_out_of_order_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_many_units_share_a_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_says_when_it_is_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_full_disk_gives_requests_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_a_store_that_becomes_shorter_fails_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_an_assertion_of_lmdb_fails_its_store_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_a_walk_adds_what_is_new_in_order_whatever_fails, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_committer_a_walk_that_has_ended_adds_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_serves_several_stores, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_finish_does_what_was_posted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_pending_beside_commits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_committer_kill_loses_nothing_acknowledged, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
