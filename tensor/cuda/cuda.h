/* cuda.h - what the files of the CUDA back end share: its state, errors, scratch memory, and how host arrays reach the
 * device.
 *
 * One stream computes; a second one brings uploads in, a third takes downloads out. Launchers only enqueue. Every entry
 * of struct ops_funcs has a function cuda_<entry> with the contract of tensor/ops.h; each is written so that it can be
 * recorded and replayed (graph_begin): it calls cuda_stage for its host arrays, cuda_scratch for memory and cuda_launch
 * for kernels, in the same order every time, and nothing else that talks to the device. A launcher that calls a library
 * asks cuda_skips() first.
 * Who may call: tensor/cuda/; like struct ops, the compute thread only.
 * Units:  sizes in bytes; device pointers are named d_x where both kinds are about.
 * Memory: cuda_scratch hands out one growing block per slot; cuda_stage memory is valid until the end of the operator
 *         (in a graph: of the graph).
 * Errors: 0 or a negative errno: -EIO for a device error, which is sticky (base.why says which), -ENOMEM. */
#ifndef BLIPLINE_TENSOR_CUDA_CUDA_H
#define BLIPLINE_TENSOR_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include "tensor/device.h"
#include "tensor/ops.h"
}

struct cuda_matmul;    /* matmul.cu: handle, workspace, chosen algorithms */
struct cuda_staging;   /* staging.cu: the ring of host arrays */
struct cuda_uploads;   /* upload.cu: pinned memory on its way in */
struct cuda_downloads; /* download.cu: results on their way out */
struct cuda_loader;    /* load.cu: the buffers of its threads */
struct cuda_graphs;    /* captured_graph.cu: recorded graphs */

/* One block of scratch each, so that the parts of an operator do not tread on one another. */
enum cuda_slot {
    CUDA_SLOT_LINEAR,
    CUDA_SLOT_QUANTISED,
    CUDA_SLOT_ATTENTION,
    CUDA_SLOT_SAMPLE,
    CUDA_SLOT_PIXELS,
    CUDA_SLOTS
};

enum cuda_graph_state {
    CUDA_GRAPH_NONE,   /* calls run as they come */
    CUDA_GRAPH_FIRST,  /* so they do the first time a key is seen: what the graph needs is counted */
    CUDA_GRAPH_RECORD, /* the stream is capturing */
    CUDA_GRAPH_REPLAY, /* nothing is launched: the recorded graph will be */
};

/* A norm has left the quantised form of this buffer behind (norm.cu), or linear has (quantise.cu);
 * CUDA_SLOT_QUANTISED. */
struct cuda_quantised {
    const void *of; /* the buffer whose place it takes; NULL: nothing there */
    int64_t n_rows, width;
};

/* What cuda_malloc gave out. */
struct cuda_block {
    void *d_memory;
    size_t n_bytes;
};

struct cuda_ops {
    struct ops base;
    int device;       /* ordinal */
    int sm;           /* compute capability: 80, 89, 90, ... */
    int n_processors; /* streaming multiprocessors */
    size_t l2_bytes;
    bool tf32;
    int n_threads;             /* of loading */
    size_t memory_limit;       /* of this process */
    size_t memory_allocated;   /* through cuda_malloc */
    struct cuda_block *blocks; /* of cuda_malloc */
    int n_blocks, blocks_capacity;
    bool failed; /* sticky */
    cudaStream_t stream, upload_stream, download_stream;
    struct cuda_matmul *matmul;
    struct cuda_staging *staging;
    struct cuda_uploads *uploads;
    struct cuda_downloads *downloads;
    struct cuda_loader *loader; /* NULL until the first large array is loaded */
    struct cuda_graphs *graphs;
    enum cuda_graph_state graph;
    int graph_error; /* the first of an operator in this graph */
    struct cuda_quantised quantised;
    void *sample_memory; /* sample.cu: the host's side of its transfers */
    size_t sample_bytes;
    struct {
        void *d_memory;
        size_t n_bytes;
    } scratch[CUDA_SLOTS];
};

