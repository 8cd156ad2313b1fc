/* Attention of single new tokens over the cache. Bound: reading keys and values from memory.
 *
 * A warp takes one head of one row. Its lanes are divided into slots of 2 (wide heads: 4, 8, ..). A slot takes one key
 * at a time and holds its columns in registers, so that one pass streams 16 keys and their values with 16-byte loads,
 * all in flight at once (5 KB per warp at 80 columns of 16 bits). Each slot has its own online softmax. Lanes only
 * exchange the parts of a dot product; at the end slots are merged by shuffles. The row of a key (ancestor table) is
 * looked up one pass ahead.
 *
 * A block takes 8 adjacent rows of one head, one warp each, and blocks of all heads of these rows run at the same
 * time. So the beams of an image read its prefix together: one warp fetches it, the others find it in L1 (a prefix
 * of 33 keys of a head is 10 KB), other blocks in L2, and it is read from memory once. The grid does not depend on
 * lengths or groups. If rows and heads are too few for the card, several warps (a number fixed by n_rows and
 * n_heads) share a row; each takes every n-th pass and they are merged in shared memory. Estimate: 256 images x 5
 * beams, 32 heads of 80, 33 + 15 keys: 86 MB of prefixes and 196 MB of tails per layer, 94 us at 3 TB/s; about 440
 * instructions per warp and pass (sm_90, bf16) and 2000 per row and head take 90 us of an H100's issue slots. So
 * both are limits, and 110 to 140 us are expected. 256 rows without beams: 63 MB, 21 us, and a fifth of the
 * instructions. Two blocks per SM (128 registers) have 80 KB in flight; 3 TB/s at 800 ns need 18. / */
#include "tensor/cuda/types.cuh"

#include "tensor/cuda/decode_chunks.cuh"
#include "tensor/cuda/ptx.cuh"

#include <assert.h>
#include <math.h>

enum { N_WARPS = 8 };

/* As struct ops_decode_attention_args, with all arrays on the device. */
struct decode_params {
    const void *q, *k, *v;
    void *out;
    const float *bias;
    const int32_t *prefix_start, *prefix_len, *tail, *tail_start, *tail_len;
    int64_t ld_q, ld_kv, ld_out, bias_span;
    int n_rows, n_heads, head_dim;
    int n_shares; /* warps per row: 1, 2, 4 or 8 */
    int n_lanes;  /* lanes per slot: a power of two */
    int pitch;    /* size of a query or result in shared memory, padded to all units of a slot */
    float scale, bias_scale;
    bool aligned; /* each head of each row is 16-byte aligned and a multiple of 16 bytes long */
};

/* Softmax uses base e and an exact exponential in f32, base 2 in 16-bit types. */
template <typename T> static __device__ __forceinline__ float power(float x)
{
    return ptx_exp2(x);
}
template <> __device__ __forceinline__ float power<float>(float x)
{
    return expf(x);
}

/* The rows of a sequence's keys. */
struct key_list {
    const int32_t *tail;
    int prefix_start, prefix_len, n_keys;
};

static __device__ __forceinline__ int key_row(const key_list &l, int key)
{
    if (key >= l.n_keys)
        return 0;
    return key < l.prefix_len ? l.prefix_start + key : l.tail[key - l.prefix_len];
}

/* Loads the warp's query to shared memory, zero-padded. */
template <typename T>
static __device__ __forceinline__ void load_query(float *query, const T *q, const decode_params &p)
{
    for (int c = (int)threadIdx.x % CUDA_WARP; c < p.pitch; c += CUDA_WARP)
        query[c] = c < p.head_dim ? to_f32(q[c]) : 0;
    __syncwarp();
}

/* The sums of a slot, with weights relative to the score `max`. */
template <typename T, int CHUNKS> struct slot_state {
    float max, sum;
    float out[CHUNKS][pack16<T>::N];
};

template <typename T, int CHUNKS> static __device__ __forceinline__ void rescale(slot_state<T, CHUNKS> &s, float factor)
{
    s.sum *= factor;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int e = 0; e < pack16<T>::N; e++)
            s.out[c][e] *= factor;
}

template <typename T, int CHUNKS>
static __device__ __forceinline__ void add_key(slot_state<T, CHUNKS> &s, float score, const lane_chunks<CHUNKS> &v)
{
    float weight;

    if (score > s.max) {
        rescale(s, power<T>(s.max - score));
        s.max = score;
    }
    weight = power<T>(score - s.max);
    s.sum += weight;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        float values[pack16<T>::N];

        to_floats<T>(values, v.at[c]);
#pragma unroll
        for (int e = 0; e < pack16<T>::N; e++)
            s.out[c][e] = fmaf(weight, values[e], s.out[c][e]);
    }
}

