/* attention_tiles.cuh - attention in 16-bit types on tensor cores, in one pass over the keys (FlashAttention-2).
 *
 * A block takes 16 query rows per warp and streams the keys and values of one head in stages of 64 rows (48 or 32 for
 * wide heads), which cp.async copies to two buffers of shared memory: one stage is computed while the next one arrives,
 * with one barrier per stage. Queries stay in registers as A operands of mma.m16n8k16; so do scores, which are already
 * laid out as the A operand of the product with the values. Softmax is online, base 2, its factor folded into one FMA;
 * results are divided by the sums at the end. Rows in shared memory are an odd number of 16-byte units apart, so that
 * the eight rows of an ldmatrix, and of the results, are in different banks.
 *
 * Bound: for 16 rows, 64 keys and a head of 96 columns a warp needs 2 x 77 clocks of an H100's mma.sync rate (1270
 * multiply-adds a clock and SM), 2 x 96 clocks of shared memory (ldmatrix, 128 bytes a clock) and 64 clocks of
 * exponentials: shared memory, at 460 TFLOP/s of padded work; on an A100 both are equal. So padding must be small: a
 * block has the number of warps (1 to 6) that wastes least for the longest sequence, warps without rows only copy, and
 * the last stage computes 16, 32 or all of its keys. 257 x 257 x 88 (three blocks of 6 warps, 272 keys) costs 1.22
 * times its own arithmetic; tiles of 128 x 64 x 96 would cost 2.0. A causal row stops at its last key. Global memory:
 * keys and values are read once per block of a head, from L2 except for the first: 2 * 257 * 176 bytes for 96 * 257 *
 * 88 * 4 FLOP, 96 FLOP per byte of L2.
 *
 * Two blocks of 6 warps of an SM cover each other's prologue: at most 168 registers up to 96 columns, of which ptxas
 * spills a few that only the start and the end of a tile use.
 * Who may call: attention_f16.cu, attention_bf16.cu. */
#ifndef BLIPLINE_TENSOR_CUDA_ATTENTION_TILES_CUH
#define BLIPLINE_TENSOR_CUDA_ATTENTION_TILES_CUH

#include "tensor/cuda/types.cuh"

#include "tensor/cuda/attention.cuh"
#include "tensor/cuda/ptx.cuh"

#include <math.h>
#include <string.h>

/* WIDTH: head_dim, rounded up to a width with a kernel; a multiple of 8. */
template <int WIDTH> struct tile_shape {
    enum {
        STEPS = (WIDTH + 15) / 16, /* of the product of queries and keys, 16 columns each */
        CHUNKS = 2 * STEPS,        /* 16-byte units of a row */
        PITCH = CHUNKS + 1,        /* row stride in shared memory, in these units: odd */
        COLUMNS = WIDTH / 8,       /* groups of 8 result columns; units of a row without padding */
        /* 88 and 96: two blocks of six warps also fit an SM with 100 KB */
        KEYS = WIDTH > 160                 ? 32
               : WIDTH > 80 && WIDTH <= 96 ? 48
                                           : 64,
        STAGE = 2 * KEYS * PITCH,     /* keys, then values */
        WARPS = WIDTH <= 160 ? 6 : 4, /* at most; the queries' rows fit into one stage */
        BAND = KEYS + 16 * WARPS,     /* distances between a stage's keys and a block's rows */
        SHARED_BYTES = 2 * STAGE * 16 + 2 * BAND * 4,
    };
};

/* 16 query rows of a warp. A lane holds, with g = lane / 4 and t = lane % 4, parts of rows g ([0]) and g + 8 ([1]). */
template <int WIDTH> struct warp_rows {
    uint32_t q[tile_shape<WIDTH>::STEPS][4];
    float out[tile_shape<WIDTH>::COLUMNS][4]; /* columns 2t, 2t + 1 of row g, then of row g + 8 */
    float max[2], sum[2];                     /* max: of the row; sum: of this lane's columns */
};

/* The keys that the lane's two rows see. */
struct warp_sight {
    int n_seen[2]; /* number of keys */
    int band;      /* index of the first row and first key in a stage's band */
};

template <typename T> static __device__ __forceinline__ uint32_t pack_f32(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_f32<__half>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;

    memcpy(&bits, &pair, sizeof(bits));
    return bits;
}
template <> __device__ __forceinline__ uint32_t pack_f32<__nv_bfloat16>(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;

    memcpy(&bits, &pair, sizeof(bits));
    return bits;
}

