/* launch.cuh - how kernels are launched, and where their shared memory is: the emulator's, see the real one.
 *
 * Who may call: launchers. Memory: arguments are copied. Errors: as cuda_status. */
#ifndef BLIPLINE_TENSOR_CUDA_LAUNCH_CUH
#define BLIPLINE_TENSOR_CUDA_LAUNCH_CUH

#include <tuple>
#include <type_traits>
#include <utility>

#include "device.h"

#include "tensor/cuda/cuda.h"

enum { CUDA_WARP = 32 };

/* Of the kernel's arguments, those that are pointers. */
template <typename P> static inline void emulator_note_pointer(const P &value, const void **list, int *n)
{
    if constexpr (std::is_pointer_v<P>)
        list[(*n)++] = (const void *)value;
    (void)value, (void)list, (void)n;
}

template <typename... P, typename... A>
static int emulator_launch_on(const emulator_site &site, struct cuda_ops *o, cudaStream_t stream, void (*kernel)(P...),
                              dim3 grid, dim3 block, size_t shared_bytes, A... args)
{
    static_assert(sizeof(std::tuple<P...>) <= 4096, "a kernel's arguments are 4 KiB at most");
    const std::tuple<P...> values(static_cast<P>(args)...);
    const void *pointers[sizeof...(P) + 1];
    int n_pointers = 0;

    if (cuda_skips(o))
        return 0;
    std::apply([&](const P &...value) { (emulator_note_pointer(value, pointers, &n_pointers), ...); }, values);
    return cuda_status(o,
                       emulator_launch(site, stream, grid, block, shared_bytes, pointers, n_pointers,
                                       [kernel, values] { std::apply(kernel, values); }),
                       "launch");
}
template <typename... P, typename... A>
static int emulator_launch_own(const emulator_site &site, struct cuda_ops *o, void (*kernel)(P...), dim3 grid,
                               dim3 block, size_t shared_bytes, A... args)
{
    return emulator_launch_on(site, o, o->stream, kernel, grid, block, shared_bytes, args...);
}

#define cuda_launch_on(...) emulator_launch_on(emulator_site{#__VA_ARGS__, __FILE__, __LINE__}, __VA_ARGS__)
#define cuda_launch(...) emulator_launch_own(emulator_site{#__VA_ARGS__, __FILE__, __LINE__}, __VA_ARGS__)

/* The block's dynamic shared memory, 128-byte aligned. */
template <typename T> static inline T *cuda_shared()
{
    return reinterpret_cast<T *>(emulator_shared);
}

#endif
