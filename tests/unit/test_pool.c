#include "encoder_worker/pool.h"

#include "encoder_worker/resize.h"
#include "encoder_worker/encoder_unit.h"
#include "tests/unit/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIDE = 64, SLOT = SIDE * SIDE * 3, PATIENCE_MS = 60000 };

struct fixture {
    char root[64];
    struct pool *pool;
};

static struct pool_conf conf_of(int n_threads, int capacity)
{
    return (struct pool_conf){.n_threads = n_threads,
                              .capacity = capacity,
                              .size_px = SIDE,
                              .options = DECODE_OPTIONS_DEFAULT,
                              .memory_bytes = 1 << 30,
                              .time_ms = PATIENCE_MS};
}

static struct pool *new_pool(int n_threads, int capacity)
{
    struct pool_conf conf = conf_of(n_threads, capacity);
    struct pool *p = NULL;
    struct err err = {""};

    if (pool_new(&conf, &p, &err) < 0)
        fail_msg("%s", err.text);
    return p;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)strcpy(f->root, "/tmp/blipline-pool-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    f->pool = new_pool(3, 16);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    DIR *d = opendir(f->root);
    struct dirent *e;

    pool_free(f->pool);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.' && unlinkat(dirfd(d), e->d_name, 0) < 0)
            assert_int_equal(unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR), 0);
    (void)closedir(d);
    assert_int_equal(rmdir(f->root), 0);
    free(f);
    return 0;
}

static void submit(struct pool *p, uint64_t index, const char *path)
{
    assert_int_equal(pool_submit(p, index, path, strlen(path)), 0);
}

/* What the pool should deliver for a good picture, computed here in one thread. */
static void expected_pixels(const char *path, uint8_t *out)
{
    struct decode_options options = DECODE_OPTIONS_DEFAULT;
    struct resize *r = NULL;
    struct picture p;
    struct buf b;

    buf_init(&b, 0);
    fixture_bytes(path, &b);
    picture_init(&p, NULL);
    assert_int_equal(decode_picture(b.data, b.size_bytes, &options, &p, NULL), IMAGE_OK);
    assert_int_equal(resize_new(&r), 0);
    assert_int_equal(resize_rgb(r, p.rgb, p.width, p.height, out, SIDE, SIDE), 0);
    resize_free(r);
    picture_release(&p);
    buf_release(&b);
}

static const char *const good[] = {"tests/golden/images_odd/odd_cmyk.jpg", "tests/golden/images_odd/odd_wide.png",
                                   "tests/golden/images_odd/odd_alpha.webp", "tests/golden/images_odd/odd_1x1.png",
                                   "tests/golden/images_odd/odd_tall.jpg"};
enum { N_GOOD = sizeof(good) / sizeof(good[0]) };

/* Many more pictures than slots, good and missing ones mixed, in whatever order they finish. */
static void test_pool_delivers_every_request_once_whatever_the_order(void **state)
{
    enum { N = 200 };
    struct fixture *f = *state;
    uint8_t *want = malloc(N_GOOD * SLOT);
    bool seen[N] = {false};
    struct pool_result r;
    uint64_t next = 0;
    int done = 0;

    assert_non_null(want);
    for (int i = 0; i < N_GOOD; i++)
        expected_pixels(good[i], want + i * SLOT);
    while (done < N) {
        for (; next < N && next < (uint64_t)done + 16; next++)
            submit(f->pool, next, next % 7 == 3 ? "gone.jpg" : good[next % N_GOOD]);
        assert_int_equal(pool_take(f->pool, PATIENCE_MS, &r), 1);
        assert_true(r.index < N);
        assert_false(seen[r.index]);
        seen[r.index] = true;
        done++;
        if (r.index % 7 == 3) {
            assert_int_equal(r.code, IMAGE_MISSING);
            assert_null(r.slot);
            continue;
        }
        assert_int_equal(r.code, IMAGE_OK);
        assert_memory_equal(r.slot->pixels, want + r.index % N_GOOD * SLOT, SLOT);
        decoder_slot_free(r.slot);
        assert_true(r.file_bytes > 0 && r.width > 0 && r.height > 0);
        assert_true(r.fetch_ns > 0 && r.decode_ns > 0 && r.resize_ns > 0);
    }
    assert_int_equal(pool_take(f->pool, -1, &r), 0); /* nothing in the pool: does not wait for ever */
    free(want);
}

