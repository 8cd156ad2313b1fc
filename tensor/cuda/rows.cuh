/* rows.cuh - shared by row-wise kernels: pieces of a row, alignment, and threads per row.
 *
 * A thread moves one piece at a time: 16 bytes if addresses, strides and width allow it, else one value.
 * Who may call: .cu files.
 * Units: elements, unless the name says bytes. Memory, Errors: none. */
#ifndef BLIPLINE_TENSOR_CUDA_ROWS_CUH
#define BLIPLINE_TENSOR_CUDA_ROWS_CUH

#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/types.cuh"

enum { ROW_THREADS = 256 };

template <typename T, int N> struct alignas(N * sizeof(T)) piece {
    T v[N];
};

template <typename T, int N> static __device__ __forceinline__ piece<T, N> load_piece(const T *from)
{
    return *reinterpret_cast<const piece<T, N> *>(from);
}
template <typename T, int N> static __device__ __forceinline__ void store_piece(T *to, const piece<T, N> &p)
{
    *reinterpret_cast<piece<T, N> *>(to) = p;
}

/* The bits of an address, to be or-ed with others and strides to find their common alignment. */
static inline uintptr_t address_bits(const void *p)
{
    return (uintptr_t)p;
}
static inline uintptr_t distance_bits(int64_t n_elements, size_t element_bytes)
{
    return (uintptr_t)n_elements * element_bytes;
}
static inline bool is_aligned(uintptr_t bits, unsigned n_bytes)
{
    return bits % n_bytes == 0;
}

/* Blocks of ROW_THREADS threads: x goes along the row's pieces, y through rows. */
static inline dim3 row_block(int64_t n_pieces)
{
    unsigned x = 1;

    while (x < ROW_THREADS && x < n_pieces)
        x *= 2;
    return dim3(x, ROW_THREADS / x);
}
static inline dim3 row_grid(dim3 block, int64_t n_rows)
{
    const int64_t n = div_up(n_rows, block.y);

    assert(n <= INT32_MAX);
    return dim3((unsigned)n);
}
static __device__ __forceinline__ int64_t row_of_thread()
{
    return (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
}

#endif
