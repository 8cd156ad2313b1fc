/* Attention in f32, on CUDA cores, in one pass over the keys.
 *
 * A block of 16 x 16 threads takes a tile of query rows (64; 32 for wide heads) and streams tiles of as many keys,
 * then their values, through one buffer of shared memory. A thread computes PER x PER scores (rows from ty * PER,
 * every 16th key from tx) and holds PER rows of every 16th pair of result columns. The 16 threads of one ty share
 * rows. They are half a warp, so maxima and sums are shuffles, and weights pass through shared memory without a
 * barrier. Rows of queries and keys are padded by 4 floats, which spreads 8 keys' 16-byte loads over all banks.
 * Bound: 2 x 16 FMA per thread and column need 8 loads of 16 bytes for 4 columns, so FMA units and shared memory are
 * about equally busy, at about half the card's f32 rate (67 TFLOP/s on an H100). f32 is for checking; production
 * uses 16-bit types. Exponentials are expf, since ex2.approx has an error of 2e-6. */
#include "tensor/cuda/types.cuh"

#include "tensor/cuda/attention.cuh"

#include <math.h>

enum { SIDE = 16 }; /* threads of a block: SIDE * SIDE */

template <int WIDTH> struct f32_shape {
    enum {
        PER = WIDTH <= 128 ? 4 : 2,      /* rows, and keys, per thread */
        TILE = SIDE * PER,               /* of a block */
        PITCH = WIDTH + 4,               /* row stride of queries, keys and values */
        WEIGHTS_PITCH = TILE + 16 / PER, /* the two halves of a warp write to different banks */
        PAIRS = WIDTH / (2 * SIDE),      /* pairs of result columns per thread */
        SHARED_BYTES = (2 * TILE * PITCH + TILE * WEIGHTS_PITCH) * (int)sizeof(float),
    };
};

/* Of one thread. */
template <int WIDTH> struct thread_rows {
    float out[f32_shape<WIDTH>::PER][2 * f32_shape<WIDTH>::PAIRS];
    float max[f32_shape<WIDTH>::PER], sum[f32_shape<WIDTH>::PER];
};

/* Loads n_rows rows; pads the tile with zeros. */
template <int WIDTH>
static __device__ __forceinline__ void load_tile(float *shared, const float *from, int64_t ld, int n_rows, int head_dim)
{
    using shape = f32_shape<WIDTH>;

    for (int i = (int)threadIdx.x; i < shape::TILE * WIDTH; i += SIDE * SIDE) {
        const int row = i / WIDTH, column = i % WIDTH;

        shared[row * shape::PITCH + column] = row < n_rows && column < head_dim ? from[row * ld + column] : 0;
    }
}

