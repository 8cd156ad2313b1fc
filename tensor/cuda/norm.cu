/* norm.cu - layer norm and RMS norm, with rounding to e4m3 if the next product is in fp8.
 *
 * A row is read once into registers and written once: one to eight warps per row, up to eight 16-byte pieces per
 * thread, eight warps per block, so that narrow rows share a block. Sums are f32: first the mean, then the squared
 * deviations. The number of threads per row depends on its width alone, so a row's result does not depend on other
 * rows. Wider or unaligned rows take a whole block, which reads them two to four times, mostly from cache. fp8: each
 * row gets the scale max|y| / 448, and the f32 value is rounded to e4m3 directly; y itself is not written. Bound:
 * memory. 2 bytes read and 2 (fp8: 1) written per 16-bit value; gamma and beta come from cache. */

#include "tensor/cuda/fp8.cuh"
#include "tensor/cuda/rows.cuh"

enum { ROW_WARPS = ROW_THREADS / CUDA_WARP };

struct norm_job {
    int64_t n_rows, ld_x, ld_y;
    int width;
    int n_warps; /* per row; a power of two */
    const void *x;
    void *y;
    const float *gamma, *beta; /* beta NULL: RMS */
    float eps;
    uint8_t *codes; /* fp8: [n_rows, width], and a scale for each row */
    float *scales;
};

/* The sum (or maximum) over the warps of a row, returned to all its threads; parts: one slot per warp of the block. */
template <bool MAX> static __device__ float join_row(float x, int n_warps, float *parts)
{
    const int warp = (int)threadIdx.x / CUDA_WARP, first = warp / n_warps * n_warps;

    x = MAX ? warp_max(x) : warp_sum(x);
    if (n_warps == 1)
        return x;
    __syncthreads();
    if (threadIdx.x % CUDA_WARP == 0)
        parts[warp] = x;
    __syncthreads();
    x = parts[first];
    for (int i = 1; i < n_warps; i++)
        x = MAX ? fmaxf(x, parts[first + i]) : x + parts[first + i];
    return x;
}

struct row_stats {
    float mean, scale;
};

/* The scale from the sum of squares; NaN, not 0, if the sum overflowed. */
static __device__ __forceinline__ float scale_of(const struct norm_job &j, float squares)
{
    const float variance = squares / (float)j.width;

    return 1 / sqrtf(variance + j.eps) + variance * 0;
}

/* Normalises N values at this column. */
template <typename T, int N>
static __device__ __forceinline__ piece<float, N> norm_piece(const struct norm_job &j, int column, struct row_stats s,
                                                             const piece<T, N> &x)
{
    const piece<float, N> gamma = load_piece<float, N>(j.gamma + column);
    piece<float, N> y;

    for (int i = 0; i < N; i++)
        y.v[i] = (to_f32(x.v[i]) - s.mean) * s.scale * gamma.v[i];
    if (j.beta) {
        const piece<float, N> beta = load_piece<float, N>(j.beta + column);

        for (int i = 0; i < N; i++)
            y.v[i] += beta.v[i];
    }
    return y;
}

template <int N> static __device__ __forceinline__ float largest(const piece<float, N> &y)
{
    float max = 0;

    for (int i = 0; i < N; i++)
        max = fmaxf(max, fabsf(y.v[i]));
    return max;
}

template <typename T, int N>
static __device__ __forceinline__ void store_values(const struct norm_job &j, int64_t row, int column,
                                                    const piece<float, N> &y)
{
    piece<T, N> out;

    for (int i = 0; i < N; i++)
        out.v[i] = from_f32<T>(y.v[i]);
    store_piece((T *)j.y + row * j.ld_y + column, out);
}

template <int N>
static __device__ __forceinline__ void store_codes(const struct norm_job &j, int64_t row, int column, float inverse,
                                                   const piece<float, N> &y)
{
    piece<uint8_t, N> out;

    for (int i = 0; i < N; i++)
        out.v[i] = fp8_code(y.v[i] * inverse);
    store_piece(j.codes + row * j.width + column, out);
}

