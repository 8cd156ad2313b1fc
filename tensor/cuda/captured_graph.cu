/* Captured graphs: one CUDA graph per key.
 *
 * The first time a key is used, its calls run one by one (scratch memory grows, libraries choose algorithms, host
 * arrays are counted). The second time they are captured. After that operators launch nothing; graph_end sends the host
 * arrays with one copy and launches the graph. This saves a few microseconds per launch and about ten launches per
 * layer, where the device needs only 50 us per layer.
 *
 * Host arrays of a captured graph have slots in a block of device memory that the graph owns, with two mirrors of it
 * in page-locked memory, used alternately. The copy is not part of the graph; it precedes it on the compute stream.
 * The first run sets the block's size; if the second needs more, it gets another block. */
#include "tensor/cuda/cuda.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_GRAPHS = 64,
    MAX_BLOCKS = 8,
    N_MIRRORS = 2,
    LEAST_PLACE_BYTES = 256,
    BLOCK_STEP_BYTES = 16 << 10,
};

/* The slot of a host array in a graph. */
struct place {
    const void *host; /* NULL: made by an operator, never shared */
    size_t n_bytes;   /* in this run */
    size_t capacity;
    int block;
    size_t at;
    uint64_t run; /* the run that filled it last */
};

struct block {
    unsigned char *d_memory, *mirrors[N_MIRRORS];
    size_t n_bytes, n_used;
};

enum graph_state { GRAPH_UNUSED, GRAPH_SEEN, GRAPH_RECORDED, GRAPH_REFUSED };

struct graph {
    enum graph_state state;
    uint64_t key, used; /* used: `clock` at the last use */
    size_t n_counted;   /* bytes of slots in the first run */
    cudaGraphExec_t graph;
    struct block blocks[MAX_BLOCKS];
    int n_blocks;
    struct place *places;
    int n_places, places_capacity;
    int *calls; /* the slot of each call, in order */
    int n_calls, calls_capacity;
    cudaEvent_t sent[N_MIRRORS]; /* the mirror has been read */
    int mirror;
};

struct cuda_graphs {
    struct graph graphs[MAX_GRAPHS];
    struct graph *open;
    uint64_t clock; /* counts runs */
    int next_call;
};

int cuda_graphs_new(struct cuda_ops *o)
{
    o->graphs = (struct cuda_graphs *)calloc(1, sizeof(*o->graphs));
    return o->graphs ? 0 : -ENOMEM;
}

/* Frees a captured graph's device and page-locked memory. The stream must have finished using it. */
static void recording_clear(struct cuda_ops *o, struct graph *p)
{
    if (p->graph)
        (void)cudaGraphExecDestroy(p->graph);
    p->graph = NULL;
    for (int i = 0; i < p->n_blocks; i++) {
        cuda_free(o, p->blocks[i].d_memory);
        for (int j = 0; j < N_MIRRORS; j++)
            if (p->blocks[i].mirrors[j])
                (void)cudaFreeHost(p->blocks[i].mirrors[j]);
        p->blocks[i] = {};
    }
    p->n_blocks = p->n_places = p->n_calls = 0;
}

static void graph_clear(struct cuda_ops *o, struct graph *p)
{
    recording_clear(o, p);
    for (int i = 0; i < N_MIRRORS; i++)
        if (p->sent[i])
            (void)cudaEventDestroy(p->sent[i]);
    free(p->places);
    free(p->calls);
    *p = {};
}

void cuda_graphs_free(struct cuda_ops *o)
{
    if (!o->graphs)
        return;
    for (int i = 0; i < MAX_GRAPHS; i++)
        graph_clear(o, &o->graphs->graphs[i]);
    free(o->graphs);
    o->graphs = NULL;
}

void cuda_graphs_forget(struct cuda_ops *o)
{
    assert(o->graph == CUDA_GRAPH_NONE || o->graph == CUDA_GRAPH_FIRST);
    (void)cuda_status(o, cudaStreamSynchronize(o->stream), "waiting for captured graphs");
    for (int i = 0; o->graphs && i < MAX_GRAPHS; i++) {
        struct graph *p = &o->graphs->graphs[i];

        if (p->state != GRAPH_RECORDED)
            continue;
        recording_clear(o, p);
        p->state = GRAPH_SEEN;
    }
}

