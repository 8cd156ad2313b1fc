#include "tests/unit/late_ops.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_KEYS = 4096, MAX_ARRAYS = 256, MAX_BLOCKS = 4096, NOT_A_NUMBER = 0xff };

/* A download that is under way. */
struct landing {
    uint64_t ticket;
    void *dst, *data;
    size_t n_bytes;
};

/* A host array that a pass has been given. */
struct array {
    const void *at;
    void *copy;
    size_t n_bytes;
};

struct late {
    struct ops base;
    struct ops *inner;
    size_t total_bytes, used_bytes;
    struct {
        void *at;
        size_t n_bytes;
    } blocks[MAX_BLOCKS];
    int n_blocks;

    struct landing landings[OPS_MAX_DOWNLOADS];
    int n_landings, most_landings;
    uint64_t next_ticket;

    void *staging, *upload_to; /* staging NULL: no upload is open */
    size_t staging_bytes;

    bool in_pass, refuses, records; /* records: nothing of the open pass is run */
    uint64_t key, calls;            /* of the open pass: what its calls were so far */
    struct array arrays[MAX_ARRAYS];
    int n_arrays;
    struct {
        uint64_t key, calls;
        int n_runs;
    } keys[MAX_KEYS];
    int n_keys, n_replays;

    const struct ops_weight *consumer; /* of the last norm; NULL: none */
    void *consumed, *hidden;           /* what it gave, and where that is kept */
    size_t consumed_bytes;

    int fail_in; /* < 0: never */
    bool failed;
};

#define PROMISE(ok, ...)                                     \
    do {                                                     \
        if (!(ok)) {                                         \
            (void)fprintf(stderr, "late_ops: " __VA_ARGS__); \
            (void)fputc('\n', stderr);                       \
            abort();                                         \
        }                                                    \
    } while (0)

static struct late *late_of(const struct ops *o)
{
    return (struct late *)(uintptr_t)o;
}

/* Every call passes here. */
static int enter(struct late *l, const char *what, bool in_pass_too)
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

/* A call of a pass: the same pointers and numbers every time. */
static void note(struct late *l, const char *what, const uint64_t *args, size_t n)
{
    if (!l->in_pass)
        return;
    l->calls = XXH3_64bits_withSeed(what, strlen(what), l->calls);
    l->calls = XXH3_64bits_withSeed(args, n * sizeof(*args), l->calls);
}

