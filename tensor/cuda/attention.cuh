/* attention.cuh - parameters and helpers of the attention kernels.
 *
 * Who may call: attention*.cu.
 * Units: row strides in elements, otherwise as in struct ops_attention_args. */
#ifndef BLIPLINE_TENSOR_CUDA_ATTENTION_CUH
#define BLIPLINE_TENSOR_CUDA_ATTENTION_CUH

#include "tensor/cuda/launch.cuh"

/* As struct ops_attention_args, with all arrays on the device. */
struct attention_params {
    const void *q, *k, *v;
    void *out;
    const float *bias;
    const int32_t *q_start, *q_len, *kv_start, *kv_len;
    int64_t ld_q, ld_k, ld_v, ld_out, bias_span;
    int n_heads, head_dim, n_seqs;
    int n_tiles; /* blocks per head of a sequence; a block takes every n_tiles-th tile of query rows */
    float scale, inverse_scale, scale_log2; /* scale_log2: times log2(e) */
    bool causal;
    bool aligned; /* each head of each row is 16-byte aligned and a multiple of 16 bytes long */
};

/* One head of one sequence. Holds offsets only, to save registers. */
struct attention_head {
    int head;
    int q_start, n_q, kv_start, n_kv;
    int n_before; /* the first query's position among the keys */
};

static __device__ __forceinline__ attention_head attention_head_of(const attention_params &p, int s, int head)
{
    attention_head h;

    h.head = head;
    h.q_start = p.q_start[s];
    h.n_q = p.q_len[s];
    h.kv_start = p.kv_start[s];
    h.n_kv = p.kv_len[s];
    h.n_before = p.causal ? h.n_kv - h.n_q : 0;
    return h;
}

/* A pointer to this head's columns of a row. */
template <typename T>
static __device__ __forceinline__ const T *attention_row(const attention_params &p, const attention_head &h,
                                                         const void *x, int64_t ld, int row)
{
    return (const T *)x + row * ld + (int64_t)h.head * p.head_dim;
}

static __device__ __forceinline__ int smaller(int a, int b)
{
    return a < b ? a : b;
}
static __device__ __forceinline__ int larger(int a, int b)
{
    return a > b ? a : b;
}

/* The number of keys that a row of this head sees; it never decreases from row to row. */
static __device__ __forceinline__ int keys_seen(const attention_params &p, const attention_head &h, int row)
{
    return p.causal ? smaller(h.n_kv, h.n_before + row + 1) : h.n_kv;
}

/* The bias at this distance (key's position minus query's). Distances of padding rows and keys have none. */
static __device__ __forceinline__ float attention_bias(const attention_params &p, const attention_head &h, int distance)
{
    const int furthest = (int)p.bias_span - 1;

    return p.bias[h.head * (2 * p.bias_span - 1) + furthest + larger(-furthest, smaller(furthest, distance))];
}

/* Launch the kernel of one type; longest_q over all sequences. */
int attention_launch_f32(struct cuda_ops *o, const struct attention_params *p, int longest_q);
int attention_launch_f16(struct cuda_ops *o, const struct attention_params *p, int longest_q);
int attention_launch_bf16(struct cuda_ops *o, const struct attention_params *p, int longest_q);

#endif
