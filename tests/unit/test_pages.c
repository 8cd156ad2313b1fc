/* Pages of stores, and of any LMDB environment, are sound whatever was done to them; one wrong bit in the free list is
 * not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/env.h"
#include "store/keys.h"
#include "store/page_format.h"
#include "tests/unit/store_fixture.h"

struct fixture {
    char *dir;
    char path[300], data[320];
};

static int setup(void **state)
{
    static struct fixture f;

    f.dir = fixture_dir();
    (void)snprintf(f.path, sizeof(f.path), "%s/s", f.dir);
    (void)snprintf(f.data, sizeof(f.data), "%s/data.mdb", f.path);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_dir_remove(((struct fixture *)*state)->dir);
    return 0;
}

/* -- files -- */

struct file {
    uint8_t *bytes;
    size_t n;
};

static struct file load(const char *name)
{
    FILE *in = fopen(name, "rb");
    struct file f = {NULL, 0};
    struct stat st;

    assert_non_null(in);
    assert_int_equal(fstat(fileno(in), &st), 0);
    f.n = (size_t)st.st_size;
    f.bytes = malloc(f.n);
    assert_non_null(f.bytes);
    assert_int_equal(fread(f.bytes, 1, f.n, in), f.n);
    (void)fclose(in);
    return f;
}

static void save(const char *name, const struct file *f)
{
    FILE *out = fopen(name, "wb");

    assert_non_null(out);
    assert_int_equal(fwrite(f->bytes, 1, f->n, out), f->n);
    assert_int_equal(fclose(out), 0);
}

static struct page_meta meta_of(const struct file *f, size_t page_bytes, size_t *ret_at)
{
    struct page_meta m[N_METAS];
    size_t newest;

    for (size_t i = 0; i < N_METAS; i++)
        memcpy(&m[i], f->bytes + i * page_bytes + sizeof(struct page_head), sizeof(m[i]));
    newest = m[0].txn < m[1].txn;
    *ret_at = newest * page_bytes;
    return m[newest];
}

/* -- what is found -- */

struct found {
    unsigned n;
    char first[256];
};

static bool count(void *arg, const char *text)
{
    struct found *found = arg;

    if (found->n++ == 0)
        (void)snprintf(found->first, sizeof(found->first), "%s", text);
    return true;
}

static struct found look(const struct file *f)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    struct found found = {0};
    struct err err;
    size_t at;

    (void)meta_of(f, page_bytes, &at);
    assert_int_equal(pages_check(f->bytes, f->n, f->bytes + at, &(struct pages_report){count, &found}, &err), 0);
    return found;
}

static void assert_sound(const char *data, const char *when)
{
    struct file f = load(data);
    struct found found = look(&f);

    free(f.bytes);
    if (found.n)
        fail_msg("%s: %u problems; %s", when, found.n, found.first);
}

/* -- stores -- */

/* 2000 items in units of 8; some done, one again, keys built where it is sealed. */
static void make_store(const struct fixture *f, uint32_t n_units_done)
{
    struct store *s = fixture_store(f->path, 8);
    struct err err;

    fixture_import(s, 0, 2000);
    for (uint32_t u = 0; u < n_units_done; u++)
        fixture_commit_unit(s, u, (uint64_t)u * 8, 8, 5);
    while (store_keys_wanted(s))
        assert_int_equal(store_keys_step(s, &err), 0);
    store_close(s);
}

static void test_pages_of_a_store_are_sound_at_every_step(void **state)
{
    const struct fixture *f = *state;
    struct store *s = fixture_store(f->path, 8);
    struct err err;

    assert_sound(f->data, "new");
    for (uint32_t i = 0; i < 10; i++) {
        fixture_import(s, i * 100, 100);
        assert_sound(f->data, "imported");
        for (uint32_t u = 0; u < 12; u++) /* each hundred ends in a unit of four */
            fixture_commit_unit(s, i * 13 + u, (uint64_t)i * 100 + u * 8, 8, 7);
        assert_sound(f->data, "committed");
        while (store_keys_wanted(s)) {
            assert_int_equal(store_keys_step(s, &err), 0);
            assert_sound(f->data, "keys");
        }
    }
    store_close(s);
    assert_sound(f->data, "closed");
    assert_int_equal(fixture_problems(f->path, 1), 0);
}

