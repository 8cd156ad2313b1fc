/* cuda.h - shared by the files of the CUDA back end: its state, errors, scratch memory, and the transfer of host
 * arrays.
 *
 * There are three streams: compute, uploads and downloads. Launchers only enqueue work. Every entry of struct ops_funcs
 * has a function cuda_<entry> with the contract of tensor/ops.h. Each can be captured and replayed (graph_begin), so it
 * uses only cuda_stage for host arrays, cuda_scratch for memory and cuda_launch for kernels, always in the same order.
 * A launcher that calls a library checks cuda_skips() first.
 * Who may call: tensor/cuda/, on the compute thread only, as for struct ops.
 * Units:  sizes in bytes; device pointers are named d_x where host pointers occur too.
 * Memory: cuda_scratch has one growing block per slot; cuda_stage memory is valid until the end of the operator (in a
 * graph: of the graph).
 * Errors: 0 or a negative errno: -EIO for a device error, which is sticky (base.why has the message), -ENOMEM. */
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
struct cuda_uploads;   /* upload.cu: pinned memory for uploads */
struct cuda_downloads; /* download.cu: pinned memory for downloads */
struct cuda_loader;    /* load.cu: the buffers of its threads */
struct cuda_graphs;    /* captured_graph.cu: captured graphs */

/* One block of scratch each, so that the parts of an operator do not overwrite each other's. */
enum cuda_slot {
    CUDA_SLOT_LINEAR,
    CUDA_SLOT_QUANTISED,
    CUDA_SLOT_ATTENTION,
    CUDA_SLOT_SAMPLE,
    CUDA_SLOT_PIXELS,
    CUDA_SLOTS
};

enum cuda_graph_state {
    CUDA_GRAPH_NONE,   /* no graph: calls run one by one */
    CUDA_GRAPH_FIRST,  /* first run of a key: calls run one by one and are counted */
    CUDA_GRAPH_RECORD, /* the stream is capturing */
    CUDA_GRAPH_REPLAY, /* operators launch nothing; graph_end launches the captured graph */
};

/* The quantised form of a buffer, written by a norm (norm.cu) or by linear (quantise.cu) to CUDA_SLOT_QUANTISED. */
struct cuda_quantised {
    const void *of; /* the buffer that it replaces; NULL: none */
    int64_t n_rows, width;
};

/* An allocation of cuda_malloc. */
struct cuda_block {
    void *d_memory;
    size_t n_bytes;
};

struct cuda_ops {
    struct ops base;
    int device;       /* ordinal */
    int sm;           /* compute capability: 80, 89, 90 etc. */
    int n_processors; /* streaming multiprocessors */
    size_t l2_bytes;
    bool tf32;
    int n_threads;             /* for loading weights */
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
    int graph_error; /* the first error of an operator in this graph */
    struct cuda_quantised quantised;
    void *sample_memory; /* sample.cu: page-locked memory of its transfers */
    size_t sample_bytes;
    struct {
        void *d_memory;
        size_t n_bytes;
    } scratch[CUDA_SLOTS];
};

