/* launch.cuh - launches kernels and accesses their shared memory.
 *
 * Every .cu file includes it before any other CUDA device header. tests/emulator has a header of the same path that
 * runs the kernels on the CPU, so kernels use only what both provide (this header, ptx.cuh, the runtime's conversions
 * of cuda_fp16.h, cuda_bf16.h and cuda_fp8.h, __syncthreads, __syncwarp, __shfl_*_sync, __ballot_sync, __any_sync,
 * atomicAdd/atomicMax on int, unsigned and float, and the C math library).
 * Who may call: launchers.
 * Memory: arguments are copied.
 * Errors: as cuda_status. */
#ifndef BLIPLINE_TENSOR_CUDA_LAUNCH_CUH
#define BLIPLINE_TENSOR_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include <tuple>
#include <utility>

#include "tensor/cuda/cuda.h"

enum { CUDA_WARP = 32 };

template <typename... P, size_t... I>
static cudaError_t cuda_launch_packed(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                      cudaStream_t stream, std::tuple<P...> &values, std::index_sequence<I...>)
{
    void *at[] = {(void *)&std::get<I>(values)...};

    return cudaLaunchKernel((const void *)kernel, grid, block, at, shared_bytes, stream);
}

/* kernel<<<grid, block, shared_bytes, stream>>>(args...), or nothing while a captured graph is replayed. */
template <typename... P, typename... A>
static int cuda_launch_on(struct cuda_ops *o, cudaStream_t stream, void (*kernel)(P...), dim3 grid, dim3 block,
                          size_t shared_bytes, A... args)
{
    std::tuple<P...> values(static_cast<P>(args)...);
    cudaError_t e = cudaSuccess;

    if (cuda_skips(o) || o->failed)
        return cuda_failed(o);
    if (shared_bytes > 48 * 1024)
        e = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (e == cudaSuccess)
        e = cuda_launch_packed(kernel, grid, block, shared_bytes, stream, values, std::index_sequence_for<P...>());
    return cuda_status(o, e, "launch");
}
template <typename... P, typename... A>
static int cuda_launch(struct cuda_ops *o, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args)
{
    return cuda_launch_on(o, o->stream, kernel, grid, block, shared_bytes, args...);
}

/* The block's dynamic shared memory, 128-byte aligned. */
template <typename T> static __device__ __forceinline__ T *cuda_shared()
{
    extern __shared__ __align__(128) unsigned char cuda_shared_bytes[];

    return reinterpret_cast<T *>(cuda_shared_bytes);
}

#endif
