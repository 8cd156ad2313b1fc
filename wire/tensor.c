#include "wire/tensor_zmq.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

/* Bytes of the caller, kept until the last frame that refers to them is freed. */
struct shared_bytes {
    atomic_uint n_refs;
    void (*release)(void *arg);
    void *arg;
};

static void shared_unref(void *data, void *hint)
{
    struct shared_bytes *s = hint;

    (void)data;
    if (atomic_fetch_sub(&s->n_refs, 1) != 1)
        return;
    if (s->release)
        s->release(s->arg);
    free(s);
}

static struct wire_tensor *tensor_alloc(const struct msg_tensor *desc)
{
    struct wire_tensor *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->desc = *desc;
    t->desc.inline_data = NULL;
    if (msg_tensor_bytes(desc, &t->size_bytes, &t->item_bytes) < 0)
        goto fail;
    if (desc->n_frames) {
        t->frames = malloc(desc->n_frames * sizeof(zmq_msg_t));
        if (!t->frames)
            goto fail;
    }
    if (desc->inline_bytes) {
        t->inline_copy = malloc(desc->inline_bytes);
        if (!t->inline_copy)
            goto fail;
        memcpy(t->inline_copy, desc->inline_data, desc->inline_bytes);
        t->desc.inline_data = t->inline_copy;
    }
    return t;
fail:
    wire_tensor_free(t);
    return NULL;
}

void wire_tensor_free(struct wire_tensor *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->n_frames; i++)
        (void)zmq_msg_close(&t->frames[i]);
    free(t->frames);
    free(t->inline_copy);
    free(t);
}

int wire_tensor_from_desc(const struct msg_tensor *desc, struct wire_tensor **ret)
{
    struct wire_tensor *t = tensor_alloc(desc);

    if (!t)
        return -ENOMEM;
    for (; t->n_frames < desc->n_frames; t->n_frames++)
        (void)zmq_msg_init(&t->frames[t->n_frames]);
    *ret = t;
    return 0;
}

int wire_tensor_ref(const struct wire_tensor *t, struct wire_tensor **ret)
{
    struct wire_tensor *r;
    int rc = wire_tensor_from_desc(&t->desc, &r);

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < t->n_frames; i++)
        if (zmq_msg_copy(&r->frames[i], &t->frames[i]) < 0) {
            wire_tensor_free(r);
            return -ENOMEM;
        }
    *ret = r;
    return 0;
}

/* Frame i of the caller's bytes; with `shared` by reference, else a copy. */
static int frame_init(struct wire_tensor *t, const uint8_t *at, size_t n, struct shared_bytes *shared)
{
    zmq_msg_t *frame = &t->frames[t->n_frames];

    if (!shared) {
        if (zmq_msg_init_size(frame, n) < 0)
            return -ENOMEM;
        memcpy(zmq_msg_data(frame), at, n);
    } else {
        atomic_fetch_add(&shared->n_refs, 1);
        if (zmq_msg_init_data(frame, (void *)(uintptr_t)at, n, shared_unref, shared) < 0) {
            atomic_fetch_sub(&shared->n_refs, 1);
            return -ENOMEM;
        }
    }
    t->n_frames++;
    return 0;
}