struct ops_weight {
    int64_t n, k;      /* [N, K] */
    bool fp8;          /* d_values are e4m3 and d_scale is there; else d_values are act_dtype */
    void *d_values;    /* row-major [N, K] */
    float *d_scale;    /* [N]: value = d_values * d_scale[row] */
    void *d_bias;      /* [N] act_dtype, or NULL: none */
    float *d_bias_f32; /* the same in f32, for f32 results */
};

struct ops_vector {
    int64_t n;
    float *d_values;
};

struct ops_table {
    int64_t n_rows, width;
    void *d_values; /* [rows, width] act_dtype */
};

static inline struct cuda_ops *cuda_of(struct ops *o)
{
    return (struct cuda_ops *)o;
}
static inline size_t cuda_element_bytes(const struct cuda_ops *o)
{
    return o->base.act_dtype == DTYPE_F32 ? 4 : 2;
}

/* -- memory.cu -- */

/* 0 for cudaSuccess; -ENOMEM (not sticky) for cudaErrorMemoryAllocation; else sets base.why ("WHAT: TEXT") and failed,
 * and returns -EIO. After that it returns -EIO for all. */
int cuda_status(struct cuda_ops *o, cudaError_t e, const char *what);
/* -EIO after a device error: the first line of what talks to the device. */
static inline int cuda_failed(const struct cuda_ops *o)
{
    return o->failed ? -EIO : 0;
}
/* cudaMalloc within memory_limit, 256-byte aligned. -ENOMEM. */
int cuda_malloc(struct cuda_ops *o, size_t n_bytes, void **ret);
/* NULL is fine. Waits for the device. */
void cuda_free(struct cuda_ops *o, void *d_memory);
/* At least n_bytes for this slot, contents undefined. Growing waits for the device and forgets all captured graphs. */
int cuda_scratch(struct cuda_ops *o, enum cuda_slot slot, size_t n_bytes, void **ret);
/* Page-locked host memory; cudaFreeHost. -ENOMEM. */
int cuda_malloc_host(struct cuda_ops *o, size_t n_bytes, void **ret);
/* An event without a time. */
int cuda_event_new(struct cuda_ops *o, cudaEvent_t *ret);
/* One that a thread sleeps for, where cuda_event_new's is waited for by asking again and again: for waits that last as
 * long as a batch, while the processors have pictures to decode. */
int cuda_event_new_slept_for(struct cuda_ops *o, cudaEvent_t *ret);
/* `waiting` runs what is enqueued after this call when what is in `before` now is done; `event` carries it. */
int cuda_stream_after(struct cuda_ops *o, cudaStream_t waiting, cudaStream_t before, cudaEvent_t event);

/* Is a captured graph being replayed, so that nothing is to be enqueued? */
static inline bool cuda_skips(const struct cuda_ops *o)
{
    return o->graph == CUDA_GRAPH_REPLAY;
}

/* To be said by whoever is about to write to this buffer: what o->quantised holds of it is old then. */
static inline void cuda_overwrites(struct cuda_ops *o, const void *d_memory)
{
    if (o->quantised.of == d_memory)
        o->quantised.of = NULL;
}

/* -- staging.cu -- */

/* A copy of a host array on the device, for the kernels of the operator that asks. The same array (address, size,
 * contents) is sent once for many calls.
 *
 * In a graph the array has a place that is chosen when the graph is recorded. Hence two things that a launcher must
 * know: cuda_stage is for arrays that came to the operator as arguments, which stay as they are until graph_end and
 * have the same length whenever the graph is run. Everything else goes through cuda_stage_as: max_bytes is the most
 * that the array can take in any run of the graph, and made_here says that the operator made it, in memory that it will
 * use again. */
int cuda_stage_as(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                  const void **ret_device);
static inline int cuda_stage(struct cuda_ops *o, const void *host, size_t n_bytes, const void **ret_device)
{
    return cuda_stage_as(o, host, n_bytes, n_bytes, false, ret_device);
}
int cuda_staging_new(struct cuda_ops *o);
void cuda_staging_free(struct cuda_ops *o);

/* -- convert.cu -- */

/* n values on the device, from one float type to another, on `stream`. */
int cuda_convert(struct cuda_ops *o, cudaStream_t stream, void *d_dst, enum dtype dst_dtype, const void *d_src,
                 enum dtype src_dtype, size_t n);

/* -- upload.cu -- */

