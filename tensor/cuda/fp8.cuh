/* fp8.cuh - rows of e4m3 codes with one f32 scale: value = code * scale.
 *
 * The largest value of a row becomes 448, the largest e4m3 value. quantise.cu and norm.cu both use these functions, so
 * that they give the same codes.
 * Who may call: kernels. */
#ifndef BLIPLINE_TENSOR_CUDA_FP8_CUH
#define BLIPLINE_TENSOR_CUDA_FP8_CUH

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "tensor/cuda/launch.cuh"

#define FP8_MOST 448.0f
/* The factor from values to codes for a row whose largest value is absmax. A row of zeros, or of values so small
 * that the quotient would overflow, has scale 1. */
static __device__ __forceinline__ float fp8_factor(float absmax, float *ret_scale)
{
    if (absmax < 1e-30f) {
        *ret_scale = 1;
        return 1;
    }
    *ret_scale = absmax / FP8_MOST;
    return FP8_MOST / absmax;
}
static __device__ __forceinline__ uint8_t fp8_code(float x)
{
    return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}
static __device__ __forceinline__ float fp8_value(uint8_t code)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

#endif
