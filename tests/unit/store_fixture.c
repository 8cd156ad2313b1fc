#include "tests/unit/store_fixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *fixture_dir(void)
{
    const char *base = getenv("TMPDIR");
    char name[256];

    (void)snprintf(name, sizeof(name), "%s/blipline-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(name));
    return strdup(name);
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);

    for (const struct dirent *e; d && (e = readdir(d));) {
        char name[1024];

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        (void)snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        if (unlink(name) < 0)
            remove_tree(name);
    }
    if (d)
        (void)closedir(d);
    (void)rmdir(path);
}

void fixture_dir_remove(char *dir)
{
    remove_tree(dir);
    free(dir);
}

struct stored_job_meta fixture_meta(uint32_t unit_items)
{
    struct stored_job_meta m = {
        .unit_items = unit_items, .n_nodes = 1, .source = "photos/", .program = "blipline test"};

    msg_recipe_init(&m.recipe);
    m.recipe.decode.max_new_tokens = 20;
    m.nodes[0].stage = STAGE_ENCODE;
    return m;
}

struct store *fixture_store(const char *path, uint32_t unit_items)
{
    const struct stored_job_meta meta = fixture_meta(unit_items);
    const struct store_options o = {.create = true, .meta = &meta};
    struct store *s = NULL;
    struct err err;

    if (store_open(path, &o, &s, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

void fixture_one_row(struct buf *rows, const void *key, uint32_t key_bytes)
{
    const struct row_item item = {.key = key,
                                  .key_bytes = key_bytes,
                                  .path = (const uint8_t *)"/p",
                                  .path_bytes = 2,
                                  .size_bytes = 1000,
                                  .mtime_ns = -5};

    assert_int_equal(row_item_append(rows, &item), 0);
}

void fixture_rows(struct buf *rows, uint64_t first, uint32_t n)
{
    for (uint64_t i = first; i < first + n; i++) {
        char key[32], path[64];
        struct row_item item = {.size_bytes = 1000 + i, .mtime_ns = (int64_t)(i * 7)};

        item.key_bytes = (uint32_t)snprintf(key, sizeof(key), "key-%08llu", (unsigned long long)i);
        item.path_bytes = (uint32_t)snprintf(path, sizeof(path), "/pictures/%s.jpg", key);
        item.key = (const uint8_t *)key;
        item.path = (const uint8_t *)path;
        assert_int_equal(row_item_append(rows, &item), 0);
    }
}

void fixture_import(struct store *s, uint64_t first, uint32_t n)
{
    struct err err = {""};

    while (n) {
        uint32_t part = n < 20000 ? n : 20000;
        struct buf rows;

        buf_init(&rows, 0);
        fixture_rows(&rows, first, part);
        assert_int_equal(store_begin(s, &err), 0);
        if (store_append_rows(s, rows.data, rows.size_bytes, part, &err) < 0 || store_commit(s, &err) < 0)
            fail_msg("%s", err.text);
        buf_release(&rows);
        first += part;
        n -= part;
    }
    assert_int_equal(store_begin(s, &err), 0);
    assert_int_equal(store_seal(s, &err), 0);
    assert_int_equal(store_commit(s, &err), 0);
}

void fixture_records_init(struct fixture_records *r, uint64_t first, uint32_t n, uint32_t bad)
{
    buf_init(&r->bytes, 0);
    r->ends = calloc(n ? n : 1, sizeof(*r->ends));
    r->n = n;
    r->n_failed = 0;
    assert_non_null(r->ends);
    for (uint32_t i = 0; i < n; i++) {
        struct row_record record = {.item = first + i};
        char text[64];

        (void)snprintf(text, sizeof(text), "a caption of item %llu", (unsigned long long)record.item);
        if (bad && record.item % bad == 0) {
            record.failed = true;
            (void)snprintf(record.error_code, sizeof(record.error_code), "truncated");
            record.error_message = (const uint8_t *)text;
            record.error_message_bytes = (uint32_t)strlen(text);
            r->n_failed++;
        } else {
            record.n_captions = 1;
            record.captions[0] = (struct row_caption){
                .text = (const uint8_t *)text, .text_bytes = (uint32_t)strlen(text), .logprob = -1.5F, .tokens = 7};
        }
        assert_int_equal(stored_record_encode(&record, &r->bytes), 0);
        r->ends[i] = (uint32_t)r->bytes.size_bytes;
    }
}

void fixture_records_release(struct fixture_records *r)
{
    buf_release(&r->bytes);
    free(r->ends);
}

void fixture_commit_unit(struct store *s, uint32_t unit, uint64_t first, uint32_t n, uint32_t bad)
{
    struct fixture_records r;
    struct err err = {""};

    fixture_records_init(&r, first, n, bad);
    assert_int_equal(store_begin(s, &err), 0);
    if (store_put_unit(s, unit,
                       &(struct store_records){.data = r.bytes.data, .ends = r.ends, .n = r.n, .n_failed = r.n_failed},
                       &err) < 0 ||
        store_commit(s, &err) < 0)
        fail_msg("%s", err.text);
    fixture_records_release(&r);
}

static bool print_problem(void *arg, int64_t unit, int64_t item, const char *text)
{
    if (arg)
        printf("unit %lld item %lld: %s\n", (long long)unit, (long long)item, text);
    return true;
}

uint64_t fixture_problems(const char *path, int print)
{
    const struct reader_verify v = {.problem = print_problem, .arg = print ? &print : NULL};
    struct reader *r = NULL;
    struct err err;
    uint64_t n = 0;

    if (reader_open(path, false, &r, &err) < 0 || reader_verify(r, &v, &n, &err) < 0)
        fail_msg("%s", err.text);
    reader_close(r);
    return n;
}