/* Runs every n_shares-th pass over the keys, from pass `share` on. */
template <typename T, int CHUNKS>
static __device__ __forceinline__ void attend_share(slot_state<T, CHUNKS> &s, const float *query,
                                                    const decode_params &p, const key_list &l, int head, int share)
{
    const int64_t column = (int64_t)head * p.head_dim;
    const int n_slots = CUDA_WARP / p.n_lanes, step = n_slots * p.n_shares;
    const T *k = (const T *)p.k + column, *v = (const T *)p.v + column;
    const float *bias =
        p.bias ? p.bias + head * (2 * p.bias_span - 1) + p.bias_span - l.n_keys : NULL; /* bias of key 0 */
    const int slot = (int)threadIdx.x % CUDA_WARP / p.n_lanes;
    int at = key_row(l, share * n_slots + slot);

    for (int first = share * n_slots; first < l.n_keys; first += step) {
        const int key = first + slot;
        const int n_values = key < l.n_keys ? p.head_dim : 0;
        const int64_t here = at * p.ld_kv;
        lane_chunks<CHUNKS> keys, values;
        float score;

        load_chunks(keys, k + here, n_values, p.n_lanes, p.aligned);
        load_chunks(values, v + here, n_values, p.n_lanes, p.aligned);
        at = key_row(l, key + step);
        score = dot<T>(query, keys, p.n_lanes) * p.scale;
        if (key < l.n_keys)
            add_key(s, bias ? fmaf(bias[key], p.bias_scale, score) : score, values);
    }
}

/* One step of merging slots: of two lanes that differ in the bit `mask`, each keeps half of the N values of every
 * unit and sends the other half. Returns true if this lane kept the upper half. */
template <typename T, int CHUNKS, int N>
static __device__ __forceinline__ bool halve(slot_state<T, CHUNKS> &s, int mask)
{
    const bool upper = ((int)threadIdx.x & mask) != 0;

#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int e = 0; e < N / 2; e++) {
            const float give = upper ? s.out[c][e] : s.out[c][e + N / 2];
            const float keep = upper ? s.out[c][e + N / 2] : s.out[c][e];

            s.out[c][e] = keep + __shfl_xor_sync(0xffffffffu, give, mask);
        }
    return upper;
}

/* Merges the slots of a warp into one result spread over its lanes: a lane keeps N columns of each unit from `first`
 * on, then half of them, and so on while slots remain. */
template <typename T, int CHUNKS, int N> struct merge {
    static __device__ __forceinline__ void run(slot_state<T, CHUNKS> &s, float *to, int mask, int first, int head_dim,
                                               int n_lanes)
    {
        if (mask < CUDA_WARP) {
            const bool upper = halve<T, CHUNKS, N>(s, mask);

            merge<T, CHUNKS, N / 2>::run(s, to, 2 * mask, first + (upper ? N / 2 : 0), head_dim, n_lanes);
        } else {
            store(s, to, first, head_dim, n_lanes);
        }
    }
    static __device__ __forceinline__ void store(slot_state<T, CHUNKS> &s, float *to, int first, int head_dim,
                                                 int n_lanes)
    {
        const int lane = (int)threadIdx.x & (n_lanes - 1);

#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int e = 0; e < N; e++) {
                const int column = (lane + c * n_lanes) * pack16<T>::N + first + e;

                if (column < head_dim)
                    to[column] = s.out[c][e];
            }
    }
};

/* One column of each unit is left: the remaining slots hold the same columns, and the last one writes. */
template <typename T, int CHUNKS> struct merge<T, CHUNKS, 1> {
    static __device__ __forceinline__ void run(slot_state<T, CHUNKS> &s, float *to, int mask, int first, int head_dim,
                                               int n_lanes)
    {
        const int above = CUDA_WARP - mask; /* the bits of the lane number that select these slots */

        for (; mask < CUDA_WARP; mask *= 2)
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
                s.out[c][0] += __shfl_xor_sync(0xffffffffu, s.out[c][0], mask);
        if (((int)threadIdx.x & above) == 0) {
            const int lane = (int)threadIdx.x & (n_lanes - 1);

#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                const int column = (lane + c * n_lanes) * pack16<T>::N + first;

                if (column < head_dim)
                    to[column] = s.out[c][0];
            }
        }
    }
};

