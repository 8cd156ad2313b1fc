/* Uploads through a ring of page-locked memory and a ring of the same size and offsets on the device.
 *
 * upload_stream copies to the device while the compute stream is busy with earlier work; the compute stream then
 * waits for the copy and moves (or converts) it to its destination, which takes 2 x its bytes of device bandwidth.
 * So a piece of the ring is free when the copy has read the host's side (the host waits for that) and the compute
 * stream has read the device's side (only upload_stream waits for that). The ring is more than twice the largest
 * array of upload_begin, so that one can be written while another waits. */
#include "tensor/cuda/cuda.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_PIECES = 64,
    PIECE_BYTES = 2 << 20, /* the most that upload() copies at once */
    RING_BYTES = 4 * PIECE_BYTES,
    MAX_UPLOAD_RING_BYTES = 32 * RING_BYTES, /* limit of growth by upload() */
    ALIGN_BYTES = 256,
};

struct piece {
    size_t begin, end;
    cudaEvent_t sent, consumed;
};

struct cuda_uploads {
    unsigned char *pinned, *d_ring;
    size_t n_bytes, at; /* at: where the next piece begins */
    struct piece pieces[N_PIECES];
    int oldest, n_pieces; /* pieces that may be in use */
    void *d_dst;          /* upload_begin: destination of the open piece; NULL: none is open */
    size_t n_open_bytes;
    struct piece *open;
};

int cuda_uploads_new(struct cuda_ops *o)
{
    int rc = 0;

    o->uploads = (struct cuda_uploads *)calloc(1, sizeof(*o->uploads));
    if (!o->uploads)
        return -ENOMEM;
    for (int i = 0; i < N_PIECES && rc == 0; i++) {
        rc = cuda_event_new_slept_for(o, &o->uploads->pieces[i].sent);
        if (rc == 0)
            rc = cuda_event_new(o, &o->uploads->pieces[i].consumed);
    }
    return rc;
}

static void ring_free(struct cuda_ops *o)
{
    struct cuda_uploads *u = o->uploads;

    if (u->pinned)
        (void)cudaFreeHost(u->pinned);
    cuda_free(o, u->d_ring);
    u->pinned = u->d_ring = NULL;
    u->n_bytes = u->at = 0;
    u->n_pieces = 0;
}

void cuda_uploads_free(struct cuda_ops *o)
{
    if (!o->uploads)
        return;
    ring_free(o);
    for (int i = 0; i < N_PIECES; i++) {
        if (o->uploads->pieces[i].sent)
            (void)cudaEventDestroy(o->uploads->pieces[i].sent);
        if (o->uploads->pieces[i].consumed)
            (void)cudaEventDestroy(o->uploads->pieces[i].consumed);
    }
    free(o->uploads);
    o->uploads = NULL;
}

static int ring_grow(struct cuda_ops *o, size_t n_bytes)
{
    struct cuda_uploads *u = o->uploads;
    void *pinned, *d_ring;
    int rc = cuda_status(o, cudaStreamSynchronize(o->upload_stream), "waiting for uploads");

    if (rc == 0)
        rc = cuda_status(o, cudaStreamSynchronize(o->stream), "waiting for the device");
    if (rc < 0)
        return rc;
    ring_free(o);
    rc = cuda_malloc_host(o, n_bytes, &pinned);
    if (rc < 0)
        return rc;
    u->pinned = (unsigned char *)pinned;
    rc = cuda_malloc(o, n_bytes, &d_ring);
    if (rc < 0)
        return rc;
    u->d_ring = (unsigned char *)d_ring;
    u->n_bytes = n_bytes;
    return 0;
}

/* Frees the oldest piece: the host waits for one side, and upload_stream will wait for the other. */
static int retire_oldest(struct cuda_ops *o)
{
    struct cuda_uploads *u = o->uploads;
    const struct piece *p = &u->pieces[u->oldest];
    int rc = cuda_status(o, cudaEventSynchronize(p->sent), "waiting for an upload");

    if (rc == 0)
        rc = cuda_status(o, cudaStreamWaitEvent(o->upload_stream, p->consumed, 0), "waiting for an upload");
    u->oldest = (u->oldest + 1) % N_PIECES;
    u->n_pieces--;
    return rc;
}

static bool overlaps_one(const struct cuda_uploads *u, size_t begin, size_t end)
{
    for (int i = 0; i < u->n_pieces; i++) {
        const struct piece *p = &u->pieces[(u->oldest + i) % N_PIECES];

        if (p->begin < end && begin < p->end)
            return true;
    }
    return false;
}