template <typename T, int N, int PIECES, bool FP8> static __global__ void norm_rows(const struct norm_job j)
{
    float *parts = cuda_shared<float>();
    const int n_threads = j.n_warps * CUDA_WARP, thread = (int)threadIdx.x % n_threads;
    const int64_t row = (int64_t)blockIdx.x * (ROW_THREADS / n_threads) + (int)threadIdx.x / n_threads;
    const int end = row < j.n_rows ? j.width : 0; /* threads without a row still reach the barriers */
    struct row_stats s = {0, 0};
    piece<T, N> x[PIECES] = {};
    float sum = 0, squares = 0, max = 0;

    for (int p = 0; p < PIECES; p++) {
        const int column = (thread + p * n_threads) * N;

        if (column < end)
            x[p] = load_piece<T, N>((const T *)j.x + row * j.ld_x + column);
    }
    for (int p = 0; p < PIECES; p++)
        for (int i = 0; i < N; i++)
            sum += (thread + p * n_threads) * N < end ? to_f32(x[p].v[i]) : 0;
    if (j.beta)
        s.mean = join_row<false>(sum, j.n_warps, parts) / (float)j.width;
    for (int p = 0; p < PIECES; p++)
        for (int i = 0; i < N; i++) {
            const float d = (thread + p * n_threads) * N < end ? to_f32(x[p].v[i]) - s.mean : 0;

            squares += d * d;
        }
    s.scale = scale_of(j, join_row<false>(squares, j.n_warps, parts));
    if (FP8) {
        for (int p = 0; p < PIECES; p++)
            if ((thread + p * n_threads) * N < end)
                max = fmaxf(max, largest(norm_piece<T, N>(j, (thread + p * n_threads) * N, s, x[p])));
        max = join_row<true>(max, j.n_warps, parts);
    }
    for (int p = 0; p < PIECES; p++) {
        const int column = (thread + p * n_threads) * N;
        float scale;

        if (column >= end)
            continue;
        if (FP8) {
            store_codes(j, row, column, fp8_factor(max, &scale), norm_piece<T, N>(j, column, s, x[p]));
            if (column == 0)
                j.scales[row] = scale;
        } else {
            store_values<T, N>(j, row, column, norm_piece<T, N>(j, column, s, x[p]));
        }
    }
}

/* One block per row of any width. Each thread writes only what it has read, so y may be x here too. */
template <typename T, int N, bool FP8> static __global__ void norm_wide_rows(const struct norm_job j)
{
    float *parts = cuda_shared<float>();
    const int64_t row = blockIdx.x;
    const T *x = (const T *)j.x + row * j.ld_x;
    const int first = (int)threadIdx.x * N, step = ROW_THREADS * N;
    struct row_stats s = {0, 0};
    float sum = 0, squares = 0, max = 0, inverse = 1, scale = 1;

    for (int c = first; j.beta && c < j.width; c += step) {
        const piece<T, N> p = load_piece<T, N>(x + c);

        for (int i = 0; i < N; i++)
            sum += to_f32(p.v[i]);
    }
    if (j.beta)
        s.mean = join_row<false>(sum, ROW_WARPS, parts) / (float)j.width;
    for (int c = first; c < j.width; c += step) {
        const piece<T, N> p = load_piece<T, N>(x + c);

        for (int i = 0; i < N; i++)
            squares += (to_f32(p.v[i]) - s.mean) * (to_f32(p.v[i]) - s.mean);
    }
    s.scale = scale_of(j, join_row<false>(squares, ROW_WARPS, parts));
    if (FP8) {
        for (int c = first; c < j.width; c += step)
            max = fmaxf(max, largest(norm_piece<T, N>(j, c, s, load_piece<T, N>(x + c))));
        inverse = fp8_factor(join_row<true>(max, ROW_WARPS, parts), &scale);
        if (threadIdx.x == 0)
            j.scales[row] = scale;
    }
    for (int c = first; c < j.width; c += step) {
        const piece<float, N> y = norm_piece<T, N>(j, c, s, load_piece<T, N>(x + c));

        if (FP8)
            store_codes(j, row, c, inverse, y);
        else
            store_values<T, N>(j, row, c, y);
    }
}