/* As store_commit does: LMDB does not write pages at the end that a transaction both takes and frees. */
static void reserve(MDB_env *env)
{
    enum { MOST_BYTES = 6 << 20 }; /* more than a random transaction takes */
    MDB_envinfo info;
    mdb_filehandle_t fd;
    off_t need;
    struct stat st;

    assert_int_equal(mdb_env_info(env, &info), 0);
    assert_int_equal(mdb_env_get_fd(env, &fd), 0);
    assert_int_equal(fstat(fd, &st), 0);
    need = (off_t)((info.me_last_pgno + 1) * (size_t)sysconf(_SC_PAGESIZE)) + MOST_BYTES;
    if (st.st_size < need)
        assert_int_equal(ftruncate(fd, need), 0);
}

/* Tables as a store has them, values of all sizes, in any order, with readers that keep old pages; aborted now and
 * then. */
static void random_transaction(MDB_env *env, unsigned *draw)
{
    static uint8_t value[20000];
    MDB_dbi plain, dups;
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "plain", MDB_CREATE, &plain), 0);
    assert_int_equal(mdb_dbi_open(txn, "dups", MDB_CREATE | MDB_DUPSORT | MDB_DUPFIXED, &dups), 0);
    for (int i = 0, n = rand_r(draw) % 200; i < n; i++) {
        uint8_t key[16] = {0}, number[8] = {0};
        MDB_val k = {8, key}, v = {0, value};
        int rc = 0;

        env_put_be64(key, (uint64_t)rand_r(draw) % 3000);
        env_put_be64(number, (uint64_t)rand_r(draw));
        switch (rand_r(draw) % 8) {
        case 0:
            v.mv_size = 4096 + (size_t)rand_r(draw) % (sizeof(value) - 4096);
            rc = mdb_put(txn, plain, &k, &v, 0);
            break;
        case 1:
        case 2:
            v.mv_size = (size_t)rand_r(draw) % 600;
            rc = mdb_put(txn, plain, &k, &v, 0);
            break;
        case 3:
            rc = mdb_del(txn, plain, &k, NULL);
            break;
        case 4:
            env_put_be64(key, (uint64_t)rand_r(draw) % 300);
            rc = mdb_del(txn, dups, &(MDB_val){16, key}, NULL);
            break;
        default:
            env_put_be64(key, (uint64_t)rand_r(draw) % 20 * (uint64_t)(rand_r(draw) % 20));
            rc = mdb_put(txn, dups, &(MDB_val){16, key}, &(MDB_val){8, number}, 0);
        }
        assert_true(rc == 0 || rc == MDB_NOTFOUND);
    }
    if (rand_r(draw) % 40 == 0)
        assert_int_equal(mdb_drop(txn, rand_r(draw) % 2 ? plain : dups, 0), 0);
    if (rand_r(draw) % 10 == 0) {
        mdb_txn_abort(txn);
        return;
    }
    reserve(env);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static void test_pages_of_any_environment_are_sound(void **state)
{
    const char *given = getenv("BLIPLINE_TEST_SEED");
    unsigned draw = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)clock_mono_ns();
    const struct fixture *f = *state;
    MDB_txn *readers[3] = {NULL};
    MDB_env *env;

    print_message("seed %u (BLIPLINE_TEST_SEED)\n", draw);
    assert_int_equal(mkdir(f->path, 0777), 0);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_set_mapsize(env, (size_t)1 << 30), 0);
    assert_int_equal(mdb_env_open(env, f->path, MDB_NOTLS | MDB_NOSYNC, 0666), 0);
    for (int i = 0; i < 200; i++) {
        MDB_txn **r = &readers[rand_r(&draw) % 3];

        random_transaction(env, &draw);
        assert_sound(f->data, "random");
        if (*r) {
            mdb_txn_abort(*r);
            *r = NULL;
        } else {
            assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, r), 0);
        }
    }
    for (int i = 0; i < 3; i++)
        if (readers[i])
            mdb_txn_abort(readers[i]);
    mdb_env_close(env);
}

/* -- damage -- */

