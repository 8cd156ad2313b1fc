/* decode_chunks.cuh - keys and values of a head in the registers of the lanes that share it.
 *
 * Who may call: decode_attention.cu.
 * Units: chunks of 16 bytes. */
#ifndef BLIPLINE_TENSOR_CUDA_DECODE_CHUNKS_CUH
#define BLIPLINE_TENSOR_CUDA_DECODE_CHUNKS_CUH

#include "tensor/cuda/types.cuh"

#include <string.h>

/* A lane's part of a row: 16-byte units lane, lane + n_lanes, .. of the head. Stored as words, because each 16-bit
 * value would take a register. */
template <int CHUNKS> struct lane_chunks {
    pack16<uint32_t> at[CHUNKS];
};

static __device__ __forceinline__ uint32_t to_word(const float (&x)[1])
{
    uint32_t word;

    memcpy(&word, x, sizeof(word));
    return word;
}
template <typename T> static __device__ __forceinline__ uint32_t to_word(const T (&x)[2])
{
    return pack2(x[0], x[1]);
}

static __device__ __forceinline__ void from_word(float (&x)[1], uint32_t word)
{
    memcpy(x, &word, sizeof(word));
}
static __device__ __forceinline__ void from_word(__half (&x)[2], uint32_t word)
{
    x[0] = __ushort_as_half((unsigned short)word);
    x[1] = __ushort_as_half((unsigned short)(word >> 16));
}
static __device__ __forceinline__ void from_word(__nv_bfloat16 (&x)[2], uint32_t word)
{
    x[0] = __ushort_as_bfloat16((unsigned short)word);
    x[1] = __ushort_as_bfloat16((unsigned short)(word >> 16));
}

/* Loads n values of T, zero-padded. */
template <typename T> static __device__ __forceinline__ pack16<uint32_t> gather(const T *x, int n)
{
    enum { PER_WORD = 4 / sizeof(T) };
    pack16<uint32_t> words;

#pragma unroll
    for (int w = 0; w < 4; w++) {
        T v[PER_WORD];

#pragma unroll
        for (int i = 0; i < PER_WORD; i++)
            v[i] = w * PER_WORD + i < n ? x[w * PER_WORD + i] : from_f32<T>(0);
        words.v[w] = to_word(v);
    }
    return words;
}

template <typename T>
static __device__ __forceinline__ void to_floats(float (&x)[pack16<T>::N], const pack16<uint32_t> &words)
{
    enum { PER_WORD = 4 / sizeof(T) };

#pragma unroll
    for (int w = 0; w < 4; w++) {
        T v[PER_WORD];

        from_word(v, words.v[w]);
#pragma unroll
        for (int i = 0; i < PER_WORD; i++)
            x[w * PER_WORD + i] = to_f32(v[i]);
    }
}

/* Loads the first n_values of a head. `aligned`: the head is 16-byte aligned and a multiple of 16 bytes long. */
template <typename T, int CHUNKS>
static __device__ __forceinline__ void load_chunks(lane_chunks<CHUNKS> &x, const T *head, int n_values, int n_lanes,
                                                   bool aligned)
{
    const int step = n_lanes * pack16<T>::N;
    int column = ((int)threadIdx.x & (n_lanes - 1)) * pack16<T>::N;

    if (aligned) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++, column += step) {
            x.at[c] = {{0, 0, 0, 0}};
            if (column < n_values)
                x.at[c] = *(const pack16<uint32_t> *)(head + column);
        }
    } else {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++, column += step)
            x.at[c] = gather(head + column, n_values - column);
    }
}

/* The dot product with a query (f32, in shared memory, zero-padded), over the n_lanes that share a head. */
template <typename T, int CHUNKS>
static __device__ __forceinline__ float dot(const float *query, const lane_chunks<CHUNKS> &x, int n_lanes)
{
    const float *q = query + ((int)threadIdx.x & (n_lanes - 1)) * pack16<T>::N;
    float sum[2] = {0, 0};

#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        float values[pack16<T>::N];

        to_floats<T>(values, x.at[c]);
#pragma unroll
        for (int e = 0; e < pack16<T>::N; e += 4) {
            const pack16<float> four = *(const pack16<float> *)(q + c * n_lanes * pack16<T>::N + e);

#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[i % 2] = fmaf(four.v[i], values[e + i], sum[i % 2]);
        }
    }
    sum[0] += sum[1];
    for (int i = n_lanes / 2; i > 0; i /= 2)
        sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], i);
    return sum[0];
}

#endif
