#include "tests/unit/fake_async_calls.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

int async_enter(struct fake_async *l, const char *what, bool in_pass_too)
{
    PROMISE(!l->staging, "%s between upload_begin and upload_end", what);
    PROMISE(in_pass_too || !l->in_pass, "%s in a pass", what);
    if (l->fail_in >= 0 && l->fail_in-- == 0)
        l->failed = true;
    if (!l->failed)
        return 0;
    (void)err_set(&l->base.why, -EIO, "the card fell off the bus");
    return -EIO;
}

/* -- passes -- */

void async_note(struct fake_async *l, const char *what, const uint64_t *args, size_t n)
{
    if (!l->in_pass)
        return;
    l->calls = XXH3_64bits_withSeed(what, strlen(what), l->calls);
    l->calls = XXH3_64bits_withSeed(args, n * sizeof(*args), l->calls);
}

void async_note_array(struct fake_async *l, const void *at, size_t n_bytes)
{
    struct array *a = &l->arrays[l->n_arrays];

    if (!l->in_pass || !at)
        return;
    NOTE(l, "array", AT(at));
    for (int i = 0; i < l->n_arrays; i++)
        if (l->arrays[i].at == at && l->arrays[i].n_bytes == n_bytes)
            return;
    PROMISE(l->n_arrays < MAX_ARRAYS, "too many arrays in a pass");
    *a = (struct array){.at = at, .copy = malloc(n_bytes), .n_bytes = n_bytes};
    assert(a->copy);
    memcpy(a->copy, at, n_bytes);
    l->n_arrays++;
}

static int async_graph_begin(struct ops *o, uint64_t key)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "graph_begin", false);

    l->in_pass = rc == 0;
    for (int i = 0; i < l->n_keys; i++)
        if (l->keys[i].key == key)
            l->records = l->refuses && rc == 0 && l->keys[i].n_runs % 2 == 1;
    l->key = key;
    l->calls = 0;
    return rc;
}

static int async_graph_end(struct ops *o)
{
    struct fake_async *l = async_of(o);
    const bool records = l->records;
    int rc, i;

    PROMISE(l->in_pass, "graph_end without graph_begin");
    l->records = false;
    rc = async_enter(l, "graph_end", true);
    l->in_pass = false;
    for (i = 0; i < l->n_arrays; i++) {
        PROMISE(memcmp(l->arrays[i].at, l->arrays[i].copy, l->arrays[i].n_bytes) == 0,
                "an array changed within a pass");
        free(l->arrays[i].copy);
    }
    l->n_arrays = 0;
    if (rc < 0)
        return rc;
    for (i = 0; i < l->n_keys && l->keys[i].key != l->key; i++)
        ;
    PROMISE(i == l->n_keys || l->keys[i].calls == l->calls, "a pass of key %llx has other calls than before",
            (unsigned long long)l->key);
    if (i < l->n_keys) {
        l->keys[i].n_runs++;
        l->n_replays += !records;
        return records ? -EAGAIN : 0;
    }
    PROMISE(l->n_keys < MAX_KEYS, "more than %d keys", MAX_KEYS);
    l->keys[l->n_keys].key = l->key;
    l->keys[l->n_keys].n_runs = 1;
    l->keys[l->n_keys++].calls = l->calls;
    return 0;
}

/* -- memory and transfers -- */

static int async_alloc(struct ops *o, size_t bytes, void **ret)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "alloc", false);

    if (rc == 0 && bytes > l->total_bytes - l->used_bytes)
        return -ENOMEM;
    if (rc == 0)
        rc = l->inner->f->alloc(l->inner, bytes, ret);
    if (rc < 0)
        return rc;
    memset(*ret, NOT_A_NUMBER, bytes);
    PROMISE(l->n_blocks < MAX_BLOCKS, "more than %d blocks of memory", MAX_BLOCKS);
    l->blocks[l->n_blocks].at = *ret;
    l->blocks[l->n_blocks++].n_bytes = bytes;
    l->used_bytes += bytes;
    return 0;
}

static void async_release(struct ops *o, void *p)
{
    struct fake_async *l = async_of(o);

    for (int i = 0; i < l->n_blocks; i++)
        if (l->blocks[i].at == p) {
            l->used_bytes -= l->blocks[i].n_bytes;
            l->blocks[i] = l->blocks[--l->n_blocks];
            break;
        }
    l->inner->f->release(l->inner, p);
}

static int async_memory(struct ops *o, size_t *ret_free_bytes, size_t *ret_total_bytes)
{
    const struct fake_async *l = async_of(o);

    *ret_free_bytes = l->total_bytes - l->used_bytes;
    *ret_total_bytes = l->total_bytes;
    return 0;
}

static int async_upload(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "upload", false);

    return rc < 0 ? rc : l->inner->f->upload(l->inner, dst, dst_dtype, src, src_dtype, n);
}

static int async_upload_begin(struct ops *o, void *dst, size_t n, void **ret_host)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "upload_begin", false);

    if (rc < 0)
        return rc;
    l->staging_bytes = n * dtype_size_bytes(o->act_dtype);
    l->staging = malloc(l->staging_bytes);
    assert(l->staging);
    memset(l->staging, NOT_A_NUMBER, l->staging_bytes);
    l->upload_to = dst;
    *ret_host = l->staging;
    return 0;
}

