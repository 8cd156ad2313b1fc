/* activate.cuh - the activations of enum ops_act in f32.
 *
 * Who may call: kernels. `act` is the same for all threads of a launch. */
#ifndef BLIPLINE_TENSOR_CUDA_ACTIVATE_CUH
#define BLIPLINE_TENSOR_CUDA_ACTIVATE_CUH

#include "tensor/cuda/launch.cuh"

/* Both gelus avoid cancellation for negative x: 1 + erf(z) = erfc(-z), 1 + tanh(u) = 2 / (1 + e^-2u). NaN stays NaN
 * and -inf becomes NaN, so that weights that are not finite show in the result. */
static __device__ __forceinline__ float activate(enum ops_act act, float x)
{
    switch (act) {
    case OPS_ACT_NONE:
        return x;
    case OPS_ACT_RELU:
        return x > 0 ? x : x * 0;
    case OPS_ACT_GELU_ERF:
        return 0.5f * x * erfcf(x * -0.70710678118654752f);
    default:
        return x / (1 + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    }
}

#endif
