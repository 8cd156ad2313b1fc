/* Downloads.
 *
 * download_start: the compute stream copies the values to a buffer on the device (2 x their bytes of device
 * bandwidth) and continues; download_stream copies the buffer to page-locked memory, and download_wait copies that
 * to its destination. download: the compute stream copies piece by piece, while the host handles the previous piece. */
#include "tensor/cuda/cuda.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_PIECES = 2,
    STEP_BYTES = 1 << 20, /* sizes of slots */
};

static const size_t PIECE_VALUES = 1 << 20; /* 4 MiB of f32 */

struct slot {
    unsigned char *pinned, *d_aside;
    size_t n_bytes; /* capacity */
    cudaEvent_t copied, arrived;
    uint64_t ticket; /* 0: free */
    void *dst;
    size_t n_dst_bytes;
};

struct cuda_downloads {
    unsigned char *pinned; /* N_PIECES pieces of PIECE_VALUES f32 */
    unsigned char *d_converted;
    cudaEvent_t arrived[N_PIECES];
    struct slot slots[OPS_MAX_DOWNLOADS];
    uint64_t last_ticket, done_ticket; /* last ticket issued; last ticket waited for */
};

int cuda_downloads_new(struct cuda_ops *o)
{
    struct cuda_downloads *d = (struct cuda_downloads *)calloc(1, sizeof(*d));
    int rc = 0;

    if (!d)
        return -ENOMEM;
    o->downloads = d;
    for (int i = 0; i < N_PIECES && rc == 0; i++)
        rc = cuda_event_new(o, &d->arrived[i]);
    for (int i = 0; i < OPS_MAX_DOWNLOADS && rc == 0; i++) {
        rc = cuda_event_new(o, &d->slots[i].copied);
        if (rc == 0)
            rc = cuda_event_new_slept_for(o, &d->slots[i].arrived);
    }
    return rc;
}

static void slot_clear(struct cuda_ops *o, struct slot *s)
{
    if (s->pinned)
        (void)cudaFreeHost(s->pinned);
    cuda_free(o, s->d_aside);
    s->pinned = s->d_aside = NULL;
    s->n_bytes = 0;
}

void cuda_downloads_free(struct cuda_ops *o)
{
    struct cuda_downloads *d = o->downloads;

    if (!d)
        return;
    for (int i = 0; i < OPS_MAX_DOWNLOADS; i++) {
        slot_clear(o, &d->slots[i]);
        if (d->slots[i].copied)
            (void)cudaEventDestroy(d->slots[i].copied);
        if (d->slots[i].arrived)
            (void)cudaEventDestroy(d->slots[i].arrived);
    }
    for (int i = 0; i < N_PIECES; i++)
        if (d->arrived[i])
            (void)cudaEventDestroy(d->arrived[i]);
    if (d->pinned)
        (void)cudaFreeHost(d->pinned);
    cuda_free(o, d->d_converted);
    free(d);
    o->downloads = NULL;
}

/* Allocates the pieces of download(), on its first use. */
static int pieces_new(struct cuda_ops *o)
{
    const size_t n_bytes = (size_t)N_PIECES * PIECE_VALUES * sizeof(float);
    struct cuda_downloads *d = o->downloads;
    void *p;
    int rc = 0;

    if (!d->pinned) {
        rc = cuda_malloc_host(o, n_bytes, &p);
        if (rc == 0)
            d->pinned = (unsigned char *)p;
    }
    if (rc == 0 && !d->d_converted) {
        rc = cuda_malloc(o, n_bytes, &p);
        if (rc == 0)
            d->d_converted = (unsigned char *)p;
    }
    return rc;
}

static int piece_start(struct cuda_ops *o, int piece, enum dtype dst_dtype, const void *d_src, enum dtype src_dtype,
                       size_t n)
{
    struct cuda_downloads *d = o->downloads;
    const size_t at = (size_t)piece * PIECE_VALUES * sizeof(float);
    int rc = 0;

    if (dst_dtype != src_dtype) {
        rc = cuda_convert(o, o->stream, d->d_converted + at, dst_dtype, d_src, src_dtype, n);
        d_src = d->d_converted + at;
    }
    if (rc == 0)
        rc = cuda_status(
            o,
            cudaMemcpyAsync(d->pinned + at, d_src, n * dtype_size_bytes(dst_dtype), cudaMemcpyDeviceToHost, o->stream),
            "a download");
    return rc < 0 ? rc : cuda_status(o, cudaEventRecord(d->arrived[piece], o->stream), "recording an event");
}

static size_t piece_length(size_t n, size_t at)
{
    return n - at < PIECE_VALUES ? n - at : PIECE_VALUES;
}

