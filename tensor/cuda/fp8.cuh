/* fp8.cuh - rows of numbers as e4m3 with one f32 scale: value = code * scale.
 *
 * The largest value of a row becomes 448, the largest of e4m3. Everything that quantises (quantise.cu, norm.cu) does it
 * with these, so that a row has one form whoever made it.
 * Who may call: kernels. */
#ifndef BLIPLINE_TENSOR_CUDA_FP8_CUH
#define BLIPLINE_TENSOR_CUDA_FP8_CUH

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "tensor/cuda/launch.cuh"

#define FP8_MOST 448.0f
/* What values of a row whose largest is absmax are multiplied with to become codes. A row of zeros, or of what is as
 * good as that (the quotient would leave f32's range), has scale 1. */
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