/* Bytes to the device as they are; as upload(). */
int cuda_upload_bytes(struct cuda_ops *o, void *d_dst, const void *host, size_t n_bytes);

/* -- load.cu -- */

/* Host memory (a checkpoint's map) to the device as dst_dtype: read by o->n_threads threads through pinned buffers.
 * Waits until the source has been read and the values have arrived. */
int cuda_load(struct cuda_ops *o, void *d_dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
void cuda_loader_free(struct cuda_ops *o);

/* -- parameters.cu: what model files hold besides matrices -- */

int cuda_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err);
void cuda_vector_free(struct ops *o, struct ops_vector *v);
int cuda_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err);
void cuda_table_free(struct ops *o, struct ops_table *t);

/* -- quantise.cu -- */

/* Rows of act_dtype -> e4m3 with a scale each, into CUDA_SLOT_QUANTISED: codes [n_rows, width] dense, then f32 scales
 * [n_rows] 256-byte aligned behind them. Nothing to do where o->quantised says that they are there already. */
int cuda_quantise(struct cuda_ops *o, int64_t n_rows, int64_t width, const void *d_x, int64_t ld_x,
                  const void **ret_codes, const float **ret_scales);
/* Where codes and scales of so many rows go, in CUDA_SLOT_QUANTISED. */
int cuda_quantised_place(struct cuda_ops *o, int64_t n_rows, int64_t width, void **ret_codes, float **ret_scales);

/* -- the operators; contracts in tensor/ops.h -- */

int cuda_weight_new(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                    struct ops_weight **ret, struct err *err); /* weight.cu */
void cuda_weight_free(struct ops *o, struct ops_weight *w);
int cuda_linear(struct ops *o, const struct ops_linear_args *a); /* linear.cu, over matmul.cu */
int cuda_matmul_new(struct cuda_ops *o, struct err *err);
void cuda_matmul_free(struct cuda_ops *o);
int cuda_norm(struct ops *o, const struct ops_norm_args *a);           /* norm.cu */
int cuda_attention(struct ops *o, const struct ops_attention_args *a); /* attention.cu */
int cuda_decode_attention(struct ops *o, const struct ops_decode_attention_args *a);
int cuda_gate(struct ops *o, const struct ops_gate_args *a); /* rows.cu */
int cuda_rows_copy(struct ops *o, const struct ops_rows_args *a);
int cuda_patchify(struct ops *o, const struct ops_patchify_args *a);
int cuda_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                   const struct ops_vector *cls, const struct ops_vector *pos, void *y);
int cuda_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index, const int32_t *dst_index,
               bool add, void *y, int64_t ld_y);
int cuda_sample(struct ops *o, const struct ops_sample_args *a); /* sample.cu */
int cuda_upload(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                size_t n); /* upload.cu */
int cuda_upload_begin(struct ops *o, void *dst, size_t n, void **ret_host);
int cuda_upload_end(struct ops *o);
int cuda_uploads_new(struct cuda_ops *o);
void cuda_uploads_free(struct cuda_ops *o);
int cuda_download(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                  size_t n); /* download.cu */
int cuda_download_start(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n, uint64_t *ret_ticket);
int cuda_download_wait(struct ops *o, uint64_t ticket);
int cuda_downloads_new(struct cuda_ops *o);
void cuda_downloads_free(struct cuda_ops *o);
int cuda_graph_begin(struct ops *o, uint64_t key); /* captured_graph.cu */
/* The first error of the graph. -EAGAIN: it could not be recorded and has not been run; it will be run as it comes from
 * now on. */
int cuda_graph_end(struct ops *o);
/* An operator's error in a graph: the graph ends here, and graph_end returns the error. */
void cuda_graph_fail(struct cuda_ops *o, int rc);
/* Forget what was recorded: the addresses in it are no longer true. Not within a graph that is recorded or replayed. */
void cuda_graphs_forget(struct cuda_ops *o);
int cuda_graphs_new(struct cuda_ops *o);
void cuda_graphs_free(struct cuda_ops *o);
/* The place of a host array in the graph that is recorded or replayed; as cuda_stage_as. In a first run it counts. */
int cuda_graph_stage(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                     const void **ret_device);

#endif