#define NOTE(l, what, ...) \
    note(l, what, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
#define AT(p) ((uint64_t)(uintptr_t)(p))
#define BITS(f)         \
    (((const union {    \
         float value;   \
         uint32_t bits; \
     }){f})             \
         .bits)

/* A host array of a call of a pass: its contents may be others the next time, but not before pass_end. */
static void note_array(struct late *l, const void *at, size_t n_bytes)
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

static int late_pass_begin(struct ops *o, uint64_t key)
{
    struct late *l = late_of(o);
    int rc = enter(l, "pass_begin", false);

    l->in_pass = rc == 0;
    for (int i = 0; i < l->n_keys; i++)
        if (l->keys[i].key == key)
            l->records = l->refuses && rc == 0 && l->keys[i].n_runs % 2 == 1;
    l->key = key;
    l->calls = 0;
    return rc;
}

static int late_pass_end(struct ops *o)
{
    struct late *l = late_of(o);
    const bool records = l->records;
    int rc, i;

    PROMISE(l->in_pass, "pass_end without pass_begin");
    l->records = false;
    rc = enter(l, "pass_end", true);
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

static int late_alloc(struct ops *o, size_t bytes, void **ret)
{
    struct late *l = late_of(o);
    int rc = enter(l, "alloc", false);

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

static void late_release(struct ops *o, void *p)
{
    struct late *l = late_of(o);

    for (int i = 0; i < l->n_blocks; i++)
        if (l->blocks[i].at == p) {
            l->used_bytes -= l->blocks[i].n_bytes;
            l->blocks[i] = l->blocks[--l->n_blocks];
            break;
        }
    l->inner->f->release(l->inner, p);
}

static int late_memory(struct ops *o, size_t *ret_free_bytes, size_t *ret_total_bytes)
{
    const struct late *l = late_of(o);

    *ret_free_bytes = l->total_bytes - l->used_bytes;
    *ret_total_bytes = l->total_bytes;
    return 0;
}

static int late_upload(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    struct late *l = late_of(o);
    int rc = enter(l, "upload", false);

    return rc < 0 ? rc : l->inner->f->upload(l->inner, dst, dst_dtype, src, src_dtype, n);
}

static int late_upload_begin(struct ops *o, void *dst, size_t n, void **ret_host)
{
    struct late *l = late_of(o);
    int rc = enter(l, "upload_begin", false);

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

static int late_upload_end(struct ops *o)
{
    struct late *l = late_of(o);
    void *staging = l->staging;
    int rc;

    PROMISE(staging, "upload_end without upload_begin");
    l->staging = NULL;
    rc = enter(l, "upload_end", false);
    if (rc == 0)
        memcpy(l->upload_to, staging, l->staging_bytes);
    free(staging);
    return rc;
}

static int late_download(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                         size_t n)
{
    struct late *l = late_of(o);
    int rc = enter(l, "download", false);

    return rc < 0 ? rc : l->inner->f->download(l->inner, dst, dst_dtype, src, src_dtype, n);
}

static int late_download_start(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n,
                               uint64_t *ret_ticket)
{
    struct late *l = late_of(o);
    struct landing *to = &l->landings[l->n_landings];
    int rc = enter(l, "download_start", false);

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

static int late_download_wait(struct ops *o, uint64_t ticket)
{
    struct late *l = late_of(o);
    int rc = enter(l, "download_wait", false), n_left = 0;

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

static int late_sync(struct ops *o)
{
    return enter(late_of(o), "sync", false);
}

/* -- weights -- */

static int late_weight_new(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                           struct ops_weight **ret, struct err *err)
{
    struct late *l = late_of(o);
    int rc = enter(l, "weight_new", false);

    return rc < 0 ? err_set(err, rc, "a matrix could not be loaded")
                  : l->inner->f->weight_new(l->inner, parts, n_parts, flags, ret, err);
}

static void late_weight_free(struct ops *o, struct ops_weight *w)
{
    late_of(o)->inner->f->weight_free(late_of(o)->inner, w);
}

static int late_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err)
{
    return late_of(o)->inner->f->vector_new(late_of(o)->inner, t, ret, err);
}

static void late_vector_free(struct ops *o, struct ops_vector *v)
{
    late_of(o)->inner->f->vector_free(late_of(o)->inner, v);
}

static int late_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err)
{
    return late_of(o)->inner->f->table_new(late_of(o)->inner, t, ret, err);
}

static void late_table_free(struct ops *o, struct ops_table *t)
{
    late_of(o)->inner->f->table_free(late_of(o)->inner, t);
}

/* -- operators -- */

static int late_linear(struct ops *o, const struct ops_linear_args *a)
{
    struct late *l = late_of(o);
    const bool consumes = l->consumer == a->weight && l->consumed == a->x;
    int rc = enter(l, "linear", true);

    if (rc < 0)
        return rc;
    NOTE(l, "linear", AT(a->weight), (uint64_t)a->n_rows, AT(a->x), (uint64_t)a->ld_x, AT(a->y), (uint64_t)a->ld_y,
         a->y_f32, a->act, AT(a->residual), (uint64_t)a->ld_residual);
    if (l->consumer)
        PROMISE(consumes, "the product behind a norm is not the one that was named");
    if (consumes)
        memcpy(l->consumed, l->hidden, l->consumed_bytes);
    rc = l->records ? 0 : l->inner->f->linear(l->inner, a);
    if (consumes)
        memset(l->consumed, NOT_A_NUMBER, l->consumed_bytes);
    l->consumer = NULL;
    return rc;
}

static int late_norm(struct ops *o, const struct ops_norm_args *a)
{
    struct late *l = late_of(o);
    int rc = enter(l, "norm", true);

    NOTE(l, "norm", (uint64_t)a->n_rows, (uint64_t)a->width, AT(a->x), (uint64_t)a->ld_x, AT(a->y), (uint64_t)a->ld_y,
         AT(a->gamma), AT(a->beta), BITS(a->eps), AT(a->consumer));
    if (rc == 0 && !l->records)
        rc = l->inner->f->norm(l->inner, a);
    if (rc < 0 || !a->consumer)
        return rc;
    PROMISE(!l->consumer, "a norm's consumer never came");
    PROMISE(a->ld_y == a->width, "a norm with a consumer gives dense rows");
    l->consumer = a->consumer;
    l->consumed = a->y;
    l->consumed_bytes = (size_t)a->n_rows * (size_t)a->width * dtype_size_bytes(o->act_dtype);
    l->hidden = realloc(l->hidden, l->consumed_bytes);
    assert(l->hidden);
    memcpy(l->hidden, a->y, l->consumed_bytes);
    memset(a->y, NOT_A_NUMBER, l->consumed_bytes);
    return 0;
}

static int late_attention(struct ops *o, const struct ops_attention_args *a)
{
    struct late *l = late_of(o);
    const int32_t *const arrays[] = {a->q_start, a->q_len, a->kv_start, a->kv_len};
    int32_t longest[] = {0, 0};
    int rc = enter(l, "attention", true);

    for (int i = 0; i < a->n_seqs; i++) {
        longest[0] = a->q_len[i] > longest[0] ? a->q_len[i] : longest[0];
        longest[1] = a->kv_len[i] > longest[1] ? a->kv_len[i] : longest[1];
    }
    NOTE(l, "attention", (uint64_t)a->n_seqs, (uint64_t)a->n_heads, (uint64_t)a->head_dim, BITS(a->scale), a->causal,
         AT(a->q), AT(a->k), AT(a->v), (uint64_t)a->ld_q, (uint64_t)a->ld_k, (uint64_t)a->ld_v, AT(a->bias),
         (uint64_t)a->bias_span, AT(a->out), (uint64_t)a->ld_out, (uint64_t)longest[0], (uint64_t)longest[1]);
    for (int i = 0; i < 4; i++)
        note_array(l, arrays[i], (size_t)a->n_seqs * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->attention(l->inner, a);
}

static int late_decode_attention(struct ops *o, const struct ops_decode_attention_args *a)
{
    struct late *l = late_of(o);
    const int32_t *const arrays[] = {a->prefix_start, a->prefix_len, a->tail_start, a->tail_len};
    int32_t longest[] = {0, 1, 1}, end = 0; /* prefix, tail and end of tails, the latter to a power of two */
    int rc = enter(l, "decode_attention", true);

    for (int i = 0; i < 4; i++)
        note_array(l, arrays[i], (size_t)a->n_rows * sizeof(int32_t));
    for (int i = 0; i < a->n_rows; i++) {
        longest[0] = a->prefix_len[i] > longest[0] ? a->prefix_len[i] : longest[0];
        while (longest[1] < a->tail_len[i])
            longest[1] *= 2;
        end = a->tail_start[i] + a->tail_len[i] > end ? a->tail_start[i] + a->tail_len[i] : end;
    }
    while (longest[2] < end)
        longest[2] *= 2;
    NOTE(l, "decode_attention", (uint64_t)a->n_rows, (uint64_t)a->n_heads, (uint64_t)a->head_dim, BITS(a->scale),
         AT(a->q), (uint64_t)a->ld_q, AT(a->k), AT(a->v), (uint64_t)a->ld_kv, AT(a->bias), (uint64_t)a->bias_span,
         AT(a->out), (uint64_t)a->ld_out, (uint64_t)longest[0], (uint64_t)longest[1], (uint64_t)longest[2]);
    note_array(l, a->tail, (size_t)end * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->decode_attention(l->inner, a);
}

static int late_gate(struct ops *o, const struct ops_gate_args *a)
{
    struct late *l = late_of(o);
    int rc = enter(l, "gate", true);

    NOTE(l, "gate", (uint64_t)a->n_rows, (uint64_t)a->width, a->act, AT(a->x), (uint64_t)a->ld_x, AT(a->y),
         (uint64_t)a->ld_y);
    return rc < 0 || l->records ? rc : l->inner->f->gate(l->inner, a);
}

static int late_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
    struct late *l = late_of(o);
    int rc = enter(l, "rows_copy", true);

    NOTE(l, "rows_copy", (uint64_t)a->n_rows, (uint64_t)a->width, AT(a->src), (uint64_t)a->ld_src, AT(a->dst),
         (uint64_t)a->ld_dst);
    note_array(l, a->src_index, (size_t)a->n_rows * sizeof(int32_t));
    note_array(l, a->dst_index, (size_t)a->n_rows * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->rows_copy(l->inner, a);
}

static int late_patchify(struct ops *o, const struct ops_patchify_args *a)
{
    struct late *l = late_of(o);
    int rc = enter(l, "patchify", false);

    return rc < 0 ? rc : l->inner->f->patchify(l->inner, a);
}

static int late_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                          const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    struct late *l = late_of(o);
    int rc = enter(l, "vit_embed", true);

    NOTE(l, "vit_embed", (uint64_t)n_images, (uint64_t)n_tokens, (uint64_t)width, AT(patches), AT(cls), AT(pos), AT(y));
    return rc < 0 || l->records ? rc
                                : l->inner->f->vit_embed(l->inner, n_images, n_tokens, width, patches, cls, pos, y);
}

static int late_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index,
                      const int32_t *dst_index, bool add, void *y, int64_t ld_y)
{
    struct late *l = late_of(o);
    int rc = enter(l, "embed", true);

    NOTE(l, "embed", AT(t), (uint64_t)n_rows, add, AT(y), (uint64_t)ld_y);
    note_array(l, index, (size_t)n_rows * sizeof(int32_t));
    note_array(l, dst_index, (size_t)n_rows * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->embed(l->inner, t, n_rows, index, dst_index, add, y, ld_y);
}

static int late_choose(struct ops *o, const struct ops_choose_args *a)
{
    struct late *l = late_of(o);
    int rc = enter(l, "choose", false);

    return rc < 0 ? rc : l->inner->f->choose(l->inner, a);
}

/* -- life -- */

static void late_free(struct ops *o)
{
    struct late *l = late_of(o);

    PROMISE(l->n_landings == 0, "%d downloads were never waited for", l->n_landings);
    PROMISE(l->n_blocks == 0, "%d blocks of memory were never released", l->n_blocks);
    for (int i = 0; i < l->n_arrays; i++)
        free(l->arrays[i].copy);
    free(l->staging);
    free(l->hidden);
    ops_free(l->inner);
    free(l);
}

struct ops *late_ops_new(struct ops *inner)
{
    static const struct ops_funcs funcs = {
        .name = "late",
        .free = late_free,
        .alloc = late_alloc,
        .release = late_release,
        .upload = late_upload,
        .upload_begin = late_upload_begin,
        .upload_end = late_upload_end,
        .download = late_download,
        .download_start = late_download_start,
        .download_wait = late_download_wait,
        .sync = late_sync,
        .pass_begin = late_pass_begin,
        .pass_end = late_pass_end,
        .memory = late_memory,
        .weight_new = late_weight_new,
        .weight_free = late_weight_free,
        .vector_new = late_vector_new,
        .vector_free = late_vector_free,
        .table_new = late_table_new,
        .table_free = late_table_free,
        .linear = late_linear,
        .norm = late_norm,
        .attention = late_attention,
        .decode_attention = late_decode_attention,
        .gate = late_gate,
        .rows_copy = late_rows_copy,
        .patchify = late_patchify,
        .vit_embed = late_vit_embed,
        .embed = late_embed,
        .choose = late_choose,
    };
    struct late *l = calloc(1, sizeof(*l));

    assert(l);
    l->base = (struct ops){.f = &funcs, .act_dtype = inner->act_dtype, .fp8 = inner->fp8};
    l->inner = inner;
    l->total_bytes = (size_t)1 << 40;
    l->fail_in = -1;
    return &l->base;
}

void late_ops_set_memory(struct ops *o, size_t total_bytes)
{
    late_of(o)->total_bytes = total_bytes;
}

void late_ops_fail_in(struct ops *o, int n)
{
    late_of(o)->fail_in = n;
}

void late_ops_refuse_recordings(struct ops *o)
{
    late_of(o)->refuses = true;
}

int late_ops_n_keys(const struct ops *o)
{
    return late_of(o)->n_keys;
}

int late_ops_n_replays(const struct ops *o)
{
    return late_of(o)->n_replays;
}

int late_ops_n_downloads(const struct ops *o)
{
    return late_of(o)->n_landings;
}

int late_ops_most_downloads(const struct ops *o)
{
    return late_of(o)->most_landings;
}
