/* Transfers host arrays of operators (indices, lengths) to the device, through a ring of page-locked memory and a ring
 * of the same size and offsets on the device, both divided into segments.
 *
 * Copies run on the compute stream, so device memory can be overwritten at any time: the kernels that read it come
 * before. On the host a segment waits for the event after its last copy. An array stays known (so it is sent once
 * for many calls) until its segment is reused. A call costs one copy of a few KB, about 5 us on the host. */
#include "tensor/cuda/cuda.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_SEGMENTS = 4,
    SEGMENT_BYTES = 1 << 20, /* at first */
    ALIGN_BYTES = 256,
    N_KNOWN = 1024, /* a power of two */
    N_PROBES = 4,
    N_ARRAYS = 4, /* arrays of the largest size per segment, so that an operator's arrays do not overwrite each other */
    MAX_GROWTHS = 40,
};

struct known {
    const void *host;
    size_t n_bytes, at;
    int segment;
    uint64_t round; /* round of the segment; 0: empty entry */
};

struct cuda_staging {
    unsigned char *pinned, *d_ring;
    size_t segment_bytes, used; /* used: bytes used in the current segment */
    int segment;
    struct {
        cudaEvent_t sent;
        uint64_t round; /* number of times it was started */
    } segments[N_SEGMENTS];
    struct known known[N_KNOWN];
    void *d_outgrown[MAX_GROWTHS]; /* replaced rings: an operator may still hold an address in them */
    int n_outgrown;
};

static void pinned_free(struct cuda_staging *s)
{
    if (s->pinned)
        (void)cudaFreeHost(s->pinned);
    s->pinned = NULL;
}

static int ring_new(struct cuda_ops *o, size_t segment_bytes)
{
    struct cuda_staging *s = o->staging;
    void *pinned, *d_ring;
    int rc = cuda_malloc(o, N_SEGMENTS * segment_bytes, &d_ring);

    if (rc < 0)
        return rc;
    rc = cuda_malloc_host(o, N_SEGMENTS * segment_bytes, &pinned);
    if (rc < 0) {
        cuda_free(o, d_ring);
        return rc;
    }
    if (s->d_ring) {
        assert(s->n_outgrown < MAX_GROWTHS);
        s->d_outgrown[s->n_outgrown++] = s->d_ring;
    }
    pinned_free(s);
    s->pinned = (unsigned char *)pinned;
    s->d_ring = (unsigned char *)d_ring;
    s->segment_bytes = segment_bytes;
    s->segment = 0;
    s->used = 0;
    for (int i = 0; i < N_SEGMENTS; i++)
        s->segments[i].round++;
    return 0;
}

int cuda_staging_new(struct cuda_ops *o)
{
    int rc = 0;

    o->staging = (struct cuda_staging *)calloc(1, sizeof(*o->staging));
    if (!o->staging)
        return -ENOMEM;
    for (int i = 0; i < N_SEGMENTS && rc == 0; i++)
        rc = cuda_event_new(o, &o->staging->segments[i].sent);
    return rc < 0 ? rc : ring_new(o, SEGMENT_BYTES);
}

void cuda_staging_free(struct cuda_ops *o)
{
    if (!o->staging)
        return;
    pinned_free(o->staging);
    cuda_free(o, o->staging->d_ring);
    for (int i = 0; i < o->staging->n_outgrown; i++)
        cuda_free(o, o->staging->d_outgrown[i]);
    for (int i = 0; i < N_SEGMENTS; i++)
        if (o->staging->segments[i].sent)
            (void)cudaEventDestroy(o->staging->segments[i].sent);
    free(o->staging);
    o->staging = NULL;
}

/* Makes room for n_bytes: in this segment, in the next one (after its last copy), or in a larger ring. */
static int make_room(struct cuda_ops *o, size_t n_bytes)
{
    struct cuda_staging *s = o->staging;
    size_t segment_bytes = s->segment_bytes;
    int rc;

    if (n_bytes <= segment_bytes / N_ARRAYS && n_bytes <= segment_bytes - s->used)
        return 0;
    if (n_bytes <= segment_bytes / N_ARRAYS) {
        rc = cuda_status(o, cudaEventRecord(s->segments[s->segment].sent, o->stream), "recording an event");
        if (rc < 0)
            return rc;
        s->segment = (s->segment + 1) % N_SEGMENTS;
        s->used = 0;
        s->segments[s->segment].round++;
        return cuda_status(o, cudaEventSynchronize(s->segments[s->segment].sent), "waiting for a copy");
    }
    while (segment_bytes / N_ARRAYS < n_bytes)
        segment_bytes *= 2;
    rc = cuda_status(o, cudaStreamSynchronize(o->stream), "waiting for copies");
    return rc < 0 ? rc : ring_new(o, segment_bytes);
}

static size_t hash(const void *host, size_t n_bytes)
{
    return (size_t)((((uint64_t)(uintptr_t)host >> 2) * 0x9e3779b97f4a7c15u ^ n_bytes * 0xc2b2ae3d27d4eb4fu) >> 40);
}

static bool holds(const struct cuda_staging *s, const struct known *k)
{
    return k->round != 0 && k->round == s->segments[k->segment].round;
}

static unsigned char *place(const struct cuda_staging *s, unsigned char *ring, const struct known *k)
{
    return ring + (size_t)k->segment * s->segment_bytes + k->at;
}

/* Finds the same array with the same contents, or NULL; *ret_free: an entry for it. */
static const struct known *find(struct cuda_staging *s, const void *host, size_t n_bytes, struct known **ret_free)
{
    size_t h = hash(host, n_bytes);

    *ret_free = &s->known[h % N_KNOWN];
    for (size_t i = 0; i < N_PROBES; i++) {
        struct known *k = &s->known[(h + i) % N_KNOWN];

        if (!holds(s, k))
            *ret_free = k;
        else if (k->host == host && k->n_bytes == n_bytes) {
            if (memcmp(place(s, s->pinned, k), host, n_bytes) == 0)
                return k;
            *ret_free = k;
            break;
        }
    }
    return NULL;
}

int cuda_stage_as(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                  const void **ret_device)
{
    struct cuda_staging *s = o->staging;
    const struct known *same;
    struct known *k;
    int rc = cuda_failed(o);

    assert(n_bytes > 0 && n_bytes <= max_bytes);
    if (rc == 0 && o->graph != CUDA_GRAPH_NONE)
        rc = cuda_graph_stage(o, host, n_bytes, max_bytes, made_here, ret_device);
    if (rc < 0 || o->graph == CUDA_GRAPH_RECORD || o->graph == CUDA_GRAPH_REPLAY)
        return rc;
    same = find(s, host, n_bytes, &k);
    if (same) {
        *ret_device = place(s, s->d_ring, same);
        return 0;
    }
    rc = make_room(o, n_bytes);
    if (rc < 0)
        return rc;
    (void)find(s, host, n_bytes, &k); /* making room may have dropped entries */
    *k = {host, n_bytes, s->used, s->segment, s->segments[s->segment].round};
    memcpy(place(s, s->pinned, k), host, n_bytes);
    s->used += (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (s->used > s->segment_bytes)
        s->used = s->segment_bytes;
    *ret_device = place(s, s->d_ring, k);
    return cuda_status(
        o, cudaMemcpyAsync(place(s, s->d_ring, k), place(s, s->pinned, k), n_bytes, cudaMemcpyHostToDevice, o->stream),
        "sending an array");
}
