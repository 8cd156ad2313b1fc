/* rows.cu - row-wise operators without sums: T5's gate, copies of rows, look-ups, the ViT's tokens.
 *
 * Blocks of 256 threads: as many along a row as it has pieces (rounded to a power of two, rows.cuh), the rest on
 * other rows; each thread loops along its row. Bound: memory. Bytes per 16-bit value: gate 4 read and 2 written;
 * copy and look-up 2 and 2 (adding: 4 and 2); vit_embed 2 and 2, its f32 positions come from cache. */

#include "tensor/cuda/activate.cuh"
#include "tensor/cuda/rows.cuh"

/* -- gate -- */

struct gate_job {
    int64_t n_rows, width, ld_x, ld_y;
    enum ops_act act;
    const void *x;
    void *y;
};

/* y may be x, since each thread writes only what it has read. */
template <typename T, int N> static __global__ void gate_rows(const struct gate_job j)
{
    const int64_t row = row_of_thread();
    const T *x = (const T *)j.x + row * j.ld_x;
    T *y = (T *)j.y + row * j.ld_y;

    if (row >= j.n_rows)
        return;
    for (int64_t c = (int64_t)threadIdx.x * N; c < j.width; c += (int64_t)blockDim.x * N) {
        const piece<T, N> gate = load_piece<T, N>(x + c), up = load_piece<T, N>(x + j.width + c);
        piece<T, N> out;

        for (int i = 0; i < N; i++)
            out.v[i] = from_f32<T>(activate(j.act, to_f32(gate.v[i])) * to_f32(up.v[i]));
        store_piece(y + c, out);
    }
}

template <typename T, int N> static int launch_gate(struct cuda_ops *o, const struct gate_job &j)
{
    const dim3 block = row_block(div_up(j.width, N));

    return cuda_launch(o, gate_rows<T, N>, row_grid(block, j.n_rows), block, 0, j);
}

int cuda_gate(struct ops *ops, const struct ops_gate_args *a)
{
    struct cuda_ops *o = cuda_of(ops);
    const size_t element = cuda_element_bytes(o);
    const struct gate_job j = {a->n_rows, a->width, a->ld_x, a->ld_y, a->act, a->x, a->y};
    const uintptr_t bits = address_bits(a->x) | address_bits(a->y) | distance_bits(a->width, element) |
                           distance_bits(a->ld_x, element) | distance_bits(a->ld_y, element);

    assert(a->ld_x >= 2 * a->width && a->ld_y >= a->width);
    cuda_overwrites(o, a->y);
    if (a->n_rows == 0 || a->width == 0)
        return 0;
    return by_act_dtype(o, [&](auto tag) {
        using T = typename decltype(tag)::type;

        return is_aligned(bits, 16) ? launch_gate<T, 16 / sizeof(T)>(o, j) : launch_gate<T, 1>(o, j);
    });
}

/* -- copies -- */

/* Widths and strides are in units of the copy. */
struct copy_job {
    int64_t n_rows, width, ld_src, ld_dst;
    const void *src;
    void *dst;
    const int32_t *src_index, *dst_index; /* device, or NULL */
};

template <typename U> static __global__ void copy_rows(const struct copy_job j)
{
    const int64_t row = row_of_thread();
    const U *src;
    U *dst;

    if (row >= j.n_rows)
        return;
    src = (const U *)j.src + (j.src_index ? j.src_index[row] : row) * j.ld_src;
    dst = (U *)j.dst + (j.dst_index ? j.dst_index[row] : row) * j.ld_dst;
    for (int64_t c = threadIdx.x; c < j.width; c += blockDim.x)
        dst[c] = src[c];
}

/* j: in elements. */
template <typename U> static int launch_copy(struct cuda_ops *o, struct copy_job j, size_t element_bytes)
{
    dim3 block;

    j.width = j.width * (int64_t)element_bytes / (int64_t)sizeof(U);
    j.ld_src = j.ld_src * (int64_t)element_bytes / (int64_t)sizeof(U);
    j.ld_dst = j.ld_dst * (int64_t)element_bytes / (int64_t)sizeof(U);
    block = row_block(j.width);
    return cuda_launch(o, copy_rows<U>, row_grid(block, j.n_rows), block, 0, j);
}

/* NULL stays NULL. */
static int stage_index(struct cuda_ops *o, const int32_t *index, int64_t n, const int32_t **ret)
{
    const void *d = NULL;
    int rc = index ? cuda_stage(o, index, (size_t)n * sizeof(*index), &d) : 0;

    *ret = (const int32_t *)d;
    return rc;
}

int cuda_rows_copy(struct ops *ops, const struct ops_rows_args *a)
{
    struct cuda_ops *o = cuda_of(ops);
    const size_t element = cuda_element_bytes(o);
    struct copy_job j = {a->n_rows, a->width, a->ld_src, a->ld_dst, a->src, a->dst, NULL, NULL};
    const uintptr_t bits = address_bits(a->src) | address_bits(a->dst) | distance_bits(a->width, element) |
                           distance_bits(a->ld_src, element) | distance_bits(a->ld_dst, element);
    int rc;

    cuda_overwrites(o, a->dst);
    if (a->n_rows == 0 || a->width == 0)
        return 0;
    rc = stage_index(o, a->src_index, a->n_rows, &j.src_index);
    if (rc == 0)
        rc = stage_index(o, a->dst_index, a->n_rows, &j.dst_index);
    if (rc < 0)
        return rc;
    if (is_aligned(bits, 16))
        return launch_copy<piece<uint32_t, 4>>(o, j, element);
    if (is_aligned(bits, 4))
        return launch_copy<uint32_t>(o, j, element);
    return launch_copy<uint16_t>(o, j, element);
}