/* Ends the open graph and drops what was captured. */
static void abandon(struct cuda_ops *o)
{
    const bool captures = o->graph == CUDA_GRAPH_RECORD;
    struct graph *p = o->graphs ? o->graphs->open : NULL;
    cudaGraph_t graph = NULL;

    if (!p)
        return;
    o->graph = CUDA_GRAPH_NONE;
    o->quantised = {};
    o->graphs->open = NULL;
    if (p->state == GRAPH_UNUSED)
        p->used = 0; /* its first run was incomplete: the next new key may replace it */
    if (!captures)
        return;
    (void)cudaStreamEndCapture(o->stream, &graph);
    (void)cudaGetLastError();
    if (graph)
        (void)cudaGraphDestroy(graph);
    recording_clear(o, p);
}

void cuda_graph_fail(struct cuda_ops *o, int rc)
{
    struct graph *p = o->graphs->open;

    abandon(o);
    o->graph_error = rc;
    if (rc == -EAGAIN)
        p->state = GRAPH_REFUSED;
}

static size_t place_bytes(size_t n_bytes)
{
    size_t capacity = LEAST_PLACE_BYTES;

    while (capacity < n_bytes)
        capacity *= 2;
    return capacity;
}

static int block_new(struct cuda_ops *o, struct graph *p, size_t n_bytes)
{
    struct block *b = &p->blocks[p->n_blocks];
    void *memory;
    int rc;

    assert(p->n_blocks < MAX_BLOCKS);
    n_bytes = (n_bytes + BLOCK_STEP_BYTES - 1) / BLOCK_STEP_BYTES * BLOCK_STEP_BYTES;
    *b = {};
    p->n_blocks++; /* recording_clear frees a partial block */
    rc = cuda_malloc(o, n_bytes, &memory);
    if (rc < 0)
        return rc;
    b->d_memory = (unsigned char *)memory;
    for (int i = 0; i < N_MIRRORS; i++) {
        rc = cuda_malloc_host(o, n_bytes, &memory);
        if (rc < 0)
            return rc;
        b->mirrors[i] = (unsigned char *)memory;
    }
    b->n_bytes = n_bytes;
    return 0;
}

static int graph_init(struct cuda_ops *o, struct graph *p, uint64_t key)
{
    int rc = 0;

    for (int i = 0; i < N_MIRRORS && rc == 0; i++)
        rc = cuda_event_new(o, &p->sent[i]);
    if (rc < 0) {
        graph_clear(o, p);
        return rc;
    }
    p->key = key;
    return 0;
}

/* Finds the graph of this key, or replaces the least recently used one. */
static int graph_find(struct cuda_ops *o, uint64_t key, struct graph **ret)
{
    struct graph *oldest = &o->graphs->graphs[0];
    int rc = 0;

    for (int i = 0; i < MAX_GRAPHS; i++) {
        struct graph *p = &o->graphs->graphs[i];

        if (p->state != GRAPH_UNUSED && p->key == key) {
            *ret = p;
            return 0;
        }
        if (p->used < oldest->used)
            oldest = p;
    }
    if (oldest->state == GRAPH_RECORDED)
        rc = cuda_status(o, cudaStreamSynchronize(o->stream), "waiting for a captured graph");
    graph_clear(o, oldest);
    if (rc == 0)
        rc = graph_init(o, oldest, key);
    *ret = oldest;
    return rc;
}

/* Switches to the next mirror; waits until its last copy is done. */
static int next_mirror(struct cuda_ops *o, struct graph *p)
{
    p->mirror = (p->mirror + 1) % N_MIRRORS;
    return cuda_status(o, cudaEventSynchronize(p->sent[p->mirror]), "waiting for a copy");
}

static int record_begin(struct cuda_ops *o, struct graph *p)
{
    int rc = next_mirror(o, p);

    p->n_places = p->n_calls = 0;
    if (rc == 0 && p->n_counted > 0)
        rc = block_new(o, p, p->n_counted);
    /* Relaxed: a further block is allocated while the stream captures. */
    if (rc == 0)
        rc = cuda_status(o, cudaStreamBeginCapture(o->stream, cudaStreamCaptureModeRelaxed), "capturing a graph");
    if (rc < 0)
        recording_clear(o, p);
    else
        o->graph = CUDA_GRAPH_RECORD;
    return rc;
}

