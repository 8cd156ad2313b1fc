/* ptx.cuh - PTX instructions without an equivalent in CUDA C++, one function each (PTX ISA, sm_80 and later).
 *
 * tests/emulator has a header of the same path with the same functions for the CPU.
 * Who may call: kernels; the mma and ldmatrix functions by all 32 lanes of a warp together. */
#ifndef BLIPLINE_TENSOR_CUDA_PTX_CUH
#define BLIPLINE_TENSOR_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

static __device__ __forceinline__ unsigned ptx_shared_address(const void *shared)
{
    return (unsigned)__cvta_generic_to_shared(shared);
}

/* d[16, 8] += a[16, 16] * b[16, 8], f32 sums; layout of the lanes' parts as for mma.m16n8k16 in the PTX ISA: with g
 * = lane / 4 and t = lane % 4, a = {rows g, g + 8 of columns 2t, 2t + 1; the same of columns 2t + 8, 2t + 9}, b =
 * {rows 2t, 2t + 1 of column g; rows 2t + 8, 2t + 9}, d = {row g, columns 2t, 2t + 1; row g + 8}. */
template <typename T>
static __device__ __forceinline__ void ptx_mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void ptx_mma<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void ptx_mma<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four (two) 8x8 matrices of 16-bit values from shared memory: lanes 8i .. 8i+7 give the addresses of the rows of
 * matrix i (16 bytes each, 16-byte aligned), every lane gets of each matrix row lane / 4, columns 2 (lane % 4) and the
 * next; `trans`: of its transpose. */
static __device__ __forceinline__ void ptx_ldmatrix_x4(uint32_t (&r)[4], const void *shared_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared_address(shared_row))
                 : "memory");
}
static __device__ __forceinline__ void ptx_ldmatrix_x4_trans(uint32_t (&r)[4], const void *shared_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared_address(shared_row))
                 : "memory");
}

/* Copies 16 bytes global -> shared asynchronously; n_bytes (0 .. 16) of them are read, the rest becomes 0. Both
 * addresses must be 16-byte aligned and not NULL, also if n_bytes is 0. */
static __device__ __forceinline__ void ptx_copy_async(void *shared, const void *global, int n_bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared_address(shared)), "l"(global),
                 "r"(n_bytes)
                 : "memory");
}
static __device__ __forceinline__ void ptx_copy_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits until all but the N newest groups of this thread have arrived; a barrier makes them visible to other
 * threads. */
template <int N> static __device__ __forceinline__ void ptx_copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* 2^x, approximately (2 ulp); exp2(-inf) = 0. */
static __device__ __forceinline__ float ptx_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