/* A warp's result: head_dim sums, relative to `max`, in shared memory. */
struct share_result {
    float max, sum;
};

template <typename T, int CHUNKS>
static __device__ __forceinline__ void finish_share(slot_state<T, CHUNKS> &s, share_result *ret, float *ret_out,
                                                    const decode_params &p)
{
    float max = s.max, sum;

    for (int i = p.n_lanes; i < CUDA_WARP; i *= 2)
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, i));
    rescale(s, s.max == -INFINITY ? 0 : power<T>(s.max - max)); /* a slot, or a whole share, may have no key */
    sum = s.sum;
    for (int i = p.n_lanes; i < CUDA_WARP; i *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if ((int)threadIdx.x % CUDA_WARP == 0)
        *ret = {max, sum};
    merge<T, CHUNKS, pack16<T>::N>::run(s, ret_out, p.n_lanes, 0, p.head_dim, p.n_lanes);
}

/* Merges the shares of one row; each of its warps writes every n_shares-th group of 32 columns. */
template <typename T>
static __device__ __forceinline__ void merge_shares(T *to, const share_result *results, const float *out, int share,
                                                    const decode_params &p)
{
    float max = -INFINITY, sum = 0;

    if (p.n_shares == 1) {
        for (int c = (int)threadIdx.x % CUDA_WARP; c < p.head_dim; c += CUDA_WARP)
            to[c] = from_f32<T>(out[c] / results->sum);
        return;
    }
    for (int i = 0; i < p.n_shares; i++)
        max = fmaxf(max, results[i].max);
    for (int i = 0; i < p.n_shares; i++)
        sum += results[i].sum * power<T>(results[i].max - max);
    for (int c = share * CUDA_WARP + (int)threadIdx.x % CUDA_WARP; c < p.head_dim; c += p.n_shares * CUDA_WARP) {
        float value = 0;

        for (int i = 0; i < p.n_shares; i++)
            value = fmaf(out[i * p.pitch + c], power<T>(results[i].max - max), value);
        to[c] = from_f32<T>(value / sum);
    }
}

static __device__ __forceinline__ key_list keys_of(const decode_params &p, int row)
{
    key_list l;

    l.prefix_start = p.prefix_start[row];
    l.prefix_len = p.prefix_len[row];
    l.n_keys = l.prefix_len + p.tail_len[row];
    l.tail = p.tail + p.tail_start[row];
    return l;
}

/* Grid: heads, then groups of rows. */
template <typename T, int CHUNKS>
static __global__ void __launch_bounds__(N_WARPS *CUDA_WARP, 2) attend_tokens(const decode_params p)
{
    const int warp = (int)threadIdx.x / CUDA_WARP, share = warp % p.n_shares, head = (int)blockIdx.x;
    const int row = (int)blockIdx.y * (N_WARPS / p.n_shares) + warp / p.n_shares;
    share_result *results = cuda_shared<share_result>() + warp;
    float *out = (float *)(cuda_shared<share_result>() + N_WARPS) + warp * p.pitch; /* holds the query first */
    slot_state<T, CHUNKS> s;

    s.max = -INFINITY;
    s.sum = 0;
    for (int c = 0; c < CHUNKS; c++)
        for (int e = 0; e < pack16<T>::N; e++)
            s.out[c][e] = 0;
    if (row < p.n_rows) {
        load_query(out, (const T *)p.q + row * p.ld_q + (int64_t)head * p.head_dim, p);
        attend_share(s, out, p, keys_of(p, row), head, share);
        __syncwarp(); /* the query has been read */
        finish_share(s, results, out, p);
    }
    if (p.n_shares > 1)
        __syncthreads();
    else
        __syncwarp();
    if (row < p.n_rows)
        merge_shares<T>((T *)p.out + row * p.ld_out + (int64_t)head * p.head_dim, results - share,
                        out - share * p.pitch, share, p);
}

template <typename T, int CHUNKS> static int launch_chunks(struct cuda_ops *o, decode_params p)
{
    const int64_t n_groups = div_up(p.n_rows, N_WARPS / p.n_shares);

    assert(n_groups <= UINT16_MAX);
    p.pitch = CHUNKS * p.n_lanes * pack16<T>::N;
    return cuda_launch(o, attend_tokens<T, CHUNKS>, dim3((unsigned)p.n_heads, (unsigned)n_groups),
                       dim3(N_WARPS * CUDA_WARP), N_WARPS * (sizeof(share_result) + (size_t)p.pitch * sizeof(float)),
                       p);
}