int cuda_download(struct ops *base, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    struct cuda_ops *o = cuda_of(base);
    struct cuda_downloads *d = o->downloads;
    const size_t dst_bytes = dtype_size_bytes(dst_dtype), src_bytes = dtype_size_bytes(src_dtype);
    const size_t n_pieces = (n + PIECE_VALUES - 1) / PIECE_VALUES;
    int rc = cuda_failed(o);

    assert(dtype_is_float(dst_dtype) && dtype_is_float(src_dtype));
    assert(rc < 0 || o->graph == CUDA_GRAPH_NONE);
    if (rc == 0)
        rc = pieces_new(o);
    for (size_t i = 0; rc == 0 && i < n_pieces + 1; i++) {
        if (i < n_pieces)
            rc = piece_start(o, (int)(i % N_PIECES), dst_dtype,
                             (const unsigned char *)src + i * PIECE_VALUES * src_bytes, src_dtype,
                             piece_length(n, i * PIECE_VALUES));
        if (rc == 0 && i > 0) {
            size_t before = i - 1, piece = before % N_PIECES;

            rc = cuda_status(o, cudaEventSynchronize(d->arrived[piece]), "waiting for a download");
            if (rc == 0)
                memcpy((unsigned char *)dst + before * PIECE_VALUES * dst_bytes,
                       d->pinned + piece * PIECE_VALUES * sizeof(float),
                       piece_length(n, before * PIECE_VALUES) * dst_bytes);
        }
    }
    return rc;
}

/* Takes the smallest free slot that is large enough, else grows the largest one. */
static int slot_take(struct cuda_ops *o, size_t n_bytes, struct slot **ret)
{
    struct slot *best = NULL;
    void *p;
    int rc;

    for (int i = 0; i < OPS_MAX_DOWNLOADS; i++) {
        struct slot *s = &o->downloads->slots[i];
        bool fits = s->n_bytes >= n_bytes, best_fits = best && best->n_bytes >= n_bytes;

        if (s->ticket == 0 &&
            (!best || (fits && !best_fits) || (fits == best_fits && fits == (s->n_bytes < best->n_bytes))))
            best = s;
    }
    assert(best); /* more than OPS_MAX_DOWNLOADS pending */
    if (best->n_bytes < n_bytes) {
        size_t room = (n_bytes + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES;

        slot_clear(o, best);
        rc = cuda_malloc_host(o, room, &p);
        if (rc < 0)
            return rc;
        best->pinned = (unsigned char *)p;
        rc = cuda_malloc(o, room, &p);
        if (rc < 0)
            return rc;
        best->d_aside = (unsigned char *)p;
        best->n_bytes = room;
    }
    *ret = best;
    return 0;
}

int cuda_download_start(struct ops *base, void *dst, const void *src, enum dtype dtype, size_t n, uint64_t *ret_ticket)
{
    struct cuda_ops *o = cuda_of(base);
    const size_t n_bytes = n * dtype_size_bytes(dtype);
    struct slot *s = NULL;
    int rc = cuda_failed(o);

    assert((rc < 0 || o->graph == CUDA_GRAPH_NONE) && n > 0);
    if (rc == 0)
        rc = slot_take(o, n_bytes, &s);
    if (rc == 0)
        rc = cuda_status(o, cudaMemcpyAsync(s->d_aside, src, n_bytes, cudaMemcpyDeviceToDevice, o->stream),
                         "a copy on the device");
    if (rc == 0)
        rc = cuda_stream_after(o, o->download_stream, o->stream, s->copied);
    if (rc == 0)
        rc = cuda_status(o, cudaMemcpyAsync(s->pinned, s->d_aside, n_bytes, cudaMemcpyDeviceToHost, o->download_stream),
                         "a download");
    if (rc == 0)
        rc = cuda_status(o, cudaEventRecord(s->arrived, o->download_stream), "recording an event");
    if (rc < 0)
        return rc;
    s->dst = dst;
    s->n_dst_bytes = n_bytes;
    s->ticket = *ret_ticket = ++o->downloads->last_ticket;
    return 0;
}

static struct slot *slot_of(struct cuda_downloads *d, uint64_t ticket)
{
    struct slot *s = d->slots;

    while (s->ticket != ticket)
        s++;
    return s;
}

int cuda_download_wait(struct ops *base, uint64_t ticket)
{
    struct cuda_ops *o = cuda_of(base);
    struct cuda_downloads *d = o->downloads;

    assert(ticket <= d->last_ticket);
    while (d->done_ticket < ticket) {
        struct slot *s = slot_of(d, d->done_ticket + 1);
        int rc = cuda_status(o, cudaEventSynchronize(s->arrived), "waiting for a download");

        if (rc < 0)
            return rc;
        memcpy(s->dst, s->pinned, s->n_dst_bytes);
        s->ticket = 0;
        d->done_ticket++;
    }
    return cuda_failed(o);
}