/* Where in the file the free list's numbers are, those of its leaves alone. */
static size_t free_numbers(const struct file *f, size_t *ret, size_t max)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t at, n = 0;
    const struct page_meta m = meta_of(f, page_bytes, &at);
    const uint8_t *page = f->bytes + m.free.root * page_bytes;
    const struct page_head h = page_head(page);

    assert_int_equal(h.flags, PAGE_LEAF);
    for (size_t i = 0; i < page_n_nodes(&h); i++) {
        struct page_node node;

        assert_true(page_node(page, page_bytes, i, false, &node));
        if (node.flags)
            continue;
        for (size_t k = 0; k <= page_word(node.data) && n < max; k++) /* the first is how many there are */
            ret[n++] = (size_t)(node.data.data - f->bytes) + k * sizeof(size_t);
    }
    return n;
}

static void test_pages_any_bit_of_the_free_list_is_found(void **state)
{
    const struct fixture *f = *state;
    size_t places[512], n;
    struct file good, bad;
    unsigned n_flips = 0;

    make_store(f, 120);
    good = load(f->data);
    n = free_numbers(&good, places, 512);
    assert_true(n > 4);
    bad.n = good.n;
    bad.bytes = malloc(good.n);
    assert_non_null(bad.bytes);
    for (size_t i = 0; i < n; i++)
        for (unsigned bit = 0; bit < 64; bit++) {
            memcpy(bad.bytes, good.bytes, good.n);
            bad.bytes[places[i] + bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (look(&bad).n == 0)
                fail_msg("number %zu, bit %u: not found", i, bit);
            n_flips++;
        }
    print_message("%u flips in %zu numbers\n", n_flips, n);
    free(good.bytes);
    free(bad.bytes);
}

/* Any bit in the head of a page in use, or in the table of its rows; and what is in the file twice. */
static void test_pages_heads_and_copies_are_found(void **state)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    const struct fixture *f = *state;
    struct file good, bad;
    unsigned n_leaves = 0;
    size_t other = 0;

    make_store(f, 250);
    good = load(f->data);
    bad.n = good.n;
    bad.bytes = malloc(good.n);
    assert_non_null(bad.bytes);
    for (size_t page = N_METAS; page < good.n / page_bytes; page += 1 + page / 16) {
        const struct page_head h = page_head(good.bytes + page * page_bytes);

        if (h.flags != PAGE_LEAF && h.flags != PAGE_BRANCH)
            continue;
        memcpy(bad.bytes, good.bytes, good.n);
        bad.bytes[page * page_bytes] ^= 1;
        if (look(&bad).n == 0)
            continue; /* free: nobody reads it */
        for (size_t bit = 0; bit < 8 * (size_t)(h.lower < 64 ? h.lower : 64); bit += 11) {
            if (bit / 8 >= offsetof(struct page_head, pad) && bit / 8 < offsetof(struct page_head, flags))
                continue; /* of no meaning here */
            memcpy(bad.bytes, good.bytes, good.n);
            bad.bytes[page * page_bytes + bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (look(&bad).n == 0)
                fail_msg("page %zu, bit %zu: not found", page, bit);
        }
        if (other && h.flags == PAGE_LEAF) { /* what another page holds, and this one's number */
            memcpy(bad.bytes, good.bytes, good.n);
            memcpy(bad.bytes + page * page_bytes + sizeof(h.number), good.bytes + other * page_bytes + sizeof(h.number),
                   page_bytes - sizeof(h.number));
            if (look(&bad).n == 0)
                fail_msg("page %zu holds the rows of page %zu: not found", page, other);
        }
        if (h.flags == PAGE_LEAF)
            other = page;
        n_leaves += h.flags == PAGE_LEAF;
    }
    assert_true(n_leaves > 4);
    free(good.bytes);
    free(bad.bytes);
}

static void test_pages_a_damaged_store_is_not_written_to(void **state)
{
    const struct store_options o = {0};
    const struct fixture *f = *state;
    struct file bad, after;
    struct store *s = NULL;
    struct reader *r = NULL;
    size_t places[2];
    struct err err;

    make_store(f, 120);
    bad = load(f->data);
    assert_int_equal(free_numbers(&bad, places, 2), 2);
    bad.bytes[places[1]] ^= 1;
    save(f->data, &bad);
    assert_int_equal(store_open(f->path, &o, &s, NULL, &err), -EBADMSG);
    if (!strstr(err.text, f->path) || !strstr(err.text, "data.mdb is damaged") || !strstr(err.text, "page"))
        fail_msg("%s", err.text);
    assert_int_equal(reader_open_to_go_on(f->path, false, &r, &err), -EBADMSG);
    assert_true(fixture_problems(f->path, 0) > 0);
    after = load(f->data);
    assert_int_equal(after.n, bad.n);
    assert_memory_equal(after.bytes, bad.bytes, bad.n);
    free(bad.bytes);
    free(after.bytes);
}

static int open_and_close(const struct fixture *f, struct err *err)
{
    const struct store_options o = {0};
    struct store *s = NULL;
    int rc = store_open(f->path, &o, &s, NULL, err);

    if (rc == 0)
        store_close(s);
    return rc;
}

/* Entries of `keys` have no checksum of their own; their sum has. */
static void test_pages_any_bit_of_a_keys_entry_is_found(void **state)
{
    const struct fixture *f = *state;
    struct store *s = fixture_store(f->path, 8);
    uint8_t hash[KEYS_HASH_BYTES];
    unsigned n_places = 0;
    struct file good, bad;
    struct err err;

    for (uint64_t first = 0; first < 200; first += 100) { /* the second build adds to the first one's sum */
        fixture_import(s, first, 100);
        while (store_keys_wanted(s))
            assert_int_equal(store_keys_step(s, &err), 0);
    }
    store_close(s);
    assert_int_equal(open_and_close(f, &err), 0);
    keys_hash("key-00000150", 12, hash);
    good = load(f->data);
    bad.n = good.n;
    bad.bytes = malloc(good.n);
    assert_non_null(bad.bytes);
    for (unsigned bit = 0; bit < 8 * (KEYS_HASH_BYTES + 8); bit += 7) {
        memcpy(bad.bytes, good.bytes, good.n);
        for (size_t i = 0; i + KEYS_HASH_BYTES + 8 <= good.n; i++)
            if (memcmp(good.bytes + i, hash, KEYS_HASH_BYTES) == 0) { /* also in pages that are free by now */
                bad.bytes[i + bit / 8] ^= (uint8_t)(1u << bit % 8);
                n_places++;
            }
        save(f->data, &bad);
        if (open_and_close(f, &err) != -EBADMSG || !strstr(err.text, "keys") || !strstr(err.text, f->path))
            fail_msg("bit %u: %s", bit, err.text);
    }
    assert_true(n_places > 0);
    save(f->data, &good);
    assert_int_equal(open_and_close(f, &err), 0);
    free(good.bytes);
    free(bad.bytes);
}

/* The first branch page leads to one page alone: LMDB asserts that there are two. */
static void spoil_a_branch(const struct fixture *f)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    struct file bad = load(f->data);
    unsigned n = 0;

    for (size_t page = N_METAS; page < bad.n / page_bytes; page++) {
        struct page_head h = page_head(bad.bytes + page * page_bytes);

        if (h.flags != PAGE_BRANCH)
            continue;
        h.lower = sizeof(h) + sizeof(uint16_t);
        memcpy(bad.bytes + page * page_bytes, &h, sizeof(h));
        n++;
    }
    assert_true(n > 0);
    save(f->data, &bad);
    free(bad.bytes);
}

