/* patchify.cu - pixels on the host to the rows of the patch product on the device.
 *
 * Bytes are uploaded unchanged, three per pixel. A block makes one strip, a row of patches of an image. Its pixels
 * and its results are contiguous, so both are copied in whole pieces; the colours are separated in shared memory.
 * The value of each byte comes from a table that the host has computed in double, as in the reference. Bound: the
 * upload (150 kB per image of 224 pixels, 6 us at 25 GB/s); the kernel reads 1 byte and writes 2 per value. */

#include "tensor/cuda/rows.cuh"

enum { MOST_STAGED_BYTES = 40 * 1024 };

struct patch_job {
    const uint8_t *rgb;
    void *y;
    int64_t strip_bytes; /* bytes of pixels, and number of values, in one strip */
    int image_size, patch_size;
    bool staged; /* true if a strip fits in shared memory */
    float table[3][256];
};

/* The block's look-up table and, if they fit, its pixels. */
struct patch_shared {
    float table[3][256];
    uint8_t pixels[16];
};

template <int N> static __device__ void copy_pixels(uint8_t *to, const uint8_t *from, int n)
{
    for (int i = (int)threadIdx.x * N; i < n; i += ROW_THREADS * N)
        store_piece(to + i, load_piece<uint8_t, N>(from + i));
}

/* Value e of the strip is the pixel at (row i, column j) of patch `px`, colour c. */
struct patch_at {
    int px, c, i, j;
};

static __device__ __forceinline__ struct patch_at patch_at_value(int64_t e, int p)
{
    const int in_patch = (int)(e % (3 * p * p));

    return {(int)(e / (3 * p * p)), in_patch / (p * p), in_patch / p % p, in_patch % p};
}

static __device__ __forceinline__ void next_value(struct patch_at *at, int p)
{
    if (++at->j < p)
        return;
    at->j = 0;
    if (++at->i < p)
        return;
    at->i = 0;
    if (++at->c < 3)
        return;
    at->c = 0;
    at->px++;
}

template <typename T, int N, int PIXELS> static __global__ void patchify_strips(const struct patch_job j)
{
    struct patch_shared *s = cuda_shared<struct patch_shared>();
    const int p = j.patch_size;
    const uint8_t *pixels = j.rgb + blockIdx.x * j.strip_bytes;
    T *y = (T *)j.y + blockIdx.x * j.strip_bytes;

    for (int i = (int)threadIdx.x; i < 3 * 256; i += ROW_THREADS)
        s->table[i / 256][i % 256] = j.table[i / 256][i % 256];
    if (j.staged) {
        copy_pixels<PIXELS>(s->pixels, pixels, (int)j.strip_bytes);
        pixels = s->pixels;
    }
    __syncthreads();
    for (int64_t e = (int64_t)threadIdx.x * N; e < j.strip_bytes; e += ROW_THREADS * N) {
        struct patch_at at = patch_at_value(e, p);
        piece<T, N> out;

        for (int k = 0; k < N; k++) {
            const int64_t pixel = (int64_t)at.i * j.image_size + at.px * p + at.j;

            out.v[k] = from_f32<T>(s->table[at.c][pixels[pixel * 3 + at.c]]);
            next_value(&at, p);
        }
        store_piece(y + e, out);
    }
}

template <typename T, int N> static int launch_patchify(struct cuda_ops *o, int64_t n_strips, const struct patch_job &j)
{
    const size_t shared_bytes = sizeof(struct patch_shared) + (j.staged ? (size_t)j.strip_bytes : 0);

    return cuda_launch(o,
                       is_aligned((uintptr_t)j.strip_bytes, 16) ? patchify_strips<T, N, 16> : patchify_strips<T, N, 1>,
                       dim3((unsigned)n_strips), dim3(ROW_THREADS), shared_bytes, j);
}

int cuda_patchify(struct ops *ops, const struct ops_patchify_args *a)
{
    struct cuda_ops *o = cuda_of(ops);
    const int64_t size = a->image_size, p = a->patch_size;
    struct patch_job j = {.rgb = NULL,
                          .y = a->y,
                          .strip_bytes = p * size * 3,
                          .image_size = a->image_size,
                          .patch_size = a->patch_size,
                          .staged = p * size * 3 <= MOST_STAGED_BYTES,
                          .table = {}};
    const int64_t n_bytes = a->n_images * size * size * 3;
    const uintptr_t bits = address_bits(a->y) | distance_bits(j.strip_bytes, cuda_element_bytes(o));
    void *d_pixels;
    int rc;

    assert(p >= 1 && size >= p && size % p == 0 && size <= 16384);
    cuda_overwrites(o, a->y);
    if (a->n_images == 0)
        return 0;
    for (int c = 0; c < 3; c++)
        for (int u = 0; u < 256; u++)
            j.table[c][u] = (float)(((double)u * a->rescale - a->mean[c]) / a->std[c]);
    rc = cuda_scratch(o, CUDA_SLOT_PIXELS, (size_t)n_bytes, &d_pixels);
    if (rc == 0)
        rc = cuda_upload_bytes(o, d_pixels, a->rgb, (size_t)n_bytes);
    if (rc < 0)
        return rc;
    j.rgb = (const uint8_t *)d_pixels;
    return by_act_dtype(o, [&](auto tag) {
        using T = typename decltype(tag)::type;

        return is_aligned(bits, 16) ? launch_patchify<T, 16 / sizeof(T)>(o, a->n_images * (size / p), j)
                                    : launch_patchify<T, 1>(o, a->n_images * (size / p), j);
    });
}