static int cut(struct wire_tensor *t, const uint8_t *data, size_t frame_bytes, struct shared_bytes *shared)
{
    for (size_t at = 0; at < t->size_bytes; at += frame_bytes) {
        size_t n = t->size_bytes - at < frame_bytes ? t->size_bytes - at : frame_bytes;

        if (frame_init(t, data + at, n, shared) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int new_in_frames(const struct msg_tensor *desc, const void *data, size_t frame_bytes,
                         void (*release)(void *arg), void *arg, struct wire_tensor **ret)
{
    struct wire_tensor *t = tensor_alloc(desc);
    struct shared_bytes *shared = NULL;
    int rc;

    if (!t)
        return -ENOMEM;
    if (release) {
        shared = malloc(sizeof(*shared));
        if (!shared) {
            wire_tensor_free(t);
            return -ENOMEM;
        }
        *shared = (struct shared_bytes){.n_refs = 1, .release = release, .arg = arg};
    }
    rc = cut(t, data, frame_bytes, shared);
    if (rc < 0) {
        if (shared)
            shared->release = NULL; /* the bytes stay the caller's */
        wire_tensor_free(t);
        t = NULL;
    }
    if (shared)
        shared_unref(NULL, shared);
    if (rc == 0)
        *ret = t;
    return rc;
}

int wire_tensor_new(enum dtype dtype, const uint32_t *shape, uint32_t n_dims, const void *data,
                    void (*release)(void *arg), void *arg, struct wire_tensor **ret, struct err *err)
{
    struct msg_tensor desc = {.dtype = dtype, .n_dims = n_dims, .transport = MSG_TRANSPORT_INLINE};
    uint64_t bytes, item_bytes, frame_items;

    if (n_dims == 0 || n_dims > MSG_MAX_DIMS || dtype_size_bytes(dtype) == 0)
        return err_set(err, -EINVAL, "tensor of %u dimensions and dtype %d", n_dims, (int)dtype);
    memcpy(desc.shape, shape, n_dims * sizeof(*shape));
    if (msg_tensor_bytes(&desc, &bytes, &item_bytes) < 0)
        return err_set(err, -EMSGSIZE, "tensor past %llu bytes", (unsigned long long)MSG_MAX_TENSOR_BYTES);
    if (item_bytes == 0 || item_bytes > MSG_MAX_TENSOR_FRAME_BYTES)
        return err_set(err, -EMSGSIZE, "tensor of %llu bytes an item, not 1 to 8 MiB", (unsigned long long)item_bytes);
    desc.xxh3 = XXH3_64bits(data, bytes);
    if (bytes <= MSG_MAX_INLINE_BYTES) {
        desc.inline_data = data;
        desc.inline_bytes = (uint32_t)bytes;
        if (wire_tensor_from_desc(&desc, ret) < 0)
            return err_set(err, -ENOMEM, "no memory for a tensor");
        if (release)
            release(arg);
        return 0;
    }
    frame_items = MSG_MAX_TENSOR_FRAME_BYTES / item_bytes;
    desc.transport = MSG_TRANSPORT_FRAME;
    desc.n_frames = (uint32_t)((shape[0] + frame_items - 1) / frame_items);
    if (desc.n_frames > MSG_MAX_TENSOR_FRAMES)
        return err_set(err, -EMSGSIZE, "tensor of %u frames, the limit is %d", desc.n_frames, MSG_MAX_TENSOR_FRAMES);
    if (new_in_frames(&desc, data, frame_items * item_bytes, release, arg, ret) < 0)
        return err_set(err, -ENOMEM, "no memory for %llu bytes of tensor", (unsigned long long)bytes);
    return 0;
}

const struct msg_tensor *wire_tensor_desc(const struct wire_tensor *t)
{
    return &t->desc;
}

uint64_t wire_tensor_size_bytes(const struct wire_tensor *t)
{
    return t->size_bytes;
}

uint32_t wire_tensor_n_frames(const struct wire_tensor *t)
{
    return t->desc.transport == MSG_TRANSPORT_INLINE ? 1 : t->n_frames;
}

const uint8_t *wire_tensor_frame(const struct wire_tensor *t, uint32_t i, size_t *ret_bytes)
{
    if (t->desc.transport == MSG_TRANSPORT_INLINE) {
        *ret_bytes = t->desc.inline_bytes;
        return t->inline_copy;
    }
    *ret_bytes = zmq_msg_size(&t->frames[i]);
    return zmq_msg_data(&t->frames[i]);
}

static uint64_t hash(const struct wire_tensor *t)
{
    XXH3_state_t state;

    (void)XXH3_64bits_reset(&state);
    for (uint32_t i = 0; i < wire_tensor_n_frames(t); i++) {
        size_t n;
        const uint8_t *at = wire_tensor_frame(t, i, &n);

        (void)XXH3_64bits_update(&state, at, n);
    }
    return XXH3_64bits_digest(&state);
}

static int check_kind(const struct wire_tensor *t, enum dtype dtype, const uint32_t *shape, uint32_t n_dims,
                      struct err *err)
{
    if (t->desc.dtype != dtype)
        return err_set(err, -EINVAL, "tensor of dtype %d, not %d", (int)t->desc.dtype, (int)dtype);
    if (!shape)
        return 0;
    if (t->desc.n_dims != n_dims)
        return err_set(err, -EINVAL, "tensor of %u dimensions, not %u", t->desc.n_dims, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        if (shape[i] && shape[i] != t->desc.shape[i])
            return err_set(err, -EINVAL, "tensor: dimension %u is %u, not %u", i, t->desc.shape[i], shape[i]);
    return 0;
}

static int check_hash(const struct wire_tensor *t, struct err *err)
{
    uint64_t is = hash(t);

    if (is != t->desc.xxh3)
        return err_set(err, -EBADMSG, "tensor: checksum %016llx, the sender says %016llx", (unsigned long long)is,
                       (unsigned long long)t->desc.xxh3);
    return 0;
}

int wire_tensor_verify(const struct wire_tensor *t, enum dtype dtype, const uint32_t *shape, uint32_t n_dims,
                       struct err *err)
{
    int rc = check_kind(t, dtype, shape, n_dims, err);

    return rc < 0 ? rc : check_hash(t, err);
}