static void put(const struct fixture *f, const char *name, const void *data, size_t n)
{
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", f->root, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void expect_code(struct fixture *f, const char *name, enum image_error want)
{
    struct pool_result r;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", f->root, name);
    submit(f->pool, 1, path);
    assert_int_equal(pool_take(f->pool, PATIENCE_MS, &r), 1);
    decoder_slot_free(r.slot);
    if (r.code != want)
        fail_msg("%s: %s (%s), wanted %s", name, image_error_name(r.code), r.message.text, image_error_name(want));
    assert_int_equal(r.message.text[0] == '\0', want == IMAGE_OK);
}

static void test_pool_bad_files_are_results_with_a_reason(void **state)
{
    /* a header of 60000 x 60000 pixels, then nothing */
    static const uint8_t bomb[] = {0x89, 'P',  'N',  'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I',  'H',  'D',  'R', 0,
                                   0,    0xea, 0x60, 0,   0,    0xea, 0x60, 8,    2, 0, 0, 0,  0xf8, 0x04, 0x6f, 0x75};
    struct fixture *f = *state;
    char path[128];
    struct buf b;

    buf_init(&b, 0);
    fixture_bytes(good[0], &b);
    put(f, "good", b.data, b.size_bytes);
    put(f, "cut", b.data, b.size_bytes / 2);
    put(f, "empty.jpg", "", 0);
    put(f, "text.jpg", "hello, this is text\n", 20);
    put(f, "bomb.png", bomb, sizeof(bomb));
    (void)snprintf(path, sizeof(path), "%s/pipe.jpg", f->root);
    assert_int_equal(mkfifo(path, 0644), 0);
    (void)snprintf(path, sizeof(path), "%s/folder.jpg", f->root);
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(path, sizeof(path), "%s/locked", f->root);
    put(f, "locked", b.data, b.size_bytes);
    assert_int_equal(chmod(path, 0), 0);
    expect_code(f, "cut", IMAGE_TRUNCATED);
    expect_code(f, "empty.jpg", IMAGE_EMPTY);
    expect_code(f, "text.jpg", IMAGE_UNKNOWN_FORMAT);
    expect_code(f, "bomb.png", IMAGE_TOO_MANY_PIXELS);
    expect_code(f, "pipe.jpg", IMAGE_UNREADABLE);
    expect_code(f, "folder.jpg", IMAGE_UNREADABLE);
    expect_code(f, "gone.jpg", IMAGE_MISSING);
    expect_code(f, "locked", geteuid() == 0 ? IMAGE_OK : IMAGE_UNREADABLE); /* modes do not stop root */
    expect_code(f, "good", IMAGE_OK);                                       /* the decoders live on */
    buf_release(&b);
}

/* Behind its end a picture may have anything; memory for it comes and goes, and small files beside it stay whole. */
static void test_pool_files_of_any_size_side_by_side(void **state)
{
    static const size_t more[] = {0, 3 << 20, 40 << 20, 1, 2 << 20, 17 << 20};
    enum { N_SIZES = sizeof(more) / sizeof(more[0]), ROUNDS = 4 };
    struct fixture *f = *state;
    uint8_t want[SLOT], *bytes;
    char name[16], path[128];
    struct buf b;

    buf_init(&b, 0);
    fixture_bytes(good[0], &b);
    expected_pixels(good[0], want);
    for (int i = 0; i < N_SIZES; i++) {
        bytes = calloc(1, b.size_bytes + more[i]);
        assert_non_null(bytes);
        memcpy(bytes, b.data, b.size_bytes);
        (void)snprintf(name, sizeof(name), "%d.jpg", i);
        put(f, name, bytes, b.size_bytes + more[i]);
        free(bytes);
    }
    for (int strict = 0; strict < 2; strict++) { /* the second time, files are as large as they may be */
        struct pool_conf conf = conf_of(2, 64);
        struct pool *p;

        if (strict)
            conf.options.max_file_bytes = b.size_bytes + 1;
        assert_int_equal(pool_new(&conf, &p, NULL), 0);
        for (int i = 0; i < ROUNDS * N_SIZES; i++) {
            (void)snprintf(path, sizeof(path), "%s/%d.jpg", f->root, i % N_SIZES);
            submit(p, (uint64_t)(i % N_SIZES), path);
        }
        for (int i = 0; i < ROUNDS * N_SIZES; i++) {
            struct pool_result r;

            assert_int_equal(pool_take(p, PATIENCE_MS, &r), 1);
            assert_int_equal(r.code, strict && more[r.index] > 1 ? IMAGE_TOO_LARGE : IMAGE_OK);
            if (r.code == IMAGE_OK)
                assert_memory_equal(r.slot->pixels, want, SLOT);
            decoder_slot_free(r.slot);
        }
        pool_free(p);
    }
    buf_release(&b);
}

static void test_pool_paths_are_bytes_up_to_the_limit(void **state)
{
    struct fixture *f = *state;
    char path[POOL_MAX_PATH_BYTES + 2];
    struct pool_result r;
    struct buf b;

    buf_init(&b, 0);
    fixture_bytes(good[3], &b);
    put(f, "a\nb\xff\xc3\x28.png", b.data, b.size_bytes);
    buf_release(&b);
    expect_code(f, "a\nb\xff\xc3\x28.png", IMAGE_OK);
    memset(path, 'a', sizeof(path));
    for (size_t i = 0; i < sizeof(path); i += 100)
        path[i] = '/';
    assert_int_equal(pool_submit(f->pool, 1, path, POOL_MAX_PATH_BYTES + 1), -ENAMETOOLONG);
    assert_int_equal(pool_submit(f->pool, 1, path, 0), -EINVAL);
    assert_int_equal(pool_submit(f->pool, 1, "a\0b", 3), -EINVAL);
    assert_int_equal(pool_take(f->pool, -1, &r), 0); /* nothing is in it */
    assert_int_equal(pool_submit(f->pool, 1, path, POOL_MAX_PATH_BYTES), 0);
    assert_int_equal(pool_take(f->pool, PATIENCE_MS, &r), 1);
    assert_int_equal(r.code, IMAGE_UNREADABLE); /* open() takes one byte less */
    assert_int_equal(pool_submit(f->pool, 1, path, POOL_MAX_PATH_BYTES - 1), 0);
    assert_int_equal(pool_take(f->pool, PATIENCE_MS, &r), 1);
    assert_int_equal(r.code, IMAGE_MISSING);
}

static void test_pool_is_full_at_its_capacity_and_frees_up(void **state)
{
    struct fixture *f = *state;
    struct pool_result r;

    for (int i = 0; i < 16; i++)
        submit(f->pool, (uint64_t)i, good[3]);
    assert_int_equal(pool_submit(f->pool, 16, good[3], strlen(good[3])), -EAGAIN);
    assert_int_equal(pool_take(f->pool, PATIENCE_MS, &r), 1);
    decoder_slot_free(r.slot);
    submit(f->pool, 16, good[3]);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(pool_take(f->pool, PATIENCE_MS, &r), 1);
        assert_int_equal(r.code, IMAGE_OK);
        decoder_slot_free(r.slot);
    }
    assert_int_equal(pool_take(f->pool, 0, &r), 0);
}