/* Starts a run whose calls execute one by one. */
static void run_begin(struct cuda_ops *o, struct graph *p)
{
    o->graph = CUDA_GRAPH_FIRST;
    p->n_places = p->n_calls = 0;
    p->n_counted = 0;
}

int cuda_graph_begin(struct ops *base, uint64_t key)
{
    struct cuda_ops *o = cuda_of(base);
    struct cuda_graphs *all = o->graphs;
    struct graph *p;
    int rc = cuda_failed(o);

    abandon(o); /* after an operator failed without a device error */
    if (rc == 0)
        rc = graph_find(o, key, &p);
    if (rc < 0)
        return rc;
    p->used = ++all->clock;
    o->quantised = {};
    o->graph_error = 0;
    all->next_call = 0;
    if (p->state == GRAPH_RECORDED) {
        rc = next_mirror(o, p);
        o->graph = rc < 0 ? CUDA_GRAPH_NONE : CUDA_GRAPH_REPLAY;
    } else if (p->state == GRAPH_SEEN) {
        rc = record_begin(o, p);
    }
    if (rc == -ENOMEM || (rc == 0 && o->graph == CUDA_GRAPH_NONE)) {
        run_begin(o, p); /* also if there is no memory to capture */
        rc = 0;
    }
    all->open = rc < 0 ? NULL : p;
    return rc;
}

/* -- host arrays -- */

static int place_add(struct graph *p, const void *host, size_t capacity, int *ret)
{
    if (p->n_places == p->places_capacity) {
        int capacity_new = p->places_capacity ? 2 * p->places_capacity : 32;
        struct place *places = (struct place *)realloc(p->places, (size_t)capacity_new * sizeof(*places));

        if (!places)
            return -ENOMEM;
        p->places = places;
        p->places_capacity = capacity_new;
    }
    p->places[p->n_places] = {host, 0, capacity, 0, 0, 0};
    *ret = p->n_places++;
    return 0;
}

/* The slot of a call while a graph is counted or captured: that of an earlier call with the same array, else a new
 * one. */
static int place_find(struct graph *p, const void *host, size_t n_bytes, size_t max_bytes, bool made_here, int *ret,
                      bool *ret_new)
{
    const size_t capacity = place_bytes(max_bytes);

    *ret_new = false;
    for (int i = 0; !made_here && i < p->n_places; i++)
        if (p->places[i].host == host && p->places[i].n_bytes == n_bytes && p->places[i].capacity == capacity) {
            *ret = i;
            return 0;
        }
    *ret_new = true;
    return place_add(p, made_here ? NULL : host, capacity, ret);
}

/* Allocates a new slot in the last block, or in another one. */
static int place_put(struct cuda_ops *o, struct graph *p, struct place *t)
{
    struct block *b = p->n_blocks > 0 ? &p->blocks[p->n_blocks - 1] : NULL;

    if (!b || b->n_bytes - b->n_used < t->capacity) {
        int rc = block_new(o, p, t->capacity + (b ? 2 * b->n_bytes : 0));

        if (rc < 0)
            return rc;
        b = &p->blocks[p->n_blocks - 1];
    }
    t->block = p->n_blocks - 1;
    t->at = b->n_used;
    b->n_used += t->capacity;
    return 0;
}

static int call_add(struct graph *p, int place)
{
    if (p->n_calls == p->calls_capacity) {
        int capacity = p->calls_capacity ? 2 * p->calls_capacity : 128;
        int *calls = (int *)realloc(p->calls, (size_t)capacity * sizeof(*calls));

        if (!calls)
            return -ENOMEM;
        p->calls = calls;
        p->calls_capacity = capacity;
    }
    p->calls[p->n_calls++] = place;
    return 0;
}

/* The slot of a call in this run. */
static int place_of_call(struct cuda_ops *o, struct graph *p, const void *host, size_t n_bytes, size_t max_bytes,
                         bool made_here, int *ret)
{
    bool is_new;
    int rc;

    if (o->graph == CUDA_GRAPH_REPLAY) {
        assert(o->graphs->next_call < p->n_calls); /* the same operators in the same order */
        *ret = p->calls[o->graphs->next_call++];
        return 0;
    }
    rc = place_find(p, host, n_bytes, max_bytes, made_here, ret, &is_new);
    if (rc == 0 && is_new && o->graph == CUDA_GRAPH_RECORD)
        rc = place_put(o, p, &p->places[*ret]);
    if (rc == 0 && is_new)
        p->n_counted += o->graph == CUDA_GRAPH_FIRST ? p->places[*ret].capacity : 0;
    if (rc == 0)
        p->places[*ret].n_bytes = n_bytes;
    return rc < 0 ? rc : call_add(p, *ret);
}