/* -- look-ups -- */

struct embed_job {
    int64_t n_rows, width, ld_y;
    const void *table;
    const int32_t *index, *dst_index; /* device; dst_index or NULL */
    void *y;
};

template <typename T, int N, bool ADD> static __global__ void embed_rows(const struct embed_job j)
{
    const int64_t row = row_of_thread();
    const T *from;
    T *y;

    if (row >= j.n_rows)
        return;
    from = (const T *)j.table + j.index[row] * j.width;
    y = (T *)j.y + (j.dst_index ? j.dst_index[row] : row) * j.ld_y;
    for (int64_t c = (int64_t)threadIdx.x * N; c < j.width; c += (int64_t)blockDim.x * N) {
        piece<T, N> value = load_piece<T, N>(from + c);

        if (ADD) {
            const piece<T, N> old = load_piece<T, N>(y + c);

            for (int i = 0; i < N; i++)
                value.v[i] = from_f32<T>(to_f32(old.v[i]) + to_f32(value.v[i]));
        }
        store_piece(y + c, value);
    }
}

template <typename T, int N> static int launch_embed(struct cuda_ops *o, const struct embed_job &j, bool add)
{
    const dim3 block = row_block(div_up(j.width, N));

    return cuda_launch(o, add ? embed_rows<T, N, true> : embed_rows<T, N, false>, row_grid(block, j.n_rows), block, 0,
                       j);
}

int cuda_embed(struct ops *ops, const struct ops_table *t, int64_t n_rows, const int32_t *index,
               const int32_t *dst_index, bool add, void *y, int64_t ld_y)
{
    struct cuda_ops *o = cuda_of(ops);
    const size_t element = cuda_element_bytes(o);
    struct embed_job j = {n_rows, t->width, ld_y, t->d_values, NULL, NULL, y};
    const uintptr_t bits =
        address_bits(t->d_values) | address_bits(y) | distance_bits(t->width, element) | distance_bits(ld_y, element);
    int rc;

    for (int64_t i = 0; i < n_rows; i++)
        assert(index[i] >= 0 && index[i] < t->n_rows);
    cuda_overwrites(o, y);
    if (n_rows == 0)
        return 0;
    rc = stage_index(o, index, n_rows, &j.index);
    if (rc == 0)
        rc = stage_index(o, dst_index, n_rows, &j.dst_index);
    if (rc < 0)
        return rc;
    return by_act_dtype(o, [&](auto tag) {
        using T = typename decltype(tag)::type;

        return is_aligned(bits, 16) ? launch_embed<T, 16 / sizeof(T)>(o, j, add) : launch_embed<T, 1>(o, j, add);
    });
}

/* -- tokens of the ViT -- */

struct vit_job {
    int64_t n_rows, n_tokens, width;
    const void *patches;
    const float *cls, *pos;
    void *y;
};

template <typename T, int N> static __global__ void vit_rows(const struct vit_job j)
{
    const int64_t row = row_of_thread(), image = row / j.n_tokens, token = row % j.n_tokens;
    const T *patch = (const T *)j.patches + (image * (j.n_tokens - 1) + token - 1) * j.width;
    const float *pos = j.pos + token * j.width;

    if (row >= j.n_rows)
        return;
    for (int64_t c = (int64_t)threadIdx.x * N; c < j.width; c += (int64_t)blockDim.x * N) {
        piece<float, N> value = load_piece<float, N>(pos + c);
        piece<T, N> out;

        if (token == 0) {
            const piece<float, N> cls = load_piece<float, N>(j.cls + c);

            for (int i = 0; i < N; i++)
                value.v[i] += cls.v[i];
        } else {
            const piece<T, N> p = load_piece<T, N>(patch + c);

            for (int i = 0; i < N; i++)
                value.v[i] += to_f32(p.v[i]);
        }
        for (int i = 0; i < N; i++)
            out.v[i] = from_f32<T>(value.v[i]);
        store_piece((T *)j.y + row * j.width + c, out);
    }
}

template <typename T, int N> static int launch_vit(struct cuda_ops *o, const struct vit_job &j)
{
    const dim3 block = row_block(div_up(j.width, N));

    return cuda_launch(o, vit_rows<T, N>, row_grid(block, j.n_rows), block, 0, j);
}

int cuda_vit_embed(struct ops *ops, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                   const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    struct cuda_ops *o = cuda_of(ops);
    const struct vit_job j = {n_images * n_tokens, n_tokens, width, patches, cls->d_values, pos->d_values, y};
    const uintptr_t bits = address_bits(patches) | address_bits(y) | distance_bits(width, cuda_element_bytes(o));

    assert(cls->n == width && pos->n == n_tokens * width);
    cuda_overwrites(o, y);
    if (j.n_rows == 0)
        return 0;
    return by_act_dtype(o, [&](auto tag) {
        using T = typename decltype(tag)::type;

        return is_aligned(bits, 16) ? launch_vit<T, 16 / sizeof(T)>(o, j) : launch_vit<T, 1>(o, j);
    });
}