/* Copies 16-byte unit `chunk` of `row` to shared memory; zeros if it does not exist. */
template <typename T>
static __device__ __forceinline__ void load_chunk(pack16<T> *shared, const T *from, int ld, int row, int chunk,
                                                  int n_rows, const attention_params &p)
{
    if (p.aligned) {
        const bool there = row < n_rows && 8 * chunk < p.head_dim;

        ptx_copy_async(shared, (const char *)from + (row * ld + 8 * chunk) * (int)sizeof(T), there ? 16 : 0);
    } else {
        const int n = row < n_rows ? p.head_dim - 8 * chunk : 0;
        pack16<T> x;

        for (int j = 0; j < 8; j++)
            x.v[j] = j < n ? from[row * ld + 8 * chunk + j] : from_f32<T>(0);
        *shared = x;
    }
}

/* Copies n_valid query rows, zero-padded to n_rows, with all threads of the block. */
template <typename T, int WIDTH>
static __device__ __forceinline__ void load_queries(pack16<T> *shared, const attention_params &p,
                                                    const attention_head &h, int first, int n_valid, int n_rows)
{
    using shape = tile_shape<WIDTH>;
    const T *q = attention_row<T>(p, h, p.q, p.ld_q, h.q_start + first);

    for (int i = (int)threadIdx.x; i < n_rows * shape::COLUMNS; i += (int)blockDim.x) {
        const int row = (unsigned)i / shape::COLUMNS, chunk = (unsigned)i % shape::COLUMNS;

        load_chunk(shared + row * shape::PITCH + chunk, q, (int)p.ld_q, row, chunk, n_valid, p);
    }
    ptx_copy_async_commit();
}

/* Clears the last unit of rows if products read one more unit than a row has. Nothing else writes there. */
template <typename T, int WIDTH> static __device__ __forceinline__ void clear_pads(pack16<T> *stages)
{
    using shape = tile_shape<WIDTH>;
    pack16<T> zeros;

    for (int j = 0; j < 8; j++)
        zeros.v[j] = from_f32<T>(0);
    if (shape::CHUNKS > shape::COLUMNS)
        for (int row = (int)threadIdx.x; row < 4 * shape::KEYS; row += (int)blockDim.x)
            stages[row * shape::PITCH + shape::COLUMNS] = zeros;
}

/* The number of a stage's keys to compute if n are left. */
template <int KEYS> static __device__ __forceinline__ int keys_computed(int n)
{
    return n > 32 ? KEYS : n > 16 ? 32 : 16;
}

/* Loads the bias of a stage's keys by distance: that of key i and the tile's row r is at i - r + tile_rows - 1. */
static __device__ __forceinline__ void load_band(float *band, const attention_params &p, const attention_head &h,
                                                 int first, int n_keys, int first_row)
{
    const int tile_rows = (int)blockDim.x / CUDA_WARP * 16;
    const int distance = first - (h.n_before + first_row) - (tile_rows - 1);

    for (int i = (int)threadIdx.x; i < n_keys + tile_rows - 1; i += (int)blockDim.x)
        band[i] = attention_bias(p, h, distance + i) * p.inverse_scale;
}

/* Copies keys from `first` on to a stage, with their bias. */
template <typename T, int WIDTH>
static __device__ __forceinline__ void load_stage(pack16<T> *stage, float *band, const attention_params &p,
                                                  const attention_head &h, int first, int n_keys, int first_row)
{
    using shape = tile_shape<WIDTH>;
    const int n_valid = smaller(shape::KEYS, n_keys - first), n_rows = keys_computed<shape::KEYS>(n_valid);
    const T *k = attention_row<T>(p, h, p.k, p.ld_k, h.kv_start + first);
    const T *v = attention_row<T>(p, h, p.v, p.ld_v, h.kv_start + first);

    for (int i = (int)threadIdx.x; i < n_rows * shape::COLUMNS; i += (int)blockDim.x) {
        const int row = (unsigned)i / shape::COLUMNS, chunk = (unsigned)i % shape::COLUMNS;
        pack16<T> *to = stage + row * shape::PITCH + chunk;

        load_chunk(to, k, (int)p.ld_k, row, chunk, n_valid, p);
        load_chunk(to + shape::KEYS * shape::PITCH, v, (int)p.ld_v, row, chunk, n_valid, p);
    }
    ptx_copy_async_commit();
    if (p.bias)
        load_band(band, p, h, first, n_rows, first_row);
}