static void test_pages_an_assertion_of_lmdb_names_the_store(void **state)
{
    const struct fixture *f = *state;
    char said[2000] = "";
    int status, ends[2];
    ssize_t n;
    pid_t child;

    make_store(f, 250);
    spoil_a_branch(f);
    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct reader_row row;
        struct reader *r;

        (void)signal(SIGSEGV, SIG_DFL);
        (void)dup2(ends[1], STDERR_FILENO);
        if (reader_open(f->path, false, &r, NULL) == 0) /* which trusts the pages */
            for (uint64_t i = 0; i < 2000; i++)
                if (reader_get(r, i, &row, NULL) == -ENOMEM)
                    break;
        _exit(0);
    }
    (void)close(ends[1]);
    n = read(ends[0], said, sizeof(said) - 1);
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(n > 0);
    if (!strstr(said, f->path) || !strstr(said, "data.mdb is damaged (LMDB: ") || !strstr(said, "blipline verify"))
        fail_msg("%s", said);
    assert_false(WIFEXITED(status));
}

/* A copy of the file as it is now, which is what a power cut leaves. */
static bool is_closed_in_order(const struct fixture *f)
{
    char other[320], data[340];
    struct file now = load(f->data);
    struct env env;
    struct err err;
    bool empty, closed;

    (void)snprintf(other, sizeof(other), "%s/other", f->dir);
    (void)snprintf(data, sizeof(data), "%s/data.mdb", other);
    (void)mkdir(other, 0777);
    save(data, &now);
    free(now.bytes);
    assert_int_equal(env_open(other, &(struct env_options){0}, &env, &empty, &err), 0);
    closed = env_is_closed_in_order(&env);
    env_close(&env);
    return closed;
}

