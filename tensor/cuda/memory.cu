#include "tensor/cuda/launch.cuh"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { PIECE_BYTES = 512, SCRATCH_STEP_BYTES = 2 << 20 };

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static int fail(struct cuda_ops *o, int rc)
{
    if (o->graph != CUDA_GRAPH_NONE)
        cuda_graph_fail(o, rc);
    return rc;
}

int cuda_status(struct cuda_ops *o, cudaError_t e, const char *what)
{
    if (o->failed)
        return -EIO;
    if (e == cudaSuccess)
        return 0;
    (void)cudaGetLastError(); /* clear it: it is reported here */
    if (e == cudaErrorMemoryAllocation)
        return fail(o, -ENOMEM);
    if (o->graph == CUDA_GRAPH_RECORD && e >= cudaErrorStreamCaptureUnsupported &&
        e <= cudaErrorStreamCaptureWrongThread)
        return fail(o, -EAGAIN); /* the capture has failed, not the device */
    o->failed = true;
    (void)err_set(&o->base.why, -EIO, "%s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
    return fail(o, -EIO);
}

static int blocks_grow(struct cuda_ops *o)
{
    int capacity = o->blocks_capacity ? 2 * o->blocks_capacity : 256;
    struct cuda_block *blocks;

    if (o->n_blocks < o->blocks_capacity)
        return 0;
    blocks = (struct cuda_block *)realloc(o->blocks, (size_t)capacity * sizeof(*blocks));
    if (!blocks)
        return -ENOMEM;
    o->blocks = blocks;
    o->blocks_capacity = capacity;
    return 0;
}

int cuda_malloc(struct cuda_ops *o, size_t n_bytes, void **ret)
{
    const size_t wanted = n_bytes ? n_bytes : 1; /* not rounded up: tests/emulator guards the exact end */
    void *d_memory;
    int rc = cuda_failed(o);

    if (rc < 0)
        return rc;
    if (n_bytes > o->memory_limit)
        return fail(o, -ENOMEM);
    n_bytes = round_up(wanted, PIECE_BYTES);
    if (n_bytes > o->memory_limit - o->memory_allocated || blocks_grow(o) < 0)
        return fail(o, -ENOMEM);
    rc = cuda_status(o, cudaMalloc(&d_memory, wanted), "device memory");
    if (rc < 0)
        return rc;
    o->blocks[o->n_blocks++] = {d_memory, n_bytes};
    o->memory_allocated += n_bytes;
    *ret = d_memory;
    return 0;
}

/* Searches the newest blocks first: short-lived ones are among them, the weights are not. */
void cuda_free(struct cuda_ops *o, void *d_memory)
{
    int i = o->n_blocks - 1;

    if (!d_memory)
        return;
    while (i >= 0 && o->blocks[i].d_memory != d_memory)
        i--;
    assert(i >= 0);
    o->memory_allocated -= o->blocks[i].n_bytes;
    o->blocks[i] = o->blocks[--o->n_blocks];
    (void)cuda_status(o, cudaFree(d_memory), "freeing device memory");
}

int cuda_scratch(struct cuda_ops *o, enum cuda_slot slot, size_t n_bytes, void **ret)
{
    void *d_memory;
    int rc = cuda_failed(o);

    if (rc < 0)
        return rc;
    if (n_bytes > o->scratch[slot].n_bytes) {
        assert(o->graph != CUDA_GRAPH_REPLAY);
        if (o->graph == CUDA_GRAPH_RECORD) /* normally the first run of the key has already grown it */
            return fail(o, -EAGAIN);
        n_bytes = round_up(n_bytes, SCRATCH_STEP_BYTES);
        rc = cuda_status(o, cudaDeviceSynchronize(), "waiting for scratch memory");
        if (rc < 0)
            return rc;
        if (slot != CUDA_SLOT_PIXELS && slot != CUDA_SLOT_SAMPLE) /* these are never used in a graph */
            cuda_graphs_forget(o);
        cuda_free(o, o->scratch[slot].d_memory);
        o->scratch[slot] = {NULL, 0};
        rc = cuda_malloc(o, n_bytes, &d_memory);
        if (rc < 0)
            return rc;
        o->scratch[slot].d_memory = d_memory;
        o->scratch[slot].n_bytes = n_bytes;
    }
    *ret = o->scratch[slot].d_memory;
    return 0;
}

int cuda_malloc_host(struct cuda_ops *o, size_t n_bytes, void **ret)
{
    return cuda_status(o, cudaHostAlloc(ret, n_bytes, cudaHostAllocDefault), "page-locked memory");
}

int cuda_event_new(struct cuda_ops *o, cudaEvent_t *ret)
{
    return cuda_status(o, cudaEventCreateWithFlags(ret, cudaEventDisableTiming), "an event");
}

int cuda_event_new_slept_for(struct cuda_ops *o, cudaEvent_t *ret)
{
    return cuda_status(o, cudaEventCreateWithFlags(ret, cudaEventDisableTiming | cudaEventBlockingSync), "an event");
}

int cuda_stream_after(struct cuda_ops *o, cudaStream_t waiting, cudaStream_t before, cudaEvent_t event)
{
    int rc = cuda_status(o, cudaEventRecord(event, before), "recording an event");

    return rc < 0 ? rc : cuda_status(o, cudaStreamWaitEvent(waiting, event, 0), "waiting for an event");
}
