/* Rows to e4m3. One block per row: the values stay in registers between finding the maximum and converting, so a row
 * is read once. Bound: memory, 2 bytes read and 1 written per value (bf16); at 65792 x 1408 278 MB, about 0.1 ms at
 * 3 TB/s. Rows that do not fit in registers are read twice, the second time from cache. */
#include "tensor/cuda/types.cuh"

#include "tensor/cuda/fp8.cuh"
#include "tensor/cuda/quantise.h"

#include <assert.h>

enum {
    THREADS = 256,
    KEPT = 4, /* packs per thread: rows of 16-bit values up to 256 x 4 x 8 = 8192 are read once */
};

template <int N> struct alignas(N) codes {
    uint8_t v[N];
};

/* Call at most once per kernel. */
static __device__ float block_max(float x)
{
    float *parts = cuda_shared<float>();

    x = warp_max(x);
    if (threadIdx.x % CUDA_WARP == 0)
        parts[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    x = threadIdx.x % CUDA_WARP < blockDim.x / CUDA_WARP ? parts[threadIdx.x % CUDA_WARP] : 0;
    return warp_max(x);
}

/* NaN does not affect the scale and stays NaN in its code. */
template <typename T> static __device__ __forceinline__ float pack_max(const pack16<T> &p, float most)
{
    for (int i = 0; i < pack16<T>::N; i++)
        most = fmaxf(most, fabsf(to_f32(p.v[i])));
    return most;
}

template <typename T> static __device__ __forceinline__ void put_codes(const pack16<T> &p, float factor, uint8_t *to)
{
    codes<pack16<T>::N> c;

    for (int i = 0; i < pack16<T>::N; i++)
        c.v[i] = fp8_code(to_f32(p.v[i]) * factor);
    *(codes<pack16<T>::N> *)to = c;
}

/* x 16-byte aligned, ld_x and width multiples of a pack; `to` has `width` codes per row. */
template <typename T>
static __global__ void quantise_packs(const T *x, int64_t ld_x, int width, uint8_t *to, float *scales)
{
    constexpr int N = pack16<T>::N;
    const pack16<T> *row = (const pack16<T> *)(x + (int64_t)blockIdx.x * ld_x);
    uint8_t *out = to + (int64_t)blockIdx.x * width;
    const int n_packs = width / N, step = (int)blockDim.x;
    pack16<T> kept[KEPT];
    float most = 0, factor, scale;

#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const int i = (int)threadIdx.x + j * step;

        if (i < n_packs) {
            kept[j] = row[i];
            most = pack_max(kept[j], most);
        }
    }
    for (int i = (int)threadIdx.x + KEPT * step; i < n_packs; i += step)
        most = pack_max(row[i], most);
    most = block_max(most);
    factor = fp8_factor(most, &scale);
    if (threadIdx.x == 0)
        scales[blockIdx.x] = scale;
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const int i = (int)threadIdx.x + j * step;

        if (i < n_packs)
            put_codes(kept[j], factor, out + (int64_t)i * N);
    }
    for (int i = (int)threadIdx.x + KEPT * step; i < n_packs; i += step)
        put_codes(row[i], factor, out + (int64_t)i * N);
}

/* Any width, any alignment. */
template <typename T>
static __global__ void quantise_each(const T *x, int64_t ld_x, int width, uint8_t *to, float *scales)
{
    const T *row = x + (int64_t)blockIdx.x * ld_x;
    uint8_t *out = to + (int64_t)blockIdx.x * width;
    float most = 0, factor, scale;

    for (int i = (int)threadIdx.x; i < width; i += (int)blockDim.x)
        most = fmaxf(most, fabsf(to_f32(row[i])));
    most = block_max(most);
    factor = fp8_factor(most, &scale);
    if (threadIdx.x == 0)
        scales[blockIdx.x] = scale;
    for (int i = (int)threadIdx.x; i < width; i += (int)blockDim.x)
        out[i] = fp8_code(to_f32(row[i]) * factor);
}

template <typename T>
static int quantise_as(struct cuda_ops *o, int64_t n_rows, int64_t width, const void *d_x, int64_t ld_x, void *d_codes,
                       float *d_scales)
{
    constexpr int N = pack16<T>::N;
    const bool packs = (uintptr_t)d_x % 16 == 0 && ld_x % N == 0 && width % N == 0 && (uintptr_t)d_codes % N == 0;
    const int64_t n_items = packs ? width / N : width;
    const unsigned threads =
        n_items >= THREADS ? (unsigned)THREADS : (unsigned)(div_up(n_items, CUDA_WARP) * CUDA_WARP);

    assert(n_rows >= 1 && n_rows <= INT32_MAX && width >= 1 && width <= INT32_MAX / 2);
    return cuda_launch(o, packs ? quantise_packs<T> : quantise_each<T>, dim3((unsigned)n_rows), dim3(threads),
                       THREADS / CUDA_WARP * sizeof(float), (const T *)d_x, ld_x, (int)width, (uint8_t *)d_codes,
                       d_scales);
}

int cuda_quantise_rows(struct cuda_ops *o, int64_t n_rows, int64_t width, const void *d_x, enum dtype dtype,
                       int64_t ld_x, void *d_codes, float *d_scales)
{
    switch (dtype) {
    case DTYPE_F32:
        return quantise_as<float>(o, n_rows, width, d_x, ld_x, d_codes, d_scales);
    case DTYPE_F16:
        return quantise_as<__half>(o, n_rows, width, d_x, ld_x, d_codes, d_scales);
    default:
        assert(dtype == DTYPE_BF16);
        return quantise_as<__nv_bfloat16>(o, n_rows, width, d_x, ld_x, d_codes, d_scales);
    }
}

int cuda_quantised_place(struct cuda_ops *o, int64_t n_rows, int64_t width, void **ret_codes, float **ret_scales)
{
    /* linear may round the rows up to a multiple of 16: the padding is read but its results are ignored. */
    const size_t codes_bytes = (size_t)div_up(div_up(n_rows, 16) * 16 * width, 256) * 256;
    void *place;
    int rc = cuda_scratch(o, CUDA_SLOT_QUANTISED, codes_bytes + (size_t)n_rows * sizeof(float), &place);

    if (rc < 0)
        return rc;
    *ret_codes = place;
    *ret_scales = (float *)((char *)place + codes_bytes);
    return 0;
}

int cuda_quantise(struct cuda_ops *o, int64_t n_rows, int64_t width, const void *d_x, int64_t ld_x,
                  const void **ret_codes, const float **ret_scales)
{
    const struct cuda_quantised *q = &o->quantised;
    const bool is_there = q->of == d_x && q->n_rows == n_rows && q->width == width && ld_x == width;
    void *d_codes;
    float *d_scales;
    int rc;

    assert(is_there || !q->of); /* would overwrite what a norm wrote for another product */
    rc = cuda_quantised_place(o, n_rows, width, &d_codes, &d_scales);
    if (rc == 0 && !is_there)
        rc = cuda_quantise_rows(o, n_rows, width, d_x, o->base.act_dtype, ld_x, d_codes, d_scales);
    if (rc < 0)
        return rc;
    *ret_codes = d_codes;
    *ret_scales = d_scales;
    return 0;
}
