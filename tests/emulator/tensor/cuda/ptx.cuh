/* ptx.cuh - the machine's own instructions, by the emulator: see the real one.
 *
 * Who may call: kernels; the mma and ldmatrix functions by all 32 lanes of a warp together. */
#ifndef BLIPLINE_TENSOR_CUDA_PTX_CUH
#define BLIPLINE_TENSOR_CUDA_PTX_CUH

#include "device.h"

#include <math.h>

#include <type_traits>

template <typename T> static inline void ptx_mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>, "of half or bf16");
    emulator_mma m = {d, a, b};

    emulator_collect(std::is_same_v<T, __half> ? EMULATOR_MMA_HALF : EMULATOR_MMA_BF16, ~0u, (uintptr_t)&m, 0);
}

static inline void ptx_ldmatrix_x4(uint32_t (&r)[4], const void *shared_row)
{
    emulator_ldmatrix m = {r, shared_row};

    emulator_collect(EMULATOR_LDMATRIX, ~0u, (uintptr_t)&m, 0);
}
static inline void ptx_ldmatrix_x4_trans(uint32_t (&r)[4], const void *shared_row)
{
    emulator_ldmatrix m = {r, shared_row};

    emulator_collect(EMULATOR_LDMATRIX_TRANS, ~0u, (uintptr_t)&m, 0);
}

static inline void ptx_copy_async(void *shared, const void *global, int n_bytes)
{
    emulator_copy_async(shared, global, n_bytes);
}
static inline void ptx_copy_async_commit()
{
    emulator_copy_async_commit();
}
template <int N> static inline void ptx_copy_async_wait()
{
    emulator_copy_async_wait(N);
}

static inline float ptx_exp2(float x)
{
    return exp2f(x);
}

#endif
