/* Conversions between f32, f16 and bf16: grid-stride loops, four values per thread and step if both sides are
 * aligned (16 bytes for f32, 8 for the others), else one. Bound: memory, the bytes of both sides once. */
#include "tensor/cuda/types.cuh"

#include <errno.h>

enum { THREADS = 256, VALUES = 4, BLOCKS_PER_PROCESSOR = 8 };

template <typename T> struct alignas(sizeof(T) * VALUES) group {
    T v[VALUES];
};

template <typename D, typename S> static __global__ void convert_groups(D *dst, const S *src, int64_t n_groups)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n_groups; i += step) {
        const group<S> from = reinterpret_cast<const group<S> *>(src)[i];
        group<D> to;

        for (int j = 0; j < VALUES; j++)
            to.v[j] = from_f32<D>(to_f32(from.v[j]));
        reinterpret_cast<group<D> *>(dst)[i] = to;
    }
}

template <typename D, typename S> static __global__ void convert_values(D *dst, const S *src, int64_t n)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        dst[i] = from_f32<D>(to_f32(src[i]));
}

static dim3 grid_for(const struct cuda_ops *o, int64_t n_steps)
{
    int64_t most = (int64_t)BLOCKS_PER_PROCESSOR * o->n_processors, n = div_up(n_steps, THREADS);

    return dim3((unsigned)(n < most ? n : most));
}

template <typename D, typename S>
static int convert(struct cuda_ops *o, cudaStream_t stream, void *d_dst, const void *d_src, int64_t n)
{
    bool aligned = (uintptr_t)d_dst % sizeof(group<D>) == 0 && (uintptr_t)d_src % sizeof(group<S>) == 0;
    int64_t n_grouped = aligned ? n / VALUES * VALUES : 0;
    int rc = 0;

    if (n_grouped > 0)
        rc = cuda_launch_on(o, stream, convert_groups<D, S>, grid_for(o, n_grouped / VALUES), dim3(THREADS), 0,
                            (D *)d_dst, (const S *)d_src, n_grouped / VALUES);
    if (rc == 0 && n > n_grouped)
        rc = cuda_launch_on(o, stream, convert_values<D, S>, grid_for(o, n - n_grouped), dim3(THREADS), 0,
                            (D *)d_dst + n_grouped, (const S *)d_src + n_grouped, n - n_grouped);
    return rc;
}

template <typename D>
static int convert_to(struct cuda_ops *o, cudaStream_t stream, void *d_dst, const void *d_src, enum dtype src_dtype,
                      int64_t n)
{
    switch (src_dtype) {
    case DTYPE_F32:
        return convert<D, float>(o, stream, d_dst, d_src, n);
    case DTYPE_F16:
        return convert<D, __half>(o, stream, d_dst, d_src, n);
    default:
        assert(src_dtype == DTYPE_BF16);
        return convert<D, __nv_bfloat16>(o, stream, d_dst, d_src, n);
    }
}

int cuda_convert(struct cuda_ops *o, cudaStream_t stream, void *d_dst, enum dtype dst_dtype, const void *d_src,
                 enum dtype src_dtype, size_t n)
{
    if (n == 0 || cuda_skips(o))
        return 0;
    if (dst_dtype == src_dtype)
        return cuda_status(
            o, cudaMemcpyAsync(d_dst, d_src, n * dtype_size_bytes(dst_dtype), cudaMemcpyDeviceToDevice, stream),
            "a copy on the device");
    switch (dst_dtype) {
    case DTYPE_F32:
        return convert_to<float>(o, stream, d_dst, d_src, src_dtype, (int64_t)n);
    case DTYPE_F16:
        return convert_to<__half>(o, stream, d_dst, d_src, src_dtype, (int64_t)n);
    default:
        assert(dst_dtype == DTYPE_BF16);
        return convert_to<__nv_bfloat16>(o, stream, d_dst, d_src, src_dtype, (int64_t)n);
    }
}