static int async_upload_end(struct ops *o)
{
    struct fake_async *l = async_of(o);
    void *staging = l->staging;
    int rc;

    PROMISE(staging, "upload_end without upload_begin");
    l->staging = NULL;
    rc = async_enter(l, "upload_end", false);
    if (rc == 0)
        memcpy(l->upload_to, staging, l->staging_bytes);
    free(staging);
    return rc;
}

static int async_download(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                          size_t n)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "download", false);

    return rc < 0 ? rc : l->inner->f->download(l->inner, dst, dst_dtype, src, src_dtype, n);
}

static int async_download_start(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n,
                                uint64_t *ret_ticket)
{
    struct fake_async *l = async_of(o);
    struct landing *to = &l->landings[l->n_landings];
    int rc = async_enter(l, "download_start", false);

    if (rc < 0)
        return rc;
    PROMISE(l->n_landings < OPS_MAX_DOWNLOADS, "more than %d downloads are under way", OPS_MAX_DOWNLOADS);
    *to = (struct landing){.ticket = l->next_ticket++, .dst = dst, .n_bytes = n * dtype_size_bytes(dtype)};
    to->data = malloc(to->n_bytes);
    assert(to->data);
    memcpy(to->data, src, to->n_bytes);
    memset(dst, NOT_A_NUMBER, to->n_bytes);
    l->n_landings++;
    l->most_landings = l->n_landings > l->most_landings ? l->n_landings : l->most_landings;
    *ret_ticket = to->ticket;
    return 0;
}

static int async_download_wait(struct ops *o, uint64_t ticket)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "download_wait", false), n_left = 0;

    PROMISE(ticket < l->next_ticket, "a ticket that was never given");
    for (int i = 0; i < l->n_landings; i++) {
        const struct landing d = l->landings[i];

        if (d.ticket > ticket) {
            l->landings[n_left++] = d;
            continue;
        }
        memcpy(d.dst, d.data, d.n_bytes); /* also after an error: the memory has to be there until now */
        free(d.data);
    }
    l->n_landings = n_left;
    return rc;
}

static int async_sync(struct ops *o)
{
    return async_enter(async_of(o), "sync", false);
}

/* -- weights -- */

static int async_weight_new(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                            struct ops_weight **ret, struct err *err)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "weight_new", false);

    return rc < 0 ? err_set(err, rc, "a matrix could not be loaded")
                  : l->inner->f->weight_new(l->inner, parts, n_parts, flags, ret, err);
}

static void async_weight_free(struct ops *o, struct ops_weight *w)
{
    async_of(o)->inner->f->weight_free(async_of(o)->inner, w);
}

static int async_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err)
{
    return async_of(o)->inner->f->vector_new(async_of(o)->inner, t, ret, err);
}

static void async_vector_free(struct ops *o, struct ops_vector *v)
{
    async_of(o)->inner->f->vector_free(async_of(o)->inner, v);
}

static int async_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err)
{
    return async_of(o)->inner->f->table_new(async_of(o)->inner, t, ret, err);
}

static void async_table_free(struct ops *o, struct ops_table *t)
{
    async_of(o)->inner->f->table_free(async_of(o)->inner, t);
}

/* -- life -- */

static void async_free(struct ops *o)
{
    struct fake_async *l = async_of(o);

    PROMISE(l->n_landings == 0, "%d downloads were never waited for", l->n_landings);
    PROMISE(l->n_blocks == 0, "%d blocks of memory were never released", l->n_blocks);
    for (int i = 0; i < l->n_arrays; i++)
        free(l->arrays[i].copy);
    free(l->staging);
    free(l->hidden);
    ops_free(l->inner);
    free(l);
}

struct ops *fake_async_ops_new(struct ops *inner)
{
    static struct ops_funcs funcs = {
        .name = "fake_async",
        .free = async_free,
        .alloc = async_alloc,
        .release = async_release,
        .upload = async_upload,
        .upload_begin = async_upload_begin,
        .upload_end = async_upload_end,
        .download = async_download,
        .download_start = async_download_start,
        .download_wait = async_download_wait,
        .sync = async_sync,
        .graph_begin = async_graph_begin,
        .graph_end = async_graph_end,
        .memory = async_memory,
        .weight_new = async_weight_new,
        .weight_free = async_weight_free,
        .vector_new = async_vector_new,
        .vector_free = async_vector_free,
        .table_new = async_table_new,
        .table_free = async_table_free,
    };
    struct fake_async *l = calloc(1, sizeof(*l));

    assert(l);
    fake_async_calls(&funcs);
    l->base = (struct ops){.f = &funcs, .act_dtype = inner->act_dtype, .fp8 = inner->fp8};
    l->inner = inner;
    l->total_bytes = (size_t)1 << 40;
    l->fail_in = -1;
    return &l->base;
}

void fake_async_ops_set_memory(struct ops *o, size_t total_bytes)
{
    async_of(o)->total_bytes = total_bytes;
}

void fake_async_ops_fail_in(struct ops *o, int n)
{
    async_of(o)->fail_in = n;
}

void fake_async_ops_refuse_recordings(struct ops *o)
{
    async_of(o)->refuses = true;
}

int fake_async_ops_n_keys(const struct ops *o)
{
    return async_of(o)->n_keys;
}

int fake_async_ops_n_replays(const struct ops *o)
{
    return async_of(o)->n_replays;
}

int fake_async_ops_n_downloads(const struct ops *o)
{
    return async_of(o)->n_landings;
}

int fake_async_ops_most_downloads(const struct ops *o)
{
    return async_of(o)->most_landings;
}