static void test_pool_free_drops_queued_work(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        struct pool *p = new_pool(1 + round % 4, 64);
        struct pool_result r;

        for (int i = 0; i < 64; i++)
            submit(p, (uint64_t)i, good[i % N_GOOD]);
        for (int i = 0; i < round % 5; i++)
            assert_int_equal(pool_take(p, PATIENCE_MS, &r), 1);
        pool_free(p);
    }
    pool_free(NULL);
}

/* More pictures than the pool takes at once: each is asked for in its turn, none is called unreadable for it. */
static void test_pool_a_unit_larger_than_the_pool_is_asked_for_in_parts(void **state)
{
    enum { N = 7 };
    static const uint8_t path[] = "/nonexistent";
    struct row_item items[N];
    struct worker_work work = {.n_items = N, .items = items}, *given = &work;
    struct pool *p = new_pool(2, 2);
    struct pool_result r;
    struct unit *u;
    int n_full = 0;

    (void)state;
    for (int i = 0; i < N; i++)
        items[i] = (struct row_item){.item = (uint64_t)i, .path = path, .path_bytes = sizeof(path) - 1};
    assert_int_equal(encoder_unit_new(&given, 1, &u, NULL), 0);
    while (!encoder_unit_submit(u, p)) {
        n_full++;
        assert_int_equal(pool_take(p, PATIENCE_MS, &r), 1);
        encoder_unit_note(u, (uint32_t)(r.index & 0xffff), &r);
    }
    while (pool_take(p, PATIENCE_MS, &r) == 1)
        encoder_unit_note(u, (uint32_t)(r.index & 0xffff), &r);
    assert_true(n_full > 0);
    assert_int_equal(u->n_decoded, N);
    assert_int_equal(u->n_failures, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(u->failures[i].code, IMAGE_MISSING);
    encoder_unit_free(u);
    pool_free(p);
}

static void test_pool_new_refuses_bad_numbers(void **state)
{
    struct pool *p = NULL;
    struct pool_conf conf = conf_of(0, 4);

    (void)state;
    assert_int_equal(pool_new(&conf, &p, NULL), -EINVAL);
    conf = conf_of(1, 0);
    assert_int_equal(pool_new(&conf, &p, NULL), -EINVAL);
    conf = conf_of(1, 1);
    conf.size_px = 0;
    assert_int_equal(pool_new(&conf, &p, NULL), -EINVAL);
    assert_null(p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pool_delivers_every_request_once_whatever_the_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pool_bad_files_are_results_with_a_reason, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pool_files_of_any_size_side_by_side, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pool_paths_are_bytes_up_to_the_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pool_is_full_at_its_capacity_and_frees_up, set_up, tear_down),
        cmocka_unit_test(test_pool_free_drops_queued_work),
        cmocka_unit_test(test_pool_a_unit_larger_than_the_pool_is_asked_for_in_parts),
        cmocka_unit_test(test_pool_new_refuses_bad_numbers),
    };

    if (decoder_is_asked_for(argc, argv))
        return decoder_serve();
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