template <typename T, int N, bool FP8> static int launch_wide(struct cuda_ops *o, const struct norm_job &j)
{
    return cuda_launch(o, norm_wide_rows<T, N, FP8>, dim3((unsigned)j.n_rows), dim3(ROW_THREADS),
                       ROW_WARPS * sizeof(float), j);
}

template <typename T, int PIECES, bool FP8> static int launch_narrow(struct cuda_ops *o, const struct norm_job &j)
{
    const int64_t n_blocks = div_up(j.n_rows, ROW_WARPS / j.n_warps);

    return cuda_launch(o, norm_rows<T, 16 / sizeof(T), PIECES, FP8>, dim3((unsigned)n_blocks), dim3(ROW_THREADS),
                       ROW_WARPS * sizeof(float), j);
}

template <typename T, bool FP8> static int launch_norm(struct cuda_ops *o, struct norm_job j)
{
    const int n = 16 / sizeof(T), n_pieces = (int)div_up(j.width, n);
    const uintptr_t bits = address_bits(j.x) | distance_bits(j.ld_x, sizeof(T)) | distance_bits(j.width, sizeof(T)) |
                           address_bits(j.y) | distance_bits(j.ld_y, sizeof(T)) | address_bits(j.codes);
    int a_thread;

    if (!is_aligned(bits, 16))
        return launch_wide<T, 1, FP8>(o, j);
    for (j.n_warps = 1; j.n_warps < ROW_WARPS && n_pieces > j.n_warps * CUDA_WARP * 4;)
        j.n_warps *= 2;
    a_thread = (int)div_up(n_pieces, j.n_warps * CUDA_WARP);
    if (a_thread == 1)
        return launch_narrow<T, 1, FP8>(o, j);
    if (a_thread == 2)
        return launch_narrow<T, 2, FP8>(o, j);
    if (a_thread <= 4)
        return launch_narrow<T, 4, FP8>(o, j);
    if (a_thread <= 8)
        return launch_narrow<T, 8, FP8>(o, j);
    return launch_wide<T, 16 / sizeof(T), FP8>(o, j);
}

int cuda_norm(struct ops *ops, const struct ops_norm_args *a)
{
    struct cuda_ops *o = cuda_of(ops);
    const bool fp8 = a->consumer && a->consumer->fp8;
    struct norm_job j = {.n_rows = a->n_rows,
                         .ld_x = a->ld_x,
                         .ld_y = a->ld_y,
                         .width = (int)a->width,
                         .n_warps = 1,
                         .x = a->x,
                         .y = a->y,
                         .gamma = a->gamma->d_values,
                         .beta = a->beta ? a->beta->d_values : NULL,
                         .eps = a->eps,
                         .codes = NULL,
                         .scales = NULL};
    void *codes;
    int rc;

    assert(a->gamma->n == a->width && (!a->beta || a->beta->n == a->width));
    assert(a->width >= 1 && a->width < INT32_MAX / 2 && a->n_rows <= INT32_MAX);
    cuda_overwrites(o, a->y);
    if (a->n_rows == 0)
        return 0;
    if (!fp8)
        return by_act_dtype(o, [&](auto tag) { return launch_norm<typename decltype(tag)::type, false>(o, j); });
    rc = cuda_quantised_place(o, a->n_rows, a->width, &codes, &j.scales);
    if (rc < 0)
        return rc;
    j.codes = (uint8_t *)codes;
    rc = by_act_dtype(o, [&](auto tag) { return launch_norm<typename decltype(tag)::type, true>(o, j); });
    if (rc == 0)
        o->quantised = {a->y, a->n_rows, a->width};
    return rc;
}
