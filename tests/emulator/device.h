/* device.h - what CUDA C++ gives to kernels, for g++: the words of the language, indices, barriers, a warp's
 * collectives, atomics and arithmetic.
 *
 * Atomics are plain: the threads of a block run one at a time, so do the blocks. Approximate instructions are as exact
 * as the C library. Who may call: kernels, through tensor/cuda/launch.cuh. */
#ifndef BLIPLINE_TESTS_EMULATOR_DEVICE_H
#define BLIPLINE_TESTS_EMULATOR_DEVICE_H

#include <cuda_runtime.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <math.h>
#include <string.h>

#include "arithmetic.h"
#include "emulator.h"

#undef __shared__
#undef __launch_bounds__
#undef __global__
#undef __device__
#undef __constant__
/* Of the thread that runs blocks, one after another; they are poisoned before each (block.cc), so nothing else in the
 * emulated back end may be thread-local. */
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define __global__
#define __device__
#define __constant__

#define threadIdx (emulator_self->index)
#define blockIdx emulator_block_index
#define blockDim emulator_block_dim
#define gridDim emulator_grid_dim
enum { warpSize = 32 };

/* -- barriers -- */

static inline void __syncthreads(void)
{
    emulator_barrier(0);
}
static inline int __syncthreads_count(int predicate)
{
    return emulator_barrier(predicate != 0);
}
static inline int __syncthreads_or(int predicate)
{
    return emulator_barrier(predicate != 0) != 0;
}
static inline int __syncthreads_and(int predicate)
{
    return emulator_barrier(predicate == 0) == 0;
}
static inline void __syncwarp(unsigned mask = ~0u)
{
    emulator_collect(EMULATOR_SYNC, mask, 0, 0);
}
static inline void __threadfence(void)
{
}
static inline void __threadfence_block(void)
{
}

/* -- collectives of a warp -- */

template <typename T> static inline T emulator_shuffled(unsigned mask, T x, unsigned from)
{
    static_assert(sizeof(T) <= 8, "shuffles carry up to 64 bits");
    uint64_t bits = 0;

    memcpy(&bits, &x, sizeof(x));
    bits = emulator_collect(EMULATOR_SHUFFLE, mask, bits, from);
    memcpy(&x, &bits, sizeof(x));
    return x;
}
/* Which lane's value: PTX ISA, "shfl.sync". */
template <typename T> static inline T __shfl_sync(unsigned mask, T x, int lane, int width = 32)
{
    return emulator_shuffled(mask, x,
                             (emulator_self->lane & ~(unsigned)(width - 1)) | ((unsigned)lane & (unsigned)(width - 1)));
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int lane_mask, int width = 32)
{
    const unsigned self = emulator_self->lane, from = self ^ (unsigned)lane_mask;

    return emulator_shuffled(mask, x, from > (self | (unsigned)(width - 1)) ? self : from);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T x, unsigned delta, int width = 32)
{
    const unsigned self = emulator_self->lane;

    return emulator_shuffled(mask, x, (self & (unsigned)(width - 1)) < delta ? self : self - delta);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T x, unsigned delta, int width = 32)
{
    const unsigned self = emulator_self->lane;

    return emulator_shuffled(mask, x, (self & (unsigned)(width - 1)) + delta >= (unsigned)width ? self : self + delta);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    return (unsigned)emulator_collect(EMULATOR_BALLOT, mask, predicate != 0, 0);
}
static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, !predicate) == 0;
}
static inline unsigned __match_any_sync(unsigned mask, uint64_t x)
{
    return (unsigned)emulator_collect(EMULATOR_MATCH, mask, x, 0);
}
static inline int __reduce_add_sync(unsigned mask, int x)
{
    return (int)emulator_collect(EMULATOR_ADD, mask, (unsigned)x, 0);
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned x)
{
    return (unsigned)emulator_collect(EMULATOR_ADD, mask, x, 0);
}
static inline int __reduce_min_sync(unsigned mask, int x)
{
    return (int)emulator_collect(EMULATOR_MIN, mask, (unsigned)x, 0);
}
static inline unsigned __reduce_min_sync(unsigned mask, unsigned x)
{
    return (unsigned)emulator_collect(EMULATOR_UMIN, mask, x, 0);
}
static inline int __reduce_max_sync(unsigned mask, int x)
{
    return (int)emulator_collect(EMULATOR_MAX, mask, (unsigned)x, 0);
}
static inline unsigned __reduce_max_sync(unsigned mask, unsigned x)
{
    return (unsigned)emulator_collect(EMULATOR_UMAX, mask, x, 0);
}
static inline unsigned __reduce_and_sync(unsigned mask, unsigned x)
{
    return (unsigned)emulator_collect(EMULATOR_AND, mask, x, 0);
}
static inline unsigned __reduce_or_sync(unsigned mask, unsigned x)
{
    return (unsigned)emulator_collect(EMULATOR_OR, mask, x, 0);
}
static inline unsigned __reduce_xor_sync(unsigned mask, unsigned x)
{
    return (unsigned)emulator_collect(EMULATOR_XOR, mask, x, 0);
}

/* -- atomics: what was there before -- */

template <typename T, typename F> static inline T emulator_exchange(T *p, F f)
{
    const T before = *p;

    *p = f(before);
    return before;
}
template <typename T> struct emulator_same {
    using type = T;
};
template <typename T> using emulator_exactly = typename emulator_same<T>::type; /* no part in deduction */

template <typename T> static inline T atomicAdd(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T old) { return (T)(old + x); });
}
template <typename T> static inline T atomicSub(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T old) { return (T)(old - x); });
}
template <typename T> static inline T atomicMax(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T old) { return old > x ? old : x; });
}
template <typename T> static inline T atomicMin(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T old) { return old < x ? old : x; });
}
template <typename T> static inline T atomicOr(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T old) { return old | x; });
}
template <typename T> static inline T atomicAnd(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T old) { return old & x; });
}
template <typename T> static inline T atomicExch(T *p, emulator_exactly<T> x)
{
    return emulator_exchange(p, [x](T) { return x; });
}
template <typename T> static inline T atomicCAS(T *p, emulator_exactly<T> compare, emulator_exactly<T> x)
{
    return emulator_exchange(p, [compare, x](T old) { return old == compare ? x : old; });
}
static inline unsigned atomicInc(unsigned *p, unsigned limit)
{
    return emulator_exchange(p, [limit](unsigned old) { return old >= limit ? 0 : old + 1; });
}

/* -- memory -- */

template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldca(const T *p)
{
    return *p;
}
template <typename T> static inline void __stcs(T *p, emulator_exactly<T> x)
{
    *p = x;
}
template <typename T> static inline void __stcg(T *p, emulator_exactly<T> x)
{
    *p = x;
}
template <typename T> static inline void __stwt(T *p, emulator_exactly<T> x)
{
    *p = x;
}

[[noreturn]] static inline void __trap(void)
{
    emulator_fail("__trap");
}

#endif