/* score[i]: keys 8i .. 8i + 7. */
template <typename T, int WIDTH, int KEYS>
static __device__ __forceinline__ void multiply_keys(float (&score)[KEYS / 8][4], const warp_rows<WIDTH> &w,
                                                     const pack16<T> *keys)
{
    using shape = tile_shape<WIDTH>;
    const int lane = (int)threadIdx.x % CUDA_WARP;
    const pack16<T> *at = keys + (lane / 16 * 8 + lane % 8) * shape::PITCH + lane / 8 % 2;

#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            score[i][j] = 0;
#pragma unroll
    for (int step = 0; step < shape::STEPS; step++)
#pragma unroll
        for (int i = 0; i < KEYS / 8; i += 2) {
            uint32_t r[4];

            ptx_ldmatrix_x4(r, at + 8 * i * shape::PITCH + 2 * step);
            ptx_mma<T>(score[i], w.q[step], {r[0], r[1]});
            ptx_mma<T>(score[i + 1], w.q[step], {r[2], r[3]});
        }
}

/* Row g + 8 is eight further from a key than row g, so it adds to keys from 8i + 8 what row g adds to keys from 8i. */
template <int KEYS> static __device__ __forceinline__ void add_bias(float (&score)[KEYS / 8][4], const float *band)
{
    float low[2] = {band[-8], band[-7]};

#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const float high = band[8 * i + j];

            score[i][j] += high;
            score[i][2 + j] += low[j];
            low[j] = high;
        }
}

template <int KEYS>
static __device__ __forceinline__ void hide_keys(float (&score)[KEYS / 8][4], const warp_sight &see, int first)
{
    const int key = first + (int)threadIdx.x % 4 * 2;

#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (key + 8 * i + j % 2 >= see.n_seen[j / 2])
                score[i][j] = -INFINITY;
}

/* Turns scores into weights relative to the largest score so far, and rescales the earlier sums. */
template <int WIDTH, int KEYS>
static __device__ __forceinline__ void weigh(float (&score)[KEYS / 8][4], warp_rows<WIDTH> &w, float unit)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float max = w.max[r], sum = 0, shift, shrink;

#pragma unroll
        for (int i = 0; i < KEYS / 8; i++)
            max = fmaxf(max, fmaxf(score[i][2 * r], score[i][2 * r + 1]));
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 1));
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 2));
        shift = -max * unit;
        shrink = ptx_exp2(fmaf(w.max[r], unit, shift));
#pragma unroll
        for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
            for (int j = 2 * r; j < 2 * r + 2; j++) {
                score[i][j] = ptx_exp2(fmaf(score[i][j], unit, shift));
                sum += score[i][j];
            }
#pragma unroll
        for (int i = 0; i < tile_shape<WIDTH>::COLUMNS; i++) {
            w.out[i][2 * r] *= shrink;
            w.out[i][2 * r + 1] *= shrink;
        }
        w.sum[r] = w.sum[r] * shrink + sum;
        w.max[r] = max;
    }
}

template <typename T, int WIDTH, int KEYS>
static __device__ __forceinline__ void multiply_values(warp_rows<WIDTH> &w, const float (&weight)[KEYS / 8][4],
                                                       const pack16<T> *values)
{
    using shape = tile_shape<WIDTH>;
    const int lane = (int)threadIdx.x % CUDA_WARP;
    const pack16<T> *at = values + lane % 16 * shape::PITCH + lane / 16;

#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
        const uint32_t a[4] = {pack_f32<T>(weight[2 * i][0], weight[2 * i][1]),
                               pack_f32<T>(weight[2 * i][2], weight[2 * i][3]),
                               pack_f32<T>(weight[2 * i + 1][0], weight[2 * i + 1][1]),
                               pack_f32<T>(weight[2 * i + 1][2], weight[2 * i + 1][3])};

#pragma unroll
        for (int c = 0; c < shape::COLUMNS; c += 2) {
            uint32_t r[4];

            ptx_ldmatrix_x4_trans(r, at + 16 * i * shape::PITCH + c);
            ptx_mma<T>(w.out[c], a, {r[0], r[1]});
            if (c + 1 < shape::COLUMNS)
                ptx_mma<T>(w.out[c + 1], a, {r[2], r[3]});
        }
    }
}

template <typename T, int WIDTH, int KEYS>
static __device__ __forceinline__ void attend_keys(warp_rows<WIDTH> &w, const warp_sight &see, const pack16<T> *stage,
                                                   const float *band, const attention_params &p, int first)
{
    using shape = tile_shape<WIDTH>;
    float score[KEYS / 8][4];

    multiply_keys<T, WIDTH, KEYS>(score, w, stage);
    if (p.bias)
        add_bias<KEYS>(score, band + see.band);
    if (first + KEYS > see.n_seen[0])
        hide_keys<KEYS>(score, see, first);
    weigh<WIDTH, KEYS>(score, w, p.scale_log2);
    multiply_values<T, WIDTH, KEYS>(w, score, stage + shape::KEYS * shape::PITCH);
}

