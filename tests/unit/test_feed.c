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
#include <unistd.h>

#include "client/retry.h"
#include "job/feed.h"
#include "store/find.h"
#include "store/known.h"
#include "proto/row.h"
#include "store/reader.h"
#include "store/store.h"

struct folder {
    char path[64], store[80], in[80];
};

static int setup(void **state)
{
    struct folder *f = calloc(1, sizeof(*f));

    (void)snprintf(f->path, sizeof(f->path), "/tmp/test_feed.XXXXXX");
    if (!mkdtemp(f->path))
        return -1;
    (void)snprintf(f->store, sizeof(f->store), "%s/store", f->path);
    (void)snprintf(f->in, sizeof(f->in), "%s/in", f->path);
    *state = f;
    return mkdir(f->in, 0700);
}

static int teardown(void **state)
{
    struct folder *f = *state;
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", f->path);
    (void)!system(command);
    free(f);
    return 0;
}

static void touch(const char *dir, const char *name, const char *bytes)
{
    char path[256];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
    (void)close(fd);
}

struct fed {
    char keys[4096]; /* "a.jpg b.jpg" */
    struct compared_rows rows;
    struct buf all, sources;
    uint32_t n_all, n_sources;
    struct feed_counts counts;
    struct msg_compared compared;
};

static int find_in_store(void *arg, struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n,
                         struct err *err)
{
    return find_items(arg, keys, n_keys, ret, ret_n, err);
}

/* With what the store has, where there is one. */
static int open_feed(const struct folder *f, struct feed_options *o, struct feed **ret, struct err *err)
{
    struct origins_known known = {.find_items = find_in_store};
    struct reader *store = NULL;
    int rc;

    if (reader_open(f->store, false, &store, err) == 0) {
        known.arg = store;
        assert_int_equal(reader_sources(store, &known.rows, &known.n_rows, err), 0);
        o->known = &known;
    }
    rc = feed_open(o, ret, err);
    o->known = NULL;
    reader_close(store);
    return rc;
}