struct ops_weight {
    int64_t n, k;      /* [N, K] */
    bool fp8;          /* d_values are e4m3 with d_scale; else act_dtype */
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
/* -EIO after a device error. Call it before using the device. */
static inline int cuda_failed(const struct cuda_ops *o)
{
    return o->failed ? -EIO : 0;
}
/* cudaMalloc within memory_limit, 256-byte aligned. -ENOMEM. */
int cuda_malloc(struct cuda_ops *o, size_t n_bytes, void **ret);
/* NULL is fine. Waits for the device. */
void cuda_free(struct cuda_ops *o, void *d_memory);
/* At least n_bytes for this slot, contents undefined. Growing waits for the device and drops all captured graphs. */
int cuda_scratch(struct cuda_ops *o, enum cuda_slot slot, size_t n_bytes, void **ret);
/* Page-locked host memory; cudaFreeHost. -ENOMEM. */
int cuda_malloc_host(struct cuda_ops *o, size_t n_bytes, void **ret);
/* An event without a time. */
int cuda_event_new(struct cuda_ops *o, cudaEvent_t *ret);
/* An event with blocking waits; cuda_event_new's are busy waits. For waits as long as a batch, while the CPUs decode
 * images. */
int cuda_event_new_slept_for(struct cuda_ops *o, cudaEvent_t *ret);
/* Makes later work in `waiting` wait for all current work in `before`, using `event`. */
int cuda_stream_after(struct cuda_ops *o, cudaStream_t waiting, cudaStream_t before, cudaEvent_t event);

/* True if a captured graph is being replayed: enqueue nothing. */
static inline bool cuda_skips(const struct cuda_ops *o)
{
    return o->graph == CUDA_GRAPH_REPLAY;
}

/* Call before writing to this buffer: invalidates its quantised form. */
static inline void cuda_overwrites(struct cuda_ops *o, const void *d_memory)
{
    if (o->quantised.of == d_memory)
        o->quantised.of = NULL;
}

/* -- staging.cu -- */

/* Copies a host array to the device for the kernels of the calling operator. The same array (address, size, contents)
 * is sent once for many calls.
 *
 * In a graph the array's slot is chosen during capture. So cuda_stage is only for arrays that are arguments of the
 * operator, do not change until graph_end and have the same length in every run of the graph. Use cuda_stage_as for
 * others: max_bytes is the largest size in any run of the graph; made_here says that the operator made the array in
 * memory that it reuses. */
int cuda_stage_as(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                  const void **ret_device);
static inline int cuda_stage(struct cuda_ops *o, const void *host, size_t n_bytes, const void **ret_device)
{
    return cuda_stage_as(o, host, n_bytes, n_bytes, false, ret_device);
}
int cuda_staging_new(struct cuda_ops *o);
void cuda_staging_free(struct cuda_ops *o);

/* -- convert.cu -- */

/* Converts n values on the device from one float type to another, on `stream`. */
int cuda_convert(struct cuda_ops *o, cudaStream_t stream, void *d_dst, enum dtype dst_dtype, const void *d_src,
                 enum dtype src_dtype, size_t n);

/* -- upload.cu -- */

/* Uploads bytes unchanged; otherwise as upload(). */
int cuda_upload_bytes(struct cuda_ops *o, void *d_dst, const void *host, size_t n_bytes);

/* -- load.cu -- */

/* Loads host memory (a checkpoint's map) to the device as dst_dtype, with o->n_threads threads and pinned buffers.
 * Waits until the values have arrived. */
int cuda_load(struct cuda_ops *o, void *d_dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
void cuda_loader_free(struct cuda_ops *o);

/* -- parameters.cu: vectors and tables -- */

int cuda_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err);
void cuda_vector_free(struct ops *o, struct ops_vector *v);
int cuda_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err);
void cuda_table_free(struct ops *o, struct ops_table *t);

/* -- quantise.cu -- */

/* Rows of act_dtype -> e4m3 with a scale each, into CUDA_SLOT_QUANTISED: codes [n_rows, width] dense, then f32
 * scales [n_rows], 256-byte aligned. Does nothing if o->quantised already holds them. */
int cuda_quantise(struct cuda_ops *o, int64_t n_rows, int64_t width, const void *d_x, int64_t ld_x,
                  const void **ret_codes, const float **ret_scales);
/* The addresses of codes and scales of n_rows rows in CUDA_SLOT_QUANTISED. */
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
/* Returns the first error of the graph. -EAGAIN: the capture failed and nothing has run; later runs of the key are
 * not captured. */
int cuda_graph_end(struct ops *o);
/* Ends the graph after an operator's error, which graph_end then returns. */
void cuda_graph_fail(struct cuda_ops *o, int rc);
/* Drops all captured graphs, because their addresses are no longer valid. Not allowed while one is captured or
 * replayed. */
void cuda_graphs_forget(struct cuda_ops *o);
int cuda_graphs_new(struct cuda_ops *o);
void cuda_graphs_free(struct cuda_ops *o);
/* The slot of a host array in the graph being captured or replayed; as cuda_stage_as. In a first run it only counts. */
int cuda_graph_stage(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                     const void **ret_device);

#endif