/* Processes keys from `first` on of one stage; the warp's rows see n of them. */
template <typename T, int WIDTH>
static __device__ __forceinline__ void attend_stage(warp_rows<WIDTH> &w, const warp_sight &see, const pack16<T> *stage,
                                                    const float *band, const attention_params &p, int first, int n)
{
    if (n <= 0)
        return;
    if (tile_shape<WIDTH>::KEYS > 32 && n > 32)
        attend_keys<T, WIDTH, tile_shape<WIDTH>::KEYS>(w, see, stage, band, p, first);
    else if (n > 16)
        attend_keys<T, WIDTH, 32>(w, see, stage, band, p, first);
    else
        attend_keys<T, WIDTH, 16>(w, see, stage, band, p, first);
}

template <typename T, int WIDTH>
static __device__ __forceinline__ void begin_rows(warp_rows<WIDTH> &w, const pack16<T> *queries)
{
    const int lane = (int)threadIdx.x % CUDA_WARP;

#pragma unroll
    for (int step = 0; step < tile_shape<WIDTH>::STEPS; step++)
        ptx_ldmatrix_x4(w.q[step], queries + lane % 16 * tile_shape<WIDTH>::PITCH + lane / 16 + 2 * step);
#pragma unroll
    for (int c = 0; c < tile_shape<WIDTH>::COLUMNS; c++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            w.out[c][j] = 0;
    for (int r = 0; r < 2; r++) {
        w.max[r] = -INFINITY;
        w.sum[r] = 0;
    }
}

static __device__ __forceinline__ warp_sight sight_of(const attention_params &p, const attention_head &h, int first_row,
                                                      int own_row, int tile_rows)
{
    const int lane = (int)threadIdx.x % CUDA_WARP;
    warp_sight see;

    see.n_seen[0] = keys_seen(p, h, first_row + own_row + lane / 4);
    see.n_seen[1] = keys_seen(p, h, first_row + own_row + lane / 4 + 8);
    see.band = lane % 4 * 2 - (own_row + lane / 4) + tile_rows - 1;
    return see;
}

/* Writes the warp's rows through shared memory, so that a row is stored in units of 16 bytes. */
template <typename T, int WIDTH>
static __device__ __forceinline__ void store_rows(const warp_rows<WIDTH> &w, pack16<T> *shared,
                                                  const attention_params &p, const attention_head &h, int first_row,
                                                  int n_rows)
{
    using shape = tile_shape<WIDTH>;
    T *to = (T *)p.out + (h.q_start + first_row) * p.ld_out + (int64_t)h.head * p.head_dim;
    const int lane = (int)threadIdx.x % CUDA_WARP;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = w.sum[r];
        uint32_t *at = (uint32_t *)(shared + (lane / 4 + 8 * r) * shape::PITCH) + lane % 4;

        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        sum = 1 / sum;
#pragma unroll
        for (int c = 0; c < shape::COLUMNS; c++)
            at[4 * c] = pack_f32<T>(w.out[c][2 * r] * sum, w.out[c][2 * r + 1] * sum);
    }
    __syncwarp();
    if (p.aligned) {
        for (int i = lane; i < n_rows * shape::COLUMNS; i += CUDA_WARP) {
            const int row = i / shape::COLUMNS, chunk = i % shape::COLUMNS;

            if (8 * chunk < p.head_dim)
                *(pack16<T> *)(to + row * p.ld_out + 8 * chunk) = shared[row * shape::PITCH + chunk];
        }
    } else {
        for (int row = 0; row < n_rows; row++)
            for (int c = lane; c < p.head_dim; c += CUDA_WARP)
                to[row * p.ld_out + c] = ((const T *)(shared + row * shape::PITCH))[c];
    }
}

