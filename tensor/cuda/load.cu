/* Loads weights from a checkpoint's map to the device at the speed of the disk or the page cache.
 *
 * Page faults and the copy into page-locked memory dominate (a core copies a few GB/s, the bus 20 or more), so
 * n_threads threads take chunks of the array in turn, each with two buffers and its own stream: one buffer is filled
 * while the other is sent. Values of another type are copied to a chunk on the device and converted from there. */
#include "tensor/cuda/cuda.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = 4 << 20,
    N_BUFFERS = 2,
    MAX_THREADS = 64,
    SMALL_BYTES = 1 << 20, /* below this, starting threads takes longer than the copy */
};

struct load_thread {
    cudaStream_t stream;
    unsigned char *pinned, *d_chunks; /* N_BUFFERS chunks each; d_chunks from the first conversion on */
    cudaEvent_t free[N_BUFFERS];      /* signalled when the buffer has been read */
};

struct cuda_loader {
    int n_threads;
    struct load_thread threads[MAX_THREADS];
    cudaEvent_t before; /* the compute stream's work at the start of the call */
};

/* The load of one array. Threads share only `next`. */
struct load {
    struct cuda_ops *o;
    unsigned char *d_dst;
    enum dtype dst_dtype, src_dtype;
    const unsigned char *src;
    size_t n, n_per_chunk;
    size_t next; /* value, atomic */
};

struct load_part {
    struct load *load;
    struct load_thread *thread;
    pthread_t id;
    int rc;
    struct cuda_ops o; /* a copy for this thread, which keeps its errors until the threads are joined */
};

static int thread_init(struct cuda_ops *o, struct load_thread *t)
{
    void *pinned;
    int rc = cuda_status(o, cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking), "a stream");

    for (int i = 0; i < N_BUFFERS && rc == 0; i++)
        rc = cuda_event_new(o, &t->free[i]);
    if (rc == 0)
        rc = cuda_malloc_host(o, N_BUFFERS * CHUNK_BYTES, &pinned);
    if (rc == 0)
        t->pinned = (unsigned char *)pinned;
    return rc;
}

static int loader_new(struct cuda_ops *o)
{
    struct cuda_loader *l = (struct cuda_loader *)calloc(1, sizeof(*l));
    int rc;

    if (!l)
        return -ENOMEM;
    o->loader = l;
    l->n_threads = o->n_threads < MAX_THREADS ? o->n_threads : MAX_THREADS;
    rc = cuda_event_new(o, &l->before);
    for (int i = 0; i < l->n_threads && rc == 0; i++)
        rc = thread_init(o, &l->threads[i]);
    if (rc < 0)
        cuda_loader_free(o);
    return rc;
}

void cuda_loader_free(struct cuda_ops *o)
{
    struct cuda_loader *l = o->loader;

    if (!l)
        return;
    for (int i = 0; i < l->n_threads; i++) {
        struct load_thread *t = &l->threads[i];

        if (t->stream)
            (void)cudaStreamDestroy(t->stream);
        for (int j = 0; j < N_BUFFERS; j++)
            if (t->free[j])
                (void)cudaEventDestroy(t->free[j]);
        if (t->pinned)
            (void)cudaFreeHost(t->pinned);
        cuda_free(o, t->d_chunks);
    }
    if (l->before)
        (void)cudaEventDestroy(l->before);
    free(l);
    o->loader = NULL;
}

/* Loads values at .. at + n - 1 through buffer b of this thread. */
static int load_chunk(struct load_part *p, int b, size_t at, size_t n)
{
    const struct load *a = p->load;
    const struct load_thread *t = p->thread;
    const size_t n_bytes = n * dtype_size_bytes(a->src_dtype);
    const bool same = a->src_dtype == a->dst_dtype;
    unsigned char *pinned = t->pinned + (size_t)b * CHUNK_BYTES;
    unsigned char *d_dst = a->d_dst + at * dtype_size_bytes(a->dst_dtype);
    unsigned char *d_to = same ? d_dst : t->d_chunks + (size_t)b * CHUNK_BYTES;
    int rc = cuda_status(&p->o, cudaEventSynchronize(t->free[b]), "loading");

    if (rc < 0)
        return rc;
    memcpy(pinned, a->src + at * dtype_size_bytes(a->src_dtype), n_bytes);
    rc = cuda_status(&p->o, cudaMemcpyAsync(d_to, pinned, n_bytes, cudaMemcpyHostToDevice, t->stream), "loading");
    if (rc == 0 && !same)
        rc = cuda_convert(&p->o, t->stream, d_dst, a->dst_dtype, d_to, a->src_dtype, n);
    return rc < 0 ? rc : cuda_status(&p->o, cudaEventRecord(t->free[b], t->stream), "loading");
}