/* Chooses the fewest lanes per slot with at most 6 units each; at least 2, since a memory sector has two units. */
template <typename T> static int launch_tokens(struct cuda_ops *o, decode_params p)
{
    const int n_chunks = (int)div_up(p.head_dim, pack16<T>::N);

    for (p.n_lanes = 2; div_up(n_chunks, p.n_lanes) > 6; p.n_lanes *= 2)
        ;
    assert(p.n_lanes <= CUDA_WARP);
    if (div_up(n_chunks, p.n_lanes) <= 4)
        return launch_chunks<T, 4>(o, p);
    if (div_up(n_chunks, p.n_lanes) == 5)
        return launch_chunks<T, 5>(o, p);
    return launch_chunks<T, 6>(o, p);
}

/* Warps per row: enough for about 16 per multiprocessor. */
static int shares_of(const struct cuda_ops *o, int64_t n_row_heads)
{
    int n = 1;

    while (n < N_WARPS && n * n_row_heads < 16 * (int64_t)o->n_processors)
        n *= 2;
    return n;
}

static int stage_rows(struct cuda_ops *o, const struct ops_decode_attention_args *a, decode_params *p)
{
    const int32_t *host[] = {a->prefix_start, a->prefix_len, a->tail_start, a->tail_len};
    const int32_t **device[] = {&p->prefix_start, &p->prefix_len, &p->tail_start, &p->tail_len};
    int64_t n_tail = 0, longest = 1;
    const void *d = NULL;
    int rc = 0;

    for (int r = 0; r < a->n_rows; r++) {
        const int64_t n_keys = (int64_t)a->prefix_len[r] + a->tail_len[r];

        assert(a->prefix_len[r] >= 0 && a->tail_len[r] >= 0 && n_keys >= 1 && (!a->bias || n_keys <= a->bias_span));
        if (a->tail_len[r] == 0)
            continue;
        n_tail = a->tail_start[r] + a->tail_len[r] > n_tail ? a->tail_start[r] + a->tail_len[r] : n_tail;
        while (longest < a->tail_len[r])
            longest *= 2;
    }
    for (int i = 0; rc == 0 && i < 4; i++) {
        rc = cuda_stage(o, host[i], (size_t)a->n_rows * sizeof(int32_t), &d);
        *device[i] = (const int32_t *)d;
    }
    if (rc == 0 &&
        n_tail >
            0) { /* may be longer in another run of the graph, but its key includes the longest tail's power of two */
        const int64_t n_most = longest * a->n_rows > n_tail ? longest * a->n_rows : n_tail;

        rc = cuda_stage_as(o, a->tail, (size_t)n_tail * sizeof(int32_t), (size_t)n_most * sizeof(int32_t), false, &d);
        p->tail = (const int32_t *)d;
    }
    return rc;
}

int cuda_decode_attention(struct ops *base, const struct ops_decode_attention_args *a)
{
    struct cuda_ops *o = cuda_of(base);
    const size_t element = cuda_element_bytes(o), head_bytes = (size_t)a->head_dim * element;
    const double unit = o->base.act_dtype == DTYPE_F32 ? 1 : M_LOG2E; /* converts scores from base e */
    decode_params p = {};
    int rc;

    if (a->n_rows == 0)
        return 0;
    p.q = a->q;
    p.k = a->k;
    p.v = a->v;
    p.out = a->out;
    p.bias = a->bias;
    p.ld_q = a->ld_q;
    p.ld_kv = a->ld_kv;
    p.ld_out = a->ld_out;
    p.bias_span = a->bias_span;
    p.n_rows = a->n_rows;
    p.n_heads = a->n_heads;
    p.head_dim = a->head_dim;
    p.n_shares = shares_of(o, (int64_t)a->n_rows * a->n_heads);
    p.scale = (float)(a->scale * unit);
    p.bias_scale = (float)unit;
    p.aligned = head_bytes % 16 == 0 && (size_t)a->ld_q * element % 16 == 0 && (size_t)a->ld_kv * element % 16 == 0 &&
                ((uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v) % 16 == 0;
    rc = stage_rows(o, a, &p);
    if (rc < 0)
        return rc;
    return by_act_dtype(o, [&](auto tag) { return launch_tokens<typename decltype(tag)::type>(o, p); });
}