template <int WIDTH, int PER>
static __device__ __forceinline__ void multiply_keys(float (&score)[PER][PER], const float *queries, const float *keys)
{
    using shape = f32_shape<WIDTH>;
    const int tx = (int)threadIdx.x % SIDE, ty = (int)threadIdx.x / SIDE;

    for (int i = 0; i < PER; i++)
        for (int j = 0; j < PER; j++)
            score[i][j] = 0;
#pragma unroll 1
    for (int c = 0; c < WIDTH; c += 4) {
        pack16<float> q[PER], k[PER];

#pragma unroll
        for (int i = 0; i < PER; i++) {
            q[i] = *(const pack16<float> *)(queries + (ty * PER + i) * shape::PITCH + c);
            k[i] = *(const pack16<float> *)(keys + (tx + SIDE * i) * shape::PITCH + c);
        }
#pragma unroll
        for (int i = 0; i < PER; i++)
#pragma unroll
            for (int j = 0; j < PER; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    score[i][j] = fmaf(q[i].v[e], k[j].v[e], score[i][j]);
    }
}

static __device__ __forceinline__ float half_warp_max(float x)
{
    for (int i = SIDE / 2; i > 0; i /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

static __device__ __forceinline__ float half_warp_sum(float x)
{
    for (int i = SIDE / 2; i > 0; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

/* Turns products into weights relative to the largest score so far, and rescales the earlier sums. */
template <int WIDTH, int PER>
static __device__ __forceinline__ void weigh(thread_rows<WIDTH> &w, float (&score)[PER][PER], const attention_params &p,
                                             const attention_head &h, int first_row, int first)
{
    const int tx = (int)threadIdx.x % SIDE, ty = (int)threadIdx.x / SIDE;

#pragma unroll
    for (int i = 0; i < PER; i++) {
        const int row = first_row + ty * PER + i, n_seen = keys_seen(p, h, row);
        float max = w.max[i], sum = 0, shrink;

#pragma unroll
        for (int j = 0; j < PER; j++) {
            const int key = first + tx + SIDE * j;

            score[i][j] *= p.scale;
            if (p.bias)
                score[i][j] += attention_bias(p, h, key - (h.n_before + row));
            if (key >= n_seen)
                score[i][j] = -INFINITY;
            max = fmaxf(max, score[i][j]);
        }
        max = half_warp_max(max);
        shrink = expf(w.max[i] - max);
#pragma unroll
        for (int j = 0; j < PER; j++) {
            score[i][j] = expf(score[i][j] - max);
            sum += score[i][j];
        }
#pragma unroll
        for (int c = 0; c < 2 * f32_shape<WIDTH>::PAIRS; c++)
            w.out[i][c] *= shrink;
        w.sum[i] = w.sum[i] * shrink + sum;
        w.max[i] = max;
    }
}

template <int WIDTH, int PER>
static __device__ __forceinline__ void store_weights(float *weights, const float (&score)[PER][PER])
{
    const int tx = (int)threadIdx.x % SIDE, ty = (int)threadIdx.x / SIDE;

    for (int i = 0; i < PER; i++)
        for (int j = 0; j < PER; j++)
            weights[(ty * PER + i) * f32_shape<WIDTH>::WEIGHTS_PITCH + tx + SIDE * j] = score[i][j];
}

template <int WIDTH>
static __device__ __forceinline__ void multiply_values(thread_rows<WIDTH> &w, const float *weights, const float *values)
{
    using shape = f32_shape<WIDTH>;
    const int tx = (int)threadIdx.x % SIDE, ty = (int)threadIdx.x / SIDE;

#pragma unroll 1
    for (int key = 0; key < shape::TILE; key += 4) {
        pack16<float> p[shape::PER];

#pragma unroll
        for (int i = 0; i < shape::PER; i++)
            p[i] = *(const pack16<float> *)(weights + (ty * shape::PER + i) * shape::WEIGHTS_PITCH + key);
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int c = 0; c < shape::PAIRS; c++) {
                const float2 v = *(const float2 *)(values + (key + e) * shape::PITCH + 2 * (tx + SIDE * c));

#pragma unroll
                for (int i = 0; i < shape::PER; i++) {
                    w.out[i][2 * c] = fmaf(p[i].v[e], v.x, w.out[i][2 * c]);
                    w.out[i][2 * c + 1] = fmaf(p[i].v[e], v.y, w.out[i][2 * c + 1]);
                }
            }
    }
}

template <int WIDTH>
static __device__ __forceinline__ void store_rows(const thread_rows<WIDTH> &w, const attention_params &p,
                                                  const attention_head &h, int first_row)
{
    using shape = f32_shape<WIDTH>;
    const int tx = (int)threadIdx.x % SIDE, ty = (int)threadIdx.x / SIDE;

#pragma unroll
    for (int i = 0; i < shape::PER; i++) {
        const int row = first_row + ty * shape::PER + i;
        const float sum = half_warp_sum(w.sum[i]);
        float *to = (float *)p.out + (h.q_start + row) * p.ld_out + (int64_t)h.head * p.head_dim;

#pragma unroll
        for (int c = 0; c < 2 * shape::PAIRS; c++) {
            const int column = 2 * (tx + SIDE * (c / 2)) + c % 2;

            if (row < h.n_q && column < p.head_dim)
                to[column] = w.out[i][c] / sum;
        }
    }
}

template <int WIDTH>
static __device__ __forceinline__ void attend_tile(const attention_params &p, const attention_head &h, int first_row)
{
    using shape = f32_shape<WIDTH>;
    const int n_rows = smaller(shape::TILE, h.n_q - first_row), n_keys = keys_seen(p, h, first_row + n_rows - 1);
    float *queries = cuda_shared<float>(), *rows = queries + shape::TILE * shape::PITCH;
    float *weights = rows + shape::TILE * shape::PITCH;
    thread_rows<WIDTH> w;

    for (int i = 0; i < shape::PER; i++) {
        w.max[i] = -INFINITY;
        w.sum[i] = 0;
        for (int c = 0; c < 2 * shape::PAIRS; c++)
            w.out[i][c] = 0;
    }
    load_tile<WIDTH>(queries, attention_row<float>(p, h, p.q, p.ld_q, h.q_start + first_row), p.ld_q, n_rows,
                     p.head_dim);
    for (int first = 0; first < n_keys; first += shape::TILE) {
        const int n = smaller(shape::TILE, n_keys - first), row = h.kv_start + first;
        float score[shape::PER][shape::PER];

        load_tile<WIDTH>(rows, attention_row<float>(p, h, p.k, p.ld_k, row), p.ld_k, n, p.head_dim);
        __syncthreads();
        multiply_keys<WIDTH, shape::PER>(score, queries, rows);
        weigh<WIDTH, shape::PER>(w, score, p, h, first_row, first);
        store_weights<WIDTH, shape::PER>(weights, score);
        __syncthreads(); /* the keys have been read */
        load_tile<WIDTH>(rows, attention_row<float>(p, h, p.v, p.ld_v, row), p.ld_v, n, p.head_dim);
        __syncthreads();
        multiply_values<WIDTH>(w, weights, rows);
        __syncthreads(); /* the values have been read */
    }
    store_rows<WIDTH>(w, p, h, first_row);
}

template <int WIDTH> static __global__ void __launch_bounds__(SIDE *SIDE) attend_f32(const attention_params p)
{
    const int head = (int)blockIdx.x / p.n_tiles;
    const attention_head h = attention_head_of(p, head / p.n_heads, head % p.n_heads);

    for (int tile = (int)blockIdx.x % p.n_tiles; tile * f32_shape<WIDTH>::TILE < h.n_q; tile += p.n_tiles)
        attend_tile<WIDTH>(p, h, tile * f32_shape<WIDTH>::TILE);
}

template <int WIDTH> static int launch_width(struct cuda_ops *o, attention_params p, int longest_q)
{
    int64_t n_blocks;

    p.n_tiles = (int)div_up(longest_q, f32_shape<WIDTH>::TILE);
    n_blocks = (int64_t)p.n_seqs * p.n_heads * p.n_tiles;
    assert(n_blocks <= INT32_MAX);
    return cuda_launch(o, attend_f32<WIDTH>, dim3((unsigned)n_blocks), dim3(SIDE * SIDE),
                       f32_shape<WIDTH>::SHARED_BYTES, p);
}

int attention_launch_f32(struct cuda_ops *o, const struct attention_params *p, int longest_q)
{
    if (p->head_dim <= 32)
        return launch_width<32>(o, *p, longest_q);
    if (p->head_dim <= 64)
        return launch_width<64>(o, *p, longest_q);
    if (p->head_dim <= 96)
        return launch_width<96>(o, *p, longest_q);
    if (p->head_dim <= 128)
        return launch_width<128>(o, *p, longest_q);
    assert(p->head_dim <= 256);
    return launch_width<256>(o, *p, longest_q);
}