int cuda_graph_stage(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                     const void **ret_device)
{
    struct graph *p = o->graphs->open;
    unsigned char *mirror;
    struct place *t;
    int i, rc;

    assert(p);
    rc = place_of_call(o, p, host, n_bytes, max_bytes, made_here, &i);
    if (rc < 0 && o->graph != CUDA_GRAPH_NONE)
        cuda_graph_fail(o, rc);
    if (rc < 0 || o->graph == CUDA_GRAPH_FIRST)
        return rc;
    t = &p->places[i];
    mirror = p->blocks[t->block].mirrors[p->mirror] + t->at;
    assert(n_bytes <= t->capacity); /* max_bytes is the limit */
    if (t->run == o->graphs->clock) {
        /* arguments do not change until graph_end, and arrays made by operators have their own slots */
        assert(t->n_bytes == n_bytes && memcmp(mirror, host, n_bytes) == 0);
    } else {
        memcpy(mirror, host, n_bytes);
        t->n_bytes = n_bytes;
        t->run = o->graphs->clock;
    }
    *ret_device = p->blocks[t->block].d_memory + t->at;
    return 0;
}

/* -- the end -- */

static int launch(struct cuda_ops *o, struct graph *p)
{
    int rc = 0;

    for (int i = 0; i < p->n_blocks && rc == 0; i++)
        if (p->blocks[i].n_used > 0)
            rc = cuda_status(o,
                             cudaMemcpyAsync(p->blocks[i].d_memory, p->blocks[i].mirrors[p->mirror],
                                             p->blocks[i].n_used, cudaMemcpyHostToDevice, o->stream),
                             "sending arrays");
    if (rc == 0)
        rc = cuda_status(o, cudaEventRecord(p->sent[p->mirror], o->stream), "recording an event");
    return rc < 0 ? rc : cuda_status(o, cudaGraphLaunch(p->graph, o->stream), "a captured graph");
}

/* Instantiates the graph; if device memory is short, frees other graphs. */
static cudaError_t instantiate(struct cuda_ops *o, struct graph *p, cudaGraph_t graph)
{
    cudaError_t e = cudaGraphInstantiate(&p->graph, graph, 0);

    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        cuda_graphs_forget(o);
        e = cudaGraphInstantiate(&p->graph, graph, 0);
    }
    if (e != cudaSuccess)
        p->graph = NULL;
    return e;
}

/* Captured calls have not run, so the caller must know if the capture fails. */
static int record_end(struct cuda_ops *o, struct graph *p)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamEndCapture(o->stream, &graph);
    int rc;

    if (e == cudaSuccess)
        e = instantiate(o, p, graph);
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (e == cudaSuccess) {
        p->n_counted = 0;
        for (int i = 0; i < p->n_blocks; i++)
            p->n_counted += p->blocks[i].n_used;
        p->state = GRAPH_RECORDED;
        return launch(o, p);
    }
    (void)cudaGetLastError();
    recording_clear(o, p);
    p->state = GRAPH_REFUSED;
    rc = cuda_status(o, cudaStreamSynchronize(o->stream), "capturing a graph"); /* check for a device error */
    return rc < 0 ? rc : -EAGAIN;
}

int cuda_graph_end(struct ops *base)
{
    struct cuda_ops *o = cuda_of(base);
    struct cuda_graphs *all = o->graphs;
    const enum cuda_graph_state was = o->graph;
    struct graph *p = all->open;

    if (!p)
        return cuda_failed(o) < 0 ? -EIO : o->graph_error;
    o->graph = CUDA_GRAPH_NONE;
    o->quantised = {};
    all->open = NULL;
    if (cuda_failed(o) < 0) /* it failed before the graph began or elsewhere */
        return -EIO;
    if (was == CUDA_GRAPH_RECORD)
        return record_end(o, p);
    if (was == CUDA_GRAPH_REPLAY) {
        assert(all->next_call == p->n_calls); /* the same operators in the same order */
        return launch(o, p);
    }
    p->n_places = p->n_calls = 0;
    if (p->state == GRAPH_UNUSED)
        p->state = GRAPH_SEEN;
    return 0;
}