/* Takes the next piece of the ring, waiting until it is free; the ring should have at least `least_ring` bytes. */
static int piece_new(struct cuda_ops *o, size_t n_bytes, size_t least_ring, struct piece **ret)
{
    struct cuda_uploads *u = o->uploads;
    size_t n_padded = (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    struct piece *p;
    int rc = cuda_failed(o);

    if (rc == 0 && u->n_bytes < least_ring)
        rc = ring_grow(o, (least_ring + RING_BYTES - 1) / RING_BYTES * RING_BYTES);
    if (rc < 0)
        return rc;
    if (n_padded > u->n_bytes - u->at)
        u->at = 0;
    while (rc == 0 && (u->n_pieces == N_PIECES || overlaps_one(u, u->at, u->at + n_padded)))
        rc = retire_oldest(o);
    if (rc < 0)
        return rc;
    p = &u->pieces[(u->oldest + u->n_pieces) % N_PIECES];
    p->begin = u->at;
    p->end = u->at + n_padded;
    *ret = p;
    return 0;
}

/* Sends the contents of the piece to d_dst. */
static int piece_send(struct cuda_ops *o, struct piece *p, void *d_dst, enum dtype dst_dtype, enum dtype src_dtype,
                      size_t n)
{
    struct cuda_uploads *u = o->uploads;
    int rc = cuda_status(o,
                         cudaMemcpyAsync(u->d_ring + p->begin, u->pinned + p->begin, n * dtype_size_bytes(src_dtype),
                                         cudaMemcpyHostToDevice, o->upload_stream),
                         "an upload");

    if (rc == 0)
        rc = cuda_stream_after(o, o->stream, o->upload_stream, p->sent);
    if (rc == 0)
        rc = cuda_convert(o, o->stream, d_dst, dst_dtype, u->d_ring + p->begin, src_dtype, n);
    if (rc == 0)
        rc = cuda_status(o, cudaEventRecord(p->consumed, o->stream), "recording an event");
    if (rc < 0)
        return rc;
    u->at = p->end;
    u->n_pieces++;
    return 0;
}

/* The ring size for which the next array can be sent before the compute stream reads this one, up to a limit. */
static size_t ring_for(size_t n, size_t element)
{
    if (n > MAX_UPLOAD_RING_BYTES / 2 / element)
        return MAX_UPLOAD_RING_BYTES;
    return 2 * n * element > RING_BYTES ? 2 * n * element : (size_t)RING_BYTES;
}

static int upload(struct cuda_ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    const size_t dst_bytes = dtype_size_bytes(dst_dtype), src_bytes = dtype_size_bytes(src_dtype);
    int rc = cuda_failed(o);

    assert((rc < 0 || o->graph == CUDA_GRAPH_NONE) && !o->uploads->d_dst);
    for (size_t i = 0; i < n && rc == 0;) {
        size_t count = n - i < PIECE_BYTES / src_bytes ? n - i : PIECE_BYTES / src_bytes;
        struct piece *p;

        rc = piece_new(o, count * src_bytes, ring_for(n, src_bytes), &p);
        if (rc == -ENOMEM)
            rc = piece_new(o, count * src_bytes, RING_BYTES, &p);
        if (rc < 0)
            return rc;
        memcpy(o->uploads->pinned + p->begin, (const unsigned char *)src + i * src_bytes, count * src_bytes);
        rc = piece_send(o, p, (unsigned char *)dst + i * dst_bytes, dst_dtype, src_dtype, count);
        i += count;
    }
    return rc;
}

int cuda_upload(struct ops *base, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    assert(dtype_is_float(dst_dtype) && dtype_is_float(src_dtype));
    return upload(cuda_of(base), dst, dst_dtype, src, src_dtype, n);
}

int cuda_upload_bytes(struct cuda_ops *o, void *d_dst, const void *host, size_t n_bytes)
{
    return upload(o, d_dst, DTYPE_U8, host, DTYPE_U8, n_bytes);
}

int cuda_upload_begin(struct ops *base, void *dst, size_t n, void **ret_host)
{
    struct cuda_ops *o = cuda_of(base);
    struct cuda_uploads *u = o->uploads;
    const size_t n_bytes = n * cuda_element_bytes(o);
    int rc = cuda_failed(o);

    assert((rc < 0 || o->graph == CUDA_GRAPH_NONE) && !u->d_dst && n > 0);
    if (rc == 0)
        rc = piece_new(o, n_bytes, 2 * n_bytes + RING_BYTES, &u->open);
    if (rc < 0)
        return rc;
    u->d_dst = dst;
    u->n_open_bytes = n_bytes;
    *ret_host = u->pinned + u->open->begin;
    return 0;
}

int cuda_upload_end(struct ops *base)
{
    struct cuda_ops *o = cuda_of(base);
    struct cuda_uploads *u = o->uploads;
    void *d_dst = u->d_dst;

    assert(d_dst);
    u->d_dst = NULL;
    return piece_send(o, u->open, d_dst, base->act_dtype, base->act_dtype, u->n_open_bytes / cuda_element_bytes(o));
}
