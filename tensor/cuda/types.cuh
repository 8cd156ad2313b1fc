/* types.cuh - activation types in kernels: conversions, 16-byte packs, sums over a warp, selecting a kernel by dtype.
 *
 * Who may call: .cu files. */
#ifndef BLIPLINE_TENSOR_CUDA_TYPES_CUH
#define BLIPLINE_TENSOR_CUDA_TYPES_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <assert.h>

#include "tensor/cuda/launch.cuh"

static __device__ __forceinline__ float to_f32(float x)
{
    return x;
}
static __device__ __forceinline__ float to_f32(__half x)
{
    return __half2float(x);
}
static __device__ __forceinline__ float to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

template <typename T> static __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ __half from_f32<__half>(float x)
{
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* Two adjacent values in one register, the lower index in the lower half. */
static __device__ __forceinline__ uint32_t pack2(__half a, __half b)
{
    return (uint32_t)__half_as_ushort(a) | (uint32_t)__half_as_ushort(b) << 16;
}
static __device__ __forceinline__ uint32_t pack2(__nv_bfloat16 a, __nv_bfloat16 b)
{
    return (uint32_t)__bfloat16_as_ushort(a) | (uint32_t)__bfloat16_as_ushort(b) << 16;
}

/* The unit that one thread reads or writes at once. */
template <typename T> struct alignas(16) pack16 {
    enum { N = 16 / sizeof(T) };
    T v[16 / sizeof(T)];
};

static __device__ __forceinline__ float warp_sum(float x)
{
    for (int i = CUDA_WARP / 2; i > 0; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
static __device__ __forceinline__ float warp_max(float x)
{
    for (int i = CUDA_WARP / 2; i > 0; i /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

template <typename T> struct type_tag {
    using type = T;
};

/* Returns call(type_tag<T>()) with the C++ type of the activations. */
template <typename F> static int by_act_dtype(const struct cuda_ops *o, F call)
{
    switch (o->base.act_dtype) {
    case DTYPE_F32:
        return call(type_tag<float>());
    case DTYPE_F16:
        return call(type_tag<__half>());
    default:
        assert(o->base.act_dtype == DTYPE_BF16);
        return call(type_tag<__nv_bfloat16>());
    }
}

static inline int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