static void test_pages_whether_a_store_was_closed_is_known(void **state)
{
    const struct fixture *f = *state;
    const struct store_options o = {0};
    struct store *s = fixture_store(f->path, 8);
    struct err err;

    assert_false(is_closed_in_order(f));
    fixture_import(s, 0, 100);
    assert_false(is_closed_in_order(f));
    store_close(s);
    assert_true(is_closed_in_order(f));
    for (uint32_t u = 0; u < 2; u++) {
        assert_int_equal(store_open(f->path, &o, &s, NULL, &err), 0);
        assert_true(is_closed_in_order(f)); /* nothing is written yet */
        fixture_commit_unit(s, u, u * 8, 8, 0);
        assert_false(is_closed_in_order(f));
        store_close(s);
        assert_true(is_closed_in_order(f));
    }
    assert_int_equal(fixture_problems(f->path, 1), 0);
}

static void test_pages_of_a_store_that_is_being_written_are_sound(void **state)
{
    const struct fixture *f = *state;
    struct env env;
    unsigned n = 0;
    struct err err;
    bool empty;
    int status;
    pid_t writer;

    make_store(f, 0);
    writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) {
        const struct store_options o = {0};
        struct store *s;

        if (store_open(f->path, &o, &s, NULL, &err) < 0)
            _exit(1);
        for (uint32_t u = 0; u < 250; u++)
            fixture_commit_unit(s, u, (uint64_t)u * 8, 8, 3);
        store_close(s);
        _exit(0);
    }
    assert_int_equal(env_open(f->path, &(struct env_options){0}, &env, &empty, &err), 0);
    do {
        struct found found = {0};

        assert_int_equal(env_check_pages(&env, f->path, &(struct pages_report){count, &found}, &err), 0);
        if (found.n) {
            (void)kill(writer, SIGKILL);
            fail_msg("walk %u: %u problems; %s", n, found.n, found.first);
        }
        n++;
    } while (waitpid(writer, &status, WNOHANG) == 0);
    env_close(&env);
    assert_int_equal(status, 0);
    print_message("%u walks\n", n);
}

static void test_pages_links_are_no_files_of_a_store(void **state)
{
    static const char *const names[] = {"lock.mdb", "data.mdb"};
    const struct fixture *f = *state;
    const struct store_options o = {0};
    char victim[320], name[340];
    struct file before, after;

    make_store(f, 1);
    (void)snprintf(victim, sizeof(victim), "%s/victim", f->dir);
    for (int i = 0; i < 2; i++) {
        struct store *s = NULL;
        struct reader *r = NULL;
        struct err err;

        (void)snprintf(name, sizeof(name), "%s/%s", f->path, names[i]);
        assert_int_equal(rename(name, victim), 0);
        assert_int_equal(symlink(victim, name), 0);
        before = load(victim);
        assert_int_equal(store_open(f->path, &o, &s, NULL, &err), -ELOOP);
        if (!strstr(err.text, name))
            fail_msg("%s", err.text);
        assert_int_equal(reader_open(f->path, false, &r, &err), -ELOOP);
        after = load(victim);
        assert_int_equal(before.n, after.n);
        assert_memory_equal(before.bytes, after.bytes, before.n);
        free(before.bytes);
        free(after.bytes);
        assert_int_equal(unlink(name), 0);
        assert_int_equal(rename(victim, name), 0);
    }
    assert_int_equal(fixture_problems(f->path, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_of_a_store_are_sound_at_every_step, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_of_any_environment_are_sound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_any_bit_of_the_free_list_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_heads_and_copies_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_a_damaged_store_is_not_written_to, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_any_bit_of_a_keys_entry_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_an_assertion_of_lmdb_names_the_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_whether_a_store_was_closed_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_of_a_store_that_is_being_written_are_sound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_links_are_no_files_of_a_store, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
