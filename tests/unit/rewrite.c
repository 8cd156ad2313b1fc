#include "tests/unit/rewrite.h"

#include "base/buf.h"
#include "base/file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void write_in(const struct rewrite *r, const char *name, const void *data, size_t n)
{
    char path[160];
    struct err err = {""};

    (void)snprintf(path, sizeof(path), "%s/%s", r->dir, name);
    if (file_write_atomic(path, data, n, &err) < 0)
        fail_msg("%s", err.text);
}

void rewrite_open(struct rewrite *r, const char *source_dir)
{
    static const char *const files[] = {"config.json", "generation_config.json", "preprocessor_config.json",
                                        "tokenizer.json"};
    struct err err = {""};

    *r = (struct rewrite){.n_tensors = 0};
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/blipline-checkpoint-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[256];
        struct buf text = {0};

        (void)snprintf(path, sizeof(path), "%s/%s", source_dir, files[i]);
        if (file_read(path, 64 << 20, &text, &err) == 0)
            write_in(r, files[i], text.data, text.size_bytes);
        buf_release(&text);
    }
    if (safetensors_open(source_dir, &r->source, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < safetensors_count(r->source); i++) {
        const struct safetensors_entry *e = safetensors_at(r->source, i);
        struct rewrite_tensor *t = &r->tensors[r->n_tensors++];

        assert_true(r->n_tensors < REWRITE_MAX_TENSORS);
        (void)snprintf(t->name, sizeof(t->name), "%s", e->name);
        t->tensor = e->tensor;
        t->size_bytes = e->size_bytes;
    }
}

void rewrite_close(struct rewrite *r)
{
    char command[128];

    for (size_t i = 0; i < r->n_tensors; i++)
        free(r->tensors[i].own);
    safetensors_free(r->source);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", r->dir);
    assert_int_equal(system(command), 0);
}

struct rewrite_tensor *rewrite_find(struct rewrite *r, const char *name)
{
    for (size_t i = 0; i < r->n_tensors; i++)
        if (strcmp(r->tensors[i].name, name) == 0)
            return &r->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

void rewrite_remove(struct rewrite *r, const char *name)
{
    struct rewrite_tensor *t = rewrite_find(r, name);

    free(t->own);
    memmove(t, t + 1, (size_t)(&r->tensors[r->n_tensors] - (t + 1)) * sizeof(*t));
    r->n_tensors--;
}

struct rewrite_tensor *rewrite_copy(struct rewrite *r, const char *like, const char *name)
{
    struct rewrite_tensor *t = &r->tensors[r->n_tensors];

    assert_true(r->n_tensors < REWRITE_MAX_TENSORS);
    *t = *rewrite_find(r, like);
    t->own = NULL;
    (void)snprintf(t->name, sizeof(t->name), "%s", name);
    r->n_tensors++;
    return t;
}

void rewrite_touch(struct rewrite *r, const char *name)
{
    struct rewrite_tensor *t = rewrite_find(r, name);

    if (!t->own) {
        t->own = malloc(t->size_bytes);
        assert_non_null(t->own);
        memcpy(t->own, t->tensor.data, t->size_bytes);
        t->tensor.data = t->own;
    }
    ((unsigned char *)t->own)[0] ^= 1;
}

void rewrite_text(struct rewrite *r, const char *file, const char *from, const char *to)
{
    char path[160];
    struct buf text = {0}, out = {0};
    const char *at;

    (void)snprintf(path, sizeof(path), "%s/%s", r->dir, file);
    assert_int_equal(file_read(path, 64 << 20, &text, NULL), 0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    at = strstr((const char *)text.data, from);
    if (!at)
        fail_msg("%s has no %s", file, from);
    assert_int_equal(buf_append(&out, text.data, (size_t)(at - (const char *)text.data)), 0);
    assert_int_equal(buf_appendf(&out, "%s%s", to, at + strlen(from)), 0);
    write_in(r, file, out.data, out.size_bytes);
    buf_release(&text);
    buf_release(&out);
}

static void save_shard(struct rewrite *r, int shard, int n_shards, const char *name, json_t *map)
{
    json_t *header = json_object();
    struct buf out = {0}, data = {0};
    char *text;

    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct rewrite_tensor *t = &r->tensors[i];
        json_t *shape = json_array();

        for (int k = 0; k < t->tensor.n_dims; k++)
            json_array_append_new(shape, json_integer(t->tensor.shape[k]));
        if ((int)(i % (size_t)n_shards) != shard) {
            json_decref(shape);
            continue;
        }
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(t->tensor.dtype), "shape", shape,
                                      "data_offsets", (json_int_t)data.size_bytes,
                                      (json_int_t)(data.size_bytes + t->size_bytes)));
        json_object_set_new(map, t->name, json_string(name));
        assert_int_equal(buf_append(&data, t->tensor.data, t->size_bytes), 0);
    }
    text = json_dumps(header, JSON_COMPACT);
    assert_non_null(text);
    for (int i = 0; i < 8; i++)
        assert_int_equal(buf_append(&out, &(uint8_t){(uint8_t)((uint64_t)strlen(text) >> (8 * i))}, 1), 0);
    assert_int_equal(buf_append(&out, text, strlen(text)), 0);
    assert_int_equal(buf_append(&out, data.data, data.size_bytes), 0);
    write_in(r, name, out.data, out.size_bytes);
    free(text);
    json_decref(header);
    buf_release(&out);
    buf_release(&data);
}

void rewrite_save(struct rewrite *r, int n_shards)
{
    json_t *map = json_object(), *index;
    char name[64], *text;

    if (n_shards == 1) {
        save_shard(r, 0, 1, "model.safetensors", map);
        json_decref(map);
        return;
    }
    for (int i = 0; i < n_shards; i++) {
        (void)snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", i + 1, n_shards);
        save_shard(r, i, n_shards, name, map);
    }
    index = json_pack("{s:o}", "weight_map", map);
    text = json_dumps(index, 0);
    assert_non_null(text);
    write_in(r, "model.safetensors.index.json", text, strlen(text));
    free(text);
    json_decref(index);
}