static void *load_thread_run(void *arg)
{
    struct load_part *p = (struct load_part *)arg;
    struct load *a = p->load;

    p->rc = cuda_status(&p->o, cudaSetDevice(p->o.device), "loading");
    for (int b = 0; p->rc == 0; b = (b + 1) % N_BUFFERS) {
        size_t at = __atomic_fetch_add(&a->next, a->n_per_chunk, __ATOMIC_RELAXED);

        if (at >= a->n)
            break;
        p->rc = load_chunk(p, b, at, a->n - at < a->n_per_chunk ? a->n - at : a->n_per_chunk);
    }
    if (p->rc == 0)
        p->rc = cuda_status(&p->o, cudaStreamSynchronize(p->thread->stream), "loading");
    return NULL;
}

/* Makes the thread's stream wait for the compute stream, and allocates device chunks if it converts. */
static int thread_prepare(struct cuda_ops *o, struct load_thread *t, bool converts)
{
    void *d_chunks;
    int rc = cuda_status(o, cudaStreamWaitEvent(t->stream, o->loader->before, 0), "loading");

    if (rc == 0 && converts && !t->d_chunks) {
        rc = cuda_malloc(o, N_BUFFERS * CHUNK_BYTES, &d_chunks);
        if (rc == 0)
            t->d_chunks = (unsigned char *)d_chunks;
    }
    return rc;
}

/* The caller does the first part, and the part of any thread that fails to start. */
static int load_all(struct cuda_ops *o, struct load *a, int n_threads)
{
    struct load_part *parts = (struct load_part *)calloc((size_t)n_threads, sizeof(*parts));
    int n_started = 1, rc = 0;

    if (!parts)
        return -ENOMEM;
    for (int i = 0; i < n_threads; i++) {
        parts[i].load = a;
        parts[i].thread = &o->loader->threads[i];
        parts[i].o = *o;
    }
    while (n_started < n_threads && pthread_create(&parts[n_started].id, NULL, load_thread_run, &parts[n_started]) == 0)
        n_started++;
    (void)load_thread_run(&parts[0]);
    for (int i = 0; i < n_started; i++) {
        if (i > 0)
            (void)pthread_join(parts[i].id, NULL);
        if (rc == 0 && parts[i].rc < 0) {
            rc = parts[i].rc;
            if (rc == -EIO)
                o->base.why = parts[i].o.base.why;
            o->failed = o->failed || rc == -EIO;
        }
    }
    free(parts);
    return rc;
}

int cuda_load(struct cuda_ops *o, void *d_dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    const size_t src_bytes = dtype_size_bytes(src_dtype), n_per_chunk = CHUNK_BYTES / src_bytes;
    struct load a = {o, (unsigned char *)d_dst, dst_dtype, src_dtype, (const unsigned char *)src, n, n_per_chunk, 0};
    size_t n_chunks = (n + n_per_chunk - 1) / n_per_chunk;
    int n_threads, rc = cuda_failed(o);

    assert(dtype_is_float(dst_dtype) && dtype_is_float(src_dtype));
    assert(rc < 0 || o->graph == CUDA_GRAPH_NONE);
    if (rc == 0 && n * src_bytes < SMALL_BYTES) {
        rc = cuda_upload(&o->base, d_dst, dst_dtype, src, src_dtype, n);
        return rc < 0 ? rc : cuda_status(o, cudaStreamSynchronize(o->stream), "loading");
    }
    if (rc == 0 && !o->loader)
        rc = loader_new(o);
    if (rc == 0)
        rc = cuda_status(o, cudaEventRecord(o->loader->before, o->stream), "loading");
    if (rc < 0)
        return rc;
    n_threads = (size_t)o->loader->n_threads < n_chunks ? o->loader->n_threads : (int)n_chunks;
    for (int i = 0; i < n_threads && rc == 0; i++)
        rc = thread_prepare(o, &o->loader->threads[i], src_dtype != dst_dtype);
    return rc < 0 ? rc : load_all(o, &a, n_threads);
}