/* Processes query rows from first_row on of a head, 16 per warp. */
template <typename T, int WIDTH>
static __device__ __forceinline__ void attend_tile(const attention_params &p, const attention_head &h, int first_row)
{
    using shape = tile_shape<WIDTH>;
    const int tile_rows = (int)blockDim.x / CUDA_WARP * 16, own_row = (int)threadIdx.x / CUDA_WARP * 16;
    const int n_rows = smaller(tile_rows, h.n_q - first_row), n_own = smaller(16, n_rows - own_row);
    const int n_keys = keys_seen(p, h, first_row + n_rows - 1);
    const int n_own_keys = n_own > 0 ? keys_seen(p, h, first_row + own_row + n_own - 1) : 0;
    const warp_sight see = sight_of(p, h, first_row, own_row, tile_rows);
    pack16<T> *stages = cuda_shared<pack16<T>>(), *own = stages + own_row * shape::PITCH;
    float *bands = (float *)(stages + 2 * shape::STAGE);
    warp_rows<WIDTH> w;
    int at = 0; /* the stage being computed; the other holds the queries first and the results at the end */

    load_queries<T, WIDTH>(stages + shape::STAGE, p, h, first_row, n_rows, tile_rows);
    load_stage<T, WIDTH>(stages, bands, p, h, 0, n_keys, first_row);
    ptx_copy_async_wait<1>();
    __syncthreads();
    begin_rows<T, WIDTH>(w, own + shape::STAGE);
    for (int first = 0; first < n_keys; first += shape::KEYS, at ^= 1) {
        ptx_copy_async_wait<0>();
        __syncthreads(); /* this stage has arrived and the other is no longer read */
        if (first + shape::KEYS < n_keys)
            load_stage<T, WIDTH>(stages + (at ^ 1) * shape::STAGE, bands + (at ^ 1) * shape::BAND, p, h,
                                 first + shape::KEYS, n_keys, first_row);
        attend_stage<T, WIDTH>(w, see, stages + at * shape::STAGE, bands + at * shape::BAND, p, first,
                               n_own_keys - first);
    }
    if (n_own > 0)
        store_rows<T, WIDTH>(w, own + at * shape::STAGE, p, h, first_row + own_row, n_own);
}

/* Grid: tiles of a head are adjacent, since they read the same keys. */
template <typename T, int WIDTH>
static __global__ void __launch_bounds__(tile_shape<WIDTH>::WARPS *CUDA_WARP) attend_tiles(const attention_params p)
{
    const int head = (int)blockIdx.x / p.n_tiles, tile_rows = (int)blockDim.x / CUDA_WARP * 16;
    const attention_head h = attention_head_of(p, head / p.n_heads, head % p.n_heads);

    clear_pads<T, WIDTH>(cuda_shared<pack16<T>>());
    for (int row = (int)blockIdx.x % p.n_tiles * tile_rows; row < h.n_q; row += p.n_tiles * tile_rows) {
        attend_tile<T, WIDTH>(p, h, row);
        __syncthreads(); /* shared memory is no longer in use */
    }
}

/* Warps per block: minimises the rows of all tiles plus one per tile, for copying its keys. */
static inline int warps_for(int longest_q, int max_warps)
{
    const int64_t n_groups = div_up(longest_q, 16);
    int best = 1;

    for (int w = 2; w <= max_warps; w++)
        if (div_up(n_groups, w) * (w + 1) <= div_up(n_groups, best) * (best + 1))
            best = w;
    return best;
}

template <typename T, int WIDTH> static int launch_width(struct cuda_ops *o, attention_params p, int longest_q)
{
    const int n_warps = warps_for(longest_q, tile_shape<WIDTH>::WARPS);
    int64_t n_blocks;

    p.n_tiles = (int)div_up(longest_q, 16 * n_warps);
    n_blocks = (int64_t)p.n_seqs * p.n_heads * p.n_tiles;
    assert(n_blocks <= INT32_MAX);
    return cuda_launch(o, attend_tiles<T, WIDTH>, dim3((unsigned)n_blocks), dim3((unsigned)n_warps * CUDA_WARP),
                       tile_shape<WIDTH>::SHARED_BYTES, p);
}

template <typename T> static int launch_tiles(struct cuda_ops *o, const attention_params *p, int longest_q)
{
    static const struct {
        int width;
        int (*launch)(struct cuda_ops *, attention_params, int);
    } widths[] = {
        {16, launch_width<T, 16>},   {32, launch_width<T, 32>},   {48, launch_width<T, 48>},
        {64, launch_width<T, 64>},   {80, launch_width<T, 80>},   {88, launch_width<T, 88>},
        {96, launch_width<T, 96>},   {128, launch_width<T, 128>}, {160, launch_width<T, 160>},
        {192, launch_width<T, 192>}, {256, launch_width<T, 256>},
    };
    int i = 0;

    assert(p->head_dim <= 256);
    while (widths[i].width < p->head_dim)
        i++;
    return widths[i].launch(o, *p, longest_q);
}

#endif