/* All that the feed has, by what the store makes of it; without a store everything is new. */
static void compare_all(const struct folder *f, struct feed *feed, const struct msg_comparison *how, struct fed *ret)
{
    const struct origins *origins = feed_origins(feed);
    struct compare *compare = NULL;
    struct err err = {""};
    bool more = true;
    struct buf rows;
    uint32_t n;

    *ret = (struct fed){.n_sources = origins->n_rows};
    buf_init(&rows, 0);
    if (access(f->store, F_OK) == 0 && compare_open(f->store, how, &compare, &err) < 0)
        fail_msg("%s", err.text);
    for (uint32_t i = 0; compare && i < origins->n_rows; i++)
        assert_int_equal(compare_source(compare, i + 1, origins->rows[i].root, &err), 0);
    while (more) {
        if (feed_next(feed, &rows, &n, &more, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(buf_append(&ret->all, rows.data, rows.size_bytes), 0);
        ret->n_all += n;
        if (!compare) {
            assert_int_equal(buf_append(&ret->rows.fresh, rows.data, rows.size_bytes), 0);
            ret->rows.n_fresh += n;
        } else if (compare_rows(compare, rows.data, rows.size_bytes, n, &ret->rows, &err) < 0) {
            fail_msg("%s", err.text);
        }
    }
    ret->counts = *feed_counts(feed);
    if (compare)
        ret->compared = *compare_counts(compare);
    else
        ret->compared.n_new = ret->rows.n_fresh;
    assert_int_equal(ret->compared.n_new, ret->rows.n_fresh);
    assert_int_equal(origins_append(origins, &ret->sources), 0);
    compare_close(compare);
    buf_release(&rows);
}

static void release(struct fed *fed)
{
    buf_release(&fed->all);
    buf_release(&fed->rows.fresh);
    buf_release(&fed->rows.again);
    buf_release(&fed->sources);
}

static void feed_all(const struct folder *f, const char *const *sources, int n, uint64_t limit, struct fed *ret)
{
    struct feed_options o = {.sources = sources, .n_sources = n, .limit = limit, .store_path = f->store};
    struct feed *feed = NULL;
    struct err err = {""};
    struct row_cursor c;
    struct row_item item;
    struct row_frame rf;

    if (open_feed(f, &o, &feed, &err) < 0)
        fail_msg("%s", err.text);
    compare_all(f, feed, &(struct msg_comparison){0}, ret);
    rf = (struct row_frame){ret->rows.fresh.data, ret->rows.fresh.size_bytes};
    row_cursor_init(&c, &rf, ret->rows.n_fresh ? 1 : 0, ret->rows.n_fresh);
    while (row_cursor_next_item(&c, &item, &err) == 1) {
        size_t k = strlen(ret->keys);

        (void)snprintf(ret->keys + k, sizeof(ret->keys) - k, "%s%.*s", k ? " " : "", (int)item.key_bytes,
                       (const char *)item.key);
    }
    row_cursor_release(&c);
    feed_close(feed);
}

/* The owner of the store, with the sources in its transaction, finds the same. */
static void check_attached(struct store *s, const struct fed *fed)
{
    struct compared_rows rows = {0};
    struct compare *compare = NULL;
    struct err err = {""};

    if (compare_attach(s, &(struct msg_comparison){0}, &compare, &err) < 0 ||
        compare_rows(compare, fed->all.data, fed->all.size_bytes, fed->n_all, &rows, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(rows.n_fresh, fed->rows.n_fresh);
    assert_int_equal(rows.n_again, fed->rows.n_again);
    assert_int_equal(rows.fresh.size_bytes, fed->rows.fresh.size_bytes);
    assert_int_equal(rows.again.size_bytes, fed->rows.again.size_bytes);
    if (rows.n_fresh)
        assert_memory_equal(rows.fresh.data, fed->rows.fresh.data, rows.fresh.size_bytes);
    if (rows.n_again)
        assert_memory_equal(rows.again.data, fed->rows.again.data, rows.again.size_bytes);
    compare_close(compare);
    buf_release(&rows.fresh);
    buf_release(&rows.again);
}

/* Feed, and let the manifest grow by it; `want` are the new keys. Returns how many rows are to be told anew. */
static uint32_t import(const struct folder *f, const char *const *sources, int n, const char *want, struct fed *ret)
{
    struct stored_job_meta meta = {.unit_items = 4, .n_nodes = 1};
    struct store_options options = {.create = true, .meta = &meta};
    struct store *s = NULL;
    struct err err = {""};
    uint32_t from_unit = UINT32_MAX;
    struct fed fed;

    msg_recipe_init(&meta.recipe);
    (void)msg_text_set(meta.program, sizeof(meta.program), "test");
    meta.recipe.decode.max_new_tokens = 20;
    meta.nodes[0].stage = STAGE_LLM;
    feed_all(f, sources, n, 0, &fed);
    assert_string_equal(fed.keys, want);
    if (store_open(f->store, &options, &s, NULL, &err) < 0 || store_begin(s, &err) < 0)
        fail_msg("%s", err.text);
    if (store_put_sources(s, fed.sources.data, fed.sources.size_bytes, fed.n_sources, &err) < 0)
        fail_msg("%s", err.text);
    check_attached(s, &fed);
    if (fed.rows.n_fresh)
        assert_int_equal(store_append_rows(s, fed.rows.fresh.data, fed.rows.fresh.size_bytes, fed.rows.n_fresh, &err),
                         0);
    if (fed.rows.n_again &&
        store_again(s, fed.rows.again.data, fed.rows.again.size_bytes, fed.rows.n_again, &from_unit, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(store_seal(s, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
    store_close(s);
    release(&fed);
    *ret = fed;
    return fed.rows.n_again;
}

/* Records of the first unit of four items: the first failed with `code`, the third as truncated. */
static void do_unit(const struct folder *f, const char *code)
{
    struct store_options options = {0};
    struct store *s = NULL;
    struct err err = {""};
    struct buf bytes;
    uint32_t ends[4];

    buf_init(&bytes, 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct row_record record = {.item = i, .failed = i % 2 == 0};

        (void)msg_text_set(record.error_code, sizeof(record.error_code), i ? "truncated" : code);
        assert_int_equal(stored_record_encode(&record, &bytes), 0);
        ends[i] = (uint32_t)bytes.size_bytes;
    }
    if (store_open(f->store, &options, &s, NULL, &err) < 0 || store_begin(s, &err) < 0 ||
        store_put_unit(s, 0, &(struct store_records){.data = bytes.data, .ends = ends, .n = 4, .n_failed = 2}, &err) <
            0 ||
        store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    store_close(s);
    buf_release(&bytes);
}

/* "0:a.jpg 2:c.jpg": what is to be done again, with the numbers. */
static void check_again(const struct folder *f, const struct msg_comparison *with, bool refresh, const char *want)
{
    const char *const sources[] = {f->in};
    struct feed_options o = {.sources = sources, .n_sources = 1, .store_path = f->store};
    struct msg_comparison how = *with;
    char text[256] = "";
    struct row_cursor c;
    struct row_frame rf;
    struct row_item item;
    struct feed *feed = NULL;
    struct err err = {""};
    struct fed fed;

    how.refresh = refresh;
    if (open_feed(f, &o, &feed, &err) < 0)
        fail_msg("%s", err.text);
    compare_all(f, feed, &how, &fed);
    rf = (struct row_frame){fed.rows.again.data, fed.rows.again.size_bytes};
    row_cursor_init(&c, &rf, fed.rows.n_again ? 1 : 0, fed.rows.n_again);
    while (row_cursor_next_item(&c, &item, &err) == 1) {
        size_t n = strlen(text);

        (void)snprintf(text + n, sizeof(text) - n, "%s%d:%.*s", n ? " " : "", (int)item.item, (int)item.key_bytes,
                       (const char *)item.key);
        assert_int_not_equal(item.path[0], '/'); /* of its source, as the manifest has it */
    }
    row_cursor_release(&c);
    assert_string_equal(text, want);
    for (uint32_t i = 0; i < with->n_codes; i++) /* the third item failed so, before or after it has been looked at */
        assert_int_equal(fed.compared.n_failed_with[i], 1);
    assert_int_equal(fed.compared.n_retried + fed.compared.n_refreshed, fed.rows.n_again);
    feed_close(feed);
    release(&fed);
}

static void test_feed_failed_and_changed_items_are_done_again_when_asked(void **state)
{
    static const struct msg_comparison passing = {0}, truncated = {.n_codes = 1, .codes = {"truncated"}},
                                       all = {.all_failed = true};
    const struct folder *f = *state;
    const char *const sources[] = {f->in};
    struct fed counts;
    char path[160];

    touch(f->in, "b.jpg", "1");
    touch(f->in, "c.jpg", "1");
    touch(f->in, "d.jpg", "1");
    touch(f->in, "e.jpg", "1");
    import(f, sources, 1, "b.jpg c.jpg d.jpg e.jpg", &counts);
    check_again(f, &all, true, ""); /* nothing is done yet */
    do_unit(f, "unreadable");
    for (int in_step = 1; in_step >= 0; in_step--) {
        check_again(f, &passing, false, "0:b.jpg");
        check_again(f, &truncated, false, "0:b.jpg 2:d.jpg");
        check_again(f, &all, false, "0:b.jpg 2:d.jpg");
        check_again(f, &passing, true, in_step ? "0:b.jpg" : "0:b.jpg 3:e.jpg");
        if (in_step)
            touch(f->in, "e.jpg", "another size");
        check_again(f, &passing, true, "0:b.jpg 3:e.jpg");
        check_again(f, &passing, false, "0:b.jpg");
        touch(f->in, "a.jpg", "new"); /* from here on walk and manifest are out of step */
    }
    (void)snprintf(path, sizeof(path), "%s/b.jpg", f->in);
    assert_int_equal(unlink(path), 0);
    check_again(f, &all, false, "2:d.jpg"); /* what is gone keeps its record */
}

static void test_retry_is_read_from_its_option(void **state)
{
    struct err err = {""};
    struct msg_comparison o = {0};

    (void)state;
    assert_int_equal(retry_add(&o, "empty,bad_row", &err), 0);
    assert_int_equal(retry_add(&o, "missing", &err), 0);
    assert_true(compare_retries(&o, "bad_row") && compare_retries(&o, "empty") && compare_retries(&o, "timed_out"));
    assert_false(compare_retries(&o, "corrupt"));
    assert_int_equal(o.n_codes, 3);
    assert_string_equal(o.codes[1], "bad_row");
    assert_int_equal(retry_add(&o, RETRY_ALL, &err), 0);
    assert_true(compare_retries(&o, "corrupt"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(retry_add(&o, (const char *[]){"", "a,", "Two words"}[i], &err), -EINVAL);
}

static void test_feed_only_what_the_manifest_lacks_becomes_rows(void **state)
{
    const struct folder *f = *state;
    const char *const sources[] = {f->in};
    struct fed c;
    char path[160];

    touch(f->in, "b.jpg", "1");
    touch(f->in, "d.jpg", "22");
    touch(f->in, "e.png", "3");
    touch(f->in, "note.txt", "3");
    import(f, sources, 1, "b.jpg d.jpg e.png", &c);
    assert_int_equal(c.counts.n_walked, 3);
    assert_int_equal(c.compared.n_new, 3);
    assert_int_equal(c.counts.skipped.n[SOURCE_OTHER_NAMES], 1);
    import(f, sources, 1, "", &c); /* the walk in step with the manifest */
    assert_int_equal(c.counts.n_walked, 3);
    assert_int_equal(c.compared.n_changed, 0);
    touch(f->in, "a.jpg", "0"); /* out of step from the first on */
    touch(f->in, "c.jpg", "0");
    touch(f->in, "f.jpg", "0");
    import(f, sources, 1, "a.jpg c.jpg f.jpg", &c);
    (void)snprintf(path, sizeof(path), "%s/d.jpg", f->in);
    assert_int_equal(unlink(path), 0);
    import(f, sources, 1, "", &c);
    assert_int_equal(c.counts.n_walked, 5);
    touch(f->in, "b.jpg", "another size");
    assert_int_equal(import(f, sources, 1, "", &c), 1); /* it is not done yet: the store is told */
    assert_int_equal(import(f, sources, 1, "", &c), 0);
    assert_int_equal(c.compared.n_changed, 0);
}

static void test_feed_the_same_picture_twice_is_two_items_once(void **state)
{
    const struct folder *f = *state;
    char list[100], one[160];
    const char *const sources[] = {list, one};
    struct fed c;

    touch(f->in, "a.jpg", "1");
    touch(f->path, "list.txt", "in/a.jpg\nin/a.jpg\nin/gone.jpg\n");
    (void)snprintf(list, sizeof(list), "@%s/list.txt", f->path);
    (void)snprintf(one, sizeof(one), "%s/a.jpg", f->in);
    import(f, sources, 2, "in/a.jpg in/a.jpg in/gone.jpg a.jpg", &c);
    import(f, sources, 2, "", &c);
    assert_int_equal(c.counts.n_walked, 4);
    touch(f->path, "list.txt", "in/a.jpg\nin/a.jpg\nin/a.jpg\nin/gone.jpg\n");
    import(f, sources, 2, "a.jpg", &c); /* one more than the manifest has: the last of them */
}

static void test_feed_the_same_folder_written_another_way_is_the_same(void **state)
{
    const struct folder *f = *state;
    char dotted[160];
    const char *const sources[] = {f->in}, *const again[] = {dotted};
    struct fed c;

    touch(f->in, "a.jpg", "1");
    import(f, sources, 1, "a.jpg", &c);
    (void)snprintf(dotted, sizeof(dotted), "%s//./in/.", f->path);
    import(f, again, 1, "", &c);
    assert_int_equal(c.counts.n_walked, 1);
    (void)snprintf(dotted, sizeof(dotted), "%s/./in//./a.jpg", f->path);
    import(f, again, 1, "", &c);
    touch(f->path, "list.txt", "./in/a.jpg\n");
    (void)snprintf(dotted, sizeof(dotted), "@%s/list.txt", f->path);
    import(f, again, 1, "", &c);
    assert_int_equal(c.counts.n_walked, 1);
}

static void test_feed_limit_counts_the_walk_not_the_news(void **state)
{
    const struct folder *f = *state;
    const char *const sources[] = {f->in};
    struct fed c;
    struct fed fed;

    touch(f->in, "a.jpg", "1");
    touch(f->in, "b.jpg", "1");
    import(f, sources, 1, "a.jpg b.jpg", &c);
    touch(f->in, "c.jpg", "1");
    touch(f->in, "d.jpg", "1");
    feed_all(f, sources, 1, 3, &fed);
    assert_string_equal(fed.keys, "c.jpg");
    release(&fed);
}

static void test_feed_more_than_it_looks_at_first_comes_in_order(void **state)
{
    const struct folder *f = *state;
    const char *const sources[] = {f->in};
    struct feed_options o = {.sources = sources, .n_sources = 1, .store_path = f->store};
    struct feed *feed = NULL;
    struct err err;
    struct fed fed;
    const char *p;

    for (int i = 0; i < FEED_PEEK_ITEMS + 50; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "%04d.jpg", i);
        touch(f->in, name, "x");
    }
    assert_int_equal(open_feed(f, &o, &feed, &err), 0);
    assert_int_equal(feed_peeked(feed), FEED_PEEK_ITEMS);
    feed_close(feed);
    feed_all(f, sources, 1, 0, &fed);
    assert_int_equal(fed.compared.n_new, FEED_PEEK_ITEMS + 50);
    p = fed.keys;
    for (int i = 0; i < FEED_PEEK_ITEMS + 50; i++, p += 9)
        assert_int_equal(atoi(p), i);
    release(&fed);
}

static void test_feed_passes_over_the_store_itself(void **state)
{
    const struct folder *f = *state;
    const char *const sources[] = {f->path};
    struct fed c;

    touch(f->in, "a.jpg", "1");
    import(f, sources, 1, "in/a.jpg", &c);
    touch(f->store, "b.jpg", "1");
    import(f, sources, 1, "", &c);
}

static void test_feed_a_source_that_is_missing_is_named_at_once(void **state)
{
    const struct folder *f = *state;
    const char *const sources[] = {f->in, "/nowhere/at/all"};
    struct feed_options o = {.sources = sources, .n_sources = 2, .store_path = f->store};
    struct feed *feed = NULL;
    struct err err = {""};

    for (int i = 0; i < FEED_PEEK_ITEMS + 1; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "%04d.jpg", i);
        touch(f->in, name, "x");
    }
    assert_true(open_feed(f, &o, &feed, &err) < 0);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    assert_null(feed);
}

static void rename_to(const char *from, const char *to)
{
    assert_int_equal(rename(from, to), 0);
}

/* "SOURCE PATH below the folder\n" of all items of the store. */
static void stored(const struct folder *f, char *ret, size_t size)
{
    const struct row_source *sources;
    struct reader *r = NULL;
    struct reader_row row;
    struct err err = {""};
    uint32_t n;
    int rc;

    ret[0] = '\0';
    if (reader_open(f->store, false, &r, &err) < 0 || reader_sources(r, &sources, &n, &err) < 0)
        fail_msg("%s", err.text);
    while ((rc = reader_next(r, &row, &err)) > 0) {
        size_t used = strlen(ret);

        (void)snprintf(ret + used, size - used, "%s %s\n", sources[row.listed.source - 1].name,
                       (const char *)row.listed.path + strlen(f->path) + 1);
    }
    if (rc < 0)
        fail_msg("%s", err.text);
    reader_close(r);
}

static void test_feed_a_folder_that_was_moved_goes_on(void **state)
{
    const struct folder *f = *state;
    char moved[100], list[120], text[1024];
    const char *const sources[] = {f->in}, *const at_moved[] = {moved}, *const lists[] = {list};
    struct fed c;

    touch(f->in, "a.jpg", "1");
    touch(f->in, "b.jpg", "22");
    touch(f->in, "l.jsonl", "{\"path\": \"a.jpg\", \"key\": \"k\"}\n{\"path\": \"a.jpg\", \"key\": \"l\"}\n");
    import(f, sources, 1, "a.jpg b.jpg", &c);
    (void)snprintf(list, sizeof(list), "@%s/l.jsonl", f->in);
    import(f, lists, 1, "k l", &c);
    (void)snprintf(moved, sizeof(moved), "%s/moved", f->path);
    rename_to(f->in, moved);
    touch(moved, "0.jpg", "333"); /* what is new comes to it */
    import(f, at_moved, 1, "0.jpg", &c);
    assert_int_equal(c.compared.n_changed, 0);
    stored(f, text, sizeof(text));
    assert_string_equal(text, "in moved/a.jpg\nin moved/b.jpg\nl.jsonl in/a.jpg\nl.jsonl in/a.jpg\nin moved/0.jpg\n");
    (void)snprintf(list, sizeof(list), "@%s/l.jsonl", moved);
    import(f, lists, 1, "", &c); /* the list and its own keys too */
    import(f, at_moved, 1, "", &c);
}

static void touch_at(const char *dir, const char *name, const char *bytes, time_t seconds)
{
    const struct timespec times[2] = {{seconds, 0}, {seconds, 0}};
    char path[256];

    touch(dir, name, bytes);
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* cp without -p, and the first one is gone: all sizes are the same. Where it is still there it may be anything. */
static void test_feed_a_copy_with_new_times_goes_on_when_the_first_is_gone(void **state)
{
    const struct folder *f = *state;
    char copy[100], gone[100];
    const char *const sources[] = {f->in}, *const copies[] = {copy};
    struct fed c;
    struct fed fed;

    (void)snprintf(copy, sizeof(copy), "%s/copy", f->path);
    (void)snprintf(gone, sizeof(gone), "%s/gone", f->path);
    assert_int_equal(mkdir(copy, 0700), 0);
    touch_at(f->in, "a.jpg", "1", 1000);
    touch_at(f->in, "b.jpg", "22", 1000);
    touch_at(copy, "a.jpg", "1", 5000);
    touch_at(copy, "b.jpg", "22", 5000);
    import(f, sources, 1, "a.jpg b.jpg", &c);
    feed_all(f, copies, 1, 0, &fed);
    assert_string_equal(fed.keys, "a.jpg b.jpg");
    release(&fed);
    rename_to(f->in, gone);
    import(f, copies, 1, "", &c);
}

/* A list by keys of its own may name its pictures anew: what is not done yet is looked for there. */
static void test_feed_new_paths_of_known_keys_are_told(void **state)
{
    const struct folder *f = *state;
    char list[100], text[1024];
    const char *const sources[] = {list};
    struct fed c;

    (void)snprintf(list, sizeof(list), "@%s/l.csv", f->path);
    touch(f->path, "l.csv", "key,path\nk,/nowhere/a.jpg\nl,/nowhere/b.jpg\n");
    import(f, sources, 1, "k l", &c);
    for (int in_step = 1; in_step >= 0; in_step--) {
        touch(f->path, "l.csv", in_step ? "key,path\nk,in/1.jpg\nl,in/2.jpg\n" : "key,path\nl,in/3.jpg\nk,in/4.jpg\n");
        assert_int_equal(import(f, sources, 1, "", &c), 2);
        assert_int_equal(import(f, sources, 1, "", &c), 0);
        stored(f, text, sizeof(text));
        assert_string_equal(text, in_step ? "l.csv in/1.jpg\nl.csv in/2.jpg\n" : "l.csv in/4.jpg\nl.csv in/3.jpg\n");
    }
}

static void test_feed_other_pictures_of_the_same_names_are_new(void **state)
{
    const struct folder *f = *state;
    char other[100], named[120], text[1024];
    const char *const sources[] = {f->in}, *const others[] = {other}, *const again[] = {named};
    struct fed c;

    (void)snprintf(other, sizeof(other), "%s/other", f->path);
    (void)snprintf(named, sizeof(named), "in=%s", other);
    assert_int_equal(mkdir(other, 0700), 0);
    touch(f->in, "1.jpg", "1");
    touch(f->in, "2.jpg", "1");
    touch(other, "1.jpg", "22");
    touch(other, "2.jpg", "22");
    import(f, sources, 1, "1.jpg 2.jpg", &c);
    import(f, others, 1, "1.jpg 2.jpg", &c);
    stored(f, text, sizeof(text));
    assert_string_equal(text, "in in/1.jpg\nin in/2.jpg\nother other/1.jpg\nother other/2.jpg\n");
    import(f, others, 1, "", &c);
    assert_int_equal(c.compared.n_changed, 0);
    assert_int_equal(import(f, again, 1, "", &c),
                     2); /* unless the user says that they are the same: then they have changed */
}

static void test_feed_files_are_sources_by_folder(void **state)
{
    const struct folder *f = *state;
    char a[100], b[100], x[120], y[120], z[120], text[1024];
    const char *const sources[] = {x, y, z}, *const folders[] = {a, b};
    struct fed c;

    (void)snprintf(a, sizeof(a), "%s/tr", f->path);
    (void)snprintf(b, sizeof(b), "%s/in/tr", f->path);
    assert_int_equal(mkdir(a, 0700), 0);
    assert_int_equal(mkdir(b, 0700), 0);
    touch(a, "1.jpg", "1");
    touch(b, "1.jpg", "1");
    touch(a, "2.jpg", "1");
    (void)snprintf(x, sizeof(x), "%s/1.jpg", a);
    (void)snprintf(y, sizeof(y), "%s/1.jpg", b);
    (void)snprintf(z, sizeof(z), "%s/2.jpg", a);
    import(f, sources, 3, "1.jpg 1.jpg 2.jpg", &c);
    stored(f, text, sizeof(text));
    assert_string_equal(text, "tr tr/1.jpg\ntr-2 in/tr/1.jpg\ntr tr/2.jpg\n");
    import(f, folders, 2, "", &c);
}

static struct row_item item_at(const char *path, const char *key, uint64_t size_bytes, int64_t mtime_ns)
{
    return (struct row_item){.path = (const uint8_t *)path,
                             .path_bytes = (uint32_t)strlen(path),
                             .key = (const uint8_t *)key,
                             .key_bytes = (uint32_t)strlen(key),
                             .size_bytes = size_bytes,
                             .mtime_ns = mtime_ns};
}

static void test_known_takes_as_often_as_was_added(void **state)
{
    struct known k = {0};
    struct known_found found;
    char path[32];
    struct row_item item = item_at("/a", "a", 1, 1);

    (void)state;
    assert_false(known_take(&k, &item, &found));
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(path, sizeof(path), "/p%d", i % 2500);
        item = item_at(path, path + 1, 7, 9);
        item.item = (uint64_t)i;
        assert_int_equal(known_add(&k, &item, KNOWN_DONE), 0);
    }
    for (int i = 0; i < 7500; i++) {
        (void)snprintf(path, sizeof(path), "/p%d", i % 2500);
        item = item_at(path, path + 1, 7, 9);
        assert_int_equal(known_take(&k, &item, &found), i < 5000);
        assert_false(i < 5000 && (found.changed || found.item != (uint64_t)i)); /* the first added first */
    }
    known_release(&k);
}

static void test_known_tells_changed_bytes_and_unknown_ones(void **state)
{
    static const struct {
        uint64_t size_bytes;
        int64_t mtime_ns;
        unsigned changed;
    } cases[] = {{8, 9, KNOWN_FILE}, {7, 10, KNOWN_FILE}, {0, 0, 0} /* could not be examined */, {7, 9, 0}};
    struct row_item item = item_at("/a", "a", 7, 9);
    struct known k = {0};
    struct known_found found;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(known_add(&k, &item, KNOWN_DONE), 0);
    for (int i = 0; i < 4; i++) {
        item = item_at("/a", "a", cases[i].size_bytes, cases[i].mtime_ns);
        assert_true(known_take(&k, &item, &found));
        assert_int_equal(found.changed, cases[i].changed);
    }
    known_release(&k);
}

static void test_known_key_counts_where_it_is_a_name_of_its_own(void **state)
{
    struct row_item a = item_at("/in/x/a.jpg", "x/a.jpg", 1, 1), shorter = item_at("/in/x/a.jpg", "a.jpg", 1, 1),
                    dotted = item_at("/in/x/a.jpg", "././x/a.jpg", 1, 1), own = item_at("/in/x/a.jpg", "17", 1, 1),
                    other = item_at("/in/x/a.jpg", "18", 1, 1), tail = item_at("/in/x/a.jpg", ".jpg", 1, 1),
                    whole = item_at("/in/x/a.jpg", "/in/x/a.jpg", 1, 1);
    struct known k = {0};
    struct known_found found;

    (void)state;
    assert_true(known_same(&a, &shorter) && known_same(&a, &dotted) && known_same(&a, &whole));
    assert_false(known_same(&a, &own) || known_same(&own, &other) || known_same(&a, &tail));
    assert_true(known_same(&own, &own));
    assert_int_equal(known_add(&k, &own, KNOWN_DONE), 0);
    assert_int_equal(known_add(&k, &a, KNOWN_DONE), 0);
    assert_false(known_take(&k, &other, &found));
    assert_true(known_take(&k, &shorter, &found));
    assert_false(known_take(&k, &dotted, &found));
    assert_true(known_take(&k, &own, &found));
    known_release(&k);
}

static void test_known_tells_changed_fields(void **state)
{
    struct row_field cat = {(const uint8_t *)"c", (const uint8_t *)"cat", 1, 3},
                     dog = {(const uint8_t *)"c", (const uint8_t *)"dog", 1, 3};
    struct row_item a = item_at("/a", "a", 1, 1), b = a;
    struct known k = {0};
    struct known_found found;

    (void)state;
    a.n_fields = b.n_fields = 1;
    a.fields = &cat;
    b.fields = &dog;
    assert_int_equal(known_changes(&a, &a), 0);
    assert_int_equal(known_changes(&a, &b), KNOWN_FIELDS);
    assert_int_equal(known_add(&k, &a, KNOWN_DONE), 0);
    assert_true(known_take(&k, &b, &found));
    assert_int_equal(found.changed, KNOWN_FIELDS);
    assert_int_equal(known_add(&k, &a, KNOWN_DONE), 0);
    assert_int_equal(known_add(&k, &b, KNOWN_DONE), 0); /* two rows of one picture: which is which cannot be told */
    assert_true(known_take(&k, &b, &found));
    assert_int_equal(found.changed, 0);
    known_release(&k);
}

static void test_feed_list_with_columns_keeps_what_is_asked_for(void **state)
{
    static const char *const names[] = {"question", "caption"};
    const struct folder *f = *state;
    char list[100];
    const char *const sources[] = {list}, *const plain[] = {f->in};
    struct feed_options o = {
        .sources = sources, .n_sources = 1, .store_path = f->store, .columns = {names, 2}, .needed = 1};
    struct feed *feed = NULL;
    struct err err = {""};
    struct buf rows;
    uint32_t n;
    struct row_cursor c;
    struct row_frame rf;
    struct row_item item;
    bool more = true;

    touch(f->in, "a.jpg", "1");
    (void)snprintf(list, sizeof(list), "@%s/l.jsonl", f->path);
    touch(f->path, "l.jsonl",
          "{\"path\": \"in/a.jpg\", \"key\": \"q1\", \"question\": [\"what?\", \"who?\"], \"other\": 1}\n"
          "{\"path\": \"in/a.jpg\", \"key\": \"q2\", \"caption\": \"x\"}\n");
    buf_init(&rows, 0);
    if (open_feed(f, &o, &feed, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(feed_next(feed, &rows, &n, &more, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(feed_counts(feed)->n_without, 1);
    assert_int_equal(feed_counts(feed)->columns_seen, 3);
    rf = (struct row_frame){rows.data, rows.size_bytes};
    row_cursor_init(&c, &rf, 1, n);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
    assert_int_equal(item.n_fields, 2);
    assert_memory_equal(item.fields[1].name, "question", 8);
    assert_memory_equal(item.fields[1].value, "who?", 4);
    assert_int_equal(row_cursor_next_item(&c, &item, &err), 1);
    assert_memory_equal(item.fields[0].name, "caption", 7);
    row_cursor_release(&c);
    feed_close(feed);
    feed = NULL;
    o.needed = 4 - 1; /* both */
    assert_int_equal(open_feed(f, &o, &feed, &err), 0);
    feed_close(feed);
    feed = NULL;
    touch(f->path, "l.jsonl", "{\"path\": \"in/a.jpg\"}\n{\"path\": \"in/a.jpg\", \"question\": \"x\"}\n");
    assert_int_equal(open_feed(f, &o, &feed, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no row has the column \"caption\""));
    o.sources = plain;
    assert_int_equal(open_feed(f, &o, &feed, &err), -EINVAL);
    assert_non_null(strstr(err.text, "has no columns"));
    touch(f->path, "l.jsonl", "{\"path\": \"in/a.jpg\"}\n{\n");
    o.sources = sources;
    assert_int_equal(open_feed(f, &o, &feed, &err), -EINVAL);
    assert_non_null(strstr(err.text, "l.jsonl, line 2"));
    buf_release(&rows);
}

/* `n` rows of one picture; row `bad` is broken. */
static void write_list(const struct folder *f, int n, int bad)
{
    char path[100];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/l.jsonl", f->path);
    file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 1; i <= n; i++)
        if (i == bad)
            (void)fputs("{\n", file);
        else
            (void)fprintf(file, "{\"path\": \"in/a.jpg\", \"key\": \"q%d\"}\n", i);
    assert_int_equal(fclose(file), 0);
}

static void test_feed_a_list_is_read_once_where_the_store_knows_it(void **state)
{
    const struct folder *f = *state;
    char list[100];
    const char *const sources[] = {list};
    struct feed_options o = {.sources = sources, .n_sources = 1, .store_path = f->store};
    struct feed *feed = NULL;
    struct err err = {""};
    struct buf rows;
    bool more = true;
    struct fed fed;
    uint32_t n;
    int rc = 0;

    touch(f->in, "a.jpg", "1");
    (void)snprintf(list, sizeof(list), "@%s/l.jsonl", f->path);
    write_list(f, 600, 550);
    assert_int_equal(open_feed(f, &o, &feed, &err), -EINVAL); /* before any work */
    assert_non_null(strstr(err.text, "l.jsonl, line 550"));
    write_list(f, 1, 0);
    import(f, sources, 1, "q1", &fed);
    write_list(f, 600, 550);
    assert_int_equal(open_feed(f, &o, &feed, &err), 0);
    buf_init(&rows, 0);
    while (rc == 0 && more)
        rc = feed_next(feed, &rows, &n, &more, &err);
    assert_int_equal(rc, -EINVAL); /* where the walk comes to it */
    assert_non_null(strstr(err.text, "l.jsonl, line 550"));
    feed_close(feed);
    feed = NULL;
    write_list(f, 200, 150);
    assert_int_equal(open_feed(f, &o, &feed, &err), -EINVAL); /* among the first rows */
    buf_release(&rows);
}

static void test_feed_counts_the_rows_of_a_pipe(void **state)
{
    static const char *const names[] = {"question", "caption"};
    static const char text[] = "{\"path\": \"in/a.jpg\"}\n{\"path\": \"http://a/b.jpg\"}\n";
    const struct folder *f = *state;
    char list[100];
    const char *const sources[] = {list};
    struct feed_options o = {
        .sources = sources, .n_sources = 1, .store_path = f->store, .columns = {names, 2}, .needed = 1};
    struct feed *feed = NULL;
    struct err err = {""};
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], text, strlen(text)), strlen(text));
    (void)close(ends[1]);
    (void)snprintf(list, sizeof(list), "@/dev/fd/%d", ends[0]);
    if (open_feed(f, &o, &feed, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(feed_peeked(feed), 2);
    assert_int_equal(feed_counts(feed)->n_without, 1);
    assert_int_equal(feed_counts(feed)->n_bad, 1);
    assert_int_equal(feed_counts(feed)->columns_seen, 0);
    feed_close(feed);
    (void)close(ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_feed_only_what_the_manifest_lacks_becomes_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_failed_and_changed_items_are_done_again_when_asked, setup, teardown),
        cmocka_unit_test(test_retry_is_read_from_its_option),
        cmocka_unit_test_setup_teardown(test_feed_the_same_picture_twice_is_two_items_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_the_same_folder_written_another_way_is_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_limit_counts_the_walk_not_the_news, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_more_than_it_looks_at_first_comes_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_a_folder_that_was_moved_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_a_copy_with_new_times_goes_on_when_the_first_is_gone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_feed_new_paths_of_known_keys_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_other_pictures_of_the_same_names_are_new, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_files_are_sources_by_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_passes_over_the_store_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_a_source_that_is_missing_is_named_at_once, setup, teardown),
        cmocka_unit_test(test_known_takes_as_often_as_was_added),
        cmocka_unit_test(test_known_tells_changed_bytes_and_unknown_ones),
        cmocka_unit_test(test_known_key_counts_where_it_is_a_name_of_its_own),
        cmocka_unit_test(test_known_tells_changed_fields),
        cmocka_unit_test_setup_teardown(test_feed_list_with_columns_keeps_what_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_a_list_is_read_once_where_the_store_knows_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_counts_the_rows_of_a_pipe, setup, teardown),
    };

    return cmocka_run_group_tests_name("feed", tests, NULL, NULL);
}
