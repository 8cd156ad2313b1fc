/* y = act(x w^T + bias) + residual. The library's product does as much as it can (matmul.h). The kernel `finish` does
 * the rest; it is memory-bound and reads and writes y once more (in bf16 at 65792 x 6144: 1.6 GB, about 0.5 ms), so the
 * models use fused forms.
 *
 * Ways, from the fastest to the most general; the first that the library supports is used (matmul.cu caches this):
 *   WAY_FUSED    all in the product
 *   WAY_ACT      the product adds bias and residual, the activation follows in place
 *   WAY_PRODUCT  the product (and its fp8 scales) into y, the rest follows in place
 *   WAY_APART    the bare product into f32 scratch, some rows at a time, everything else on the way to y; also what a
 *                residual after an activation takes when it is in y's place
 *   then         the same with a plain product of ours instead of the library's. */
#include "tensor/cuda/rows.cuh"

#include "tensor/cuda/activate.cuh"
#include "tensor/cuda/fp8.cuh"
#include "tensor/cuda/matmul.h"

#include <assert.h>
#include <errno.h>

/* cublasLt's gelu is the tanh form. It is also used for the erf form if y is bf16: the two differ by at most 4.8e-4,
 * about 1e-4 of the norm of a gelu's output, while rounding to bf16 has an error of 1.7e-3. This saves a pass over
 * the widest activation (ViT-g at 256 images: 0.8 GB read and 0.8 GB written per layer). fp16 (rounding: 2e-4) and
 * fp32 get the exact form. */
enum { GELU_ERF_AS_TANH_IN_BF16 = 1 };

enum {
    PLAIN_THREADS = 256,
    APART_LEAST_BYTES = 8 << 20, /* bytes of sums at a time: enough to keep a large card busy */
    APART_ROWS = 16,             /* rows per part are a multiple of this, as e4m3 products require */
};

enum way { WAY_FUSED, WAY_ACT, WAY_PRODUCT, WAY_APART };

/* The parts of linear that the product does. It always applies e4m3 scales. */
struct share {
    bool bias, act, residual;
};

/* y = act(sum * scale_x[row] * scale_w[column] + bias[column]) + residual; NULL: none. Both scales or neither. */
struct finish_job {
    int64_t n_rows, n;
    const void *sum;
    int64_t ld_sum;
    void *y;
    int64_t ld_y;
    const void *residual;
    int64_t ld_residual;
    const float *scale_x, *scale_w, *bias;
    enum ops_act act;
};

/* -- kernels -- */

/* N columns at a time. sum may be y, since each thread writes only what it has read. S: type of sums, Y: of y, R: of
 * residuals. */
template <typename S, typename Y, typename R, int N> static __global__ void finish(const struct finish_job j)
{
    const int64_t row = row_of_thread();
    const S *sum = (const S *)j.sum + row * j.ld_sum;
    const R *residual = j.residual ? (const R *)j.residual + row * j.ld_residual : NULL;
    Y *y = (Y *)j.y + row * j.ld_y;

    if (row >= j.n_rows)
        return;
    for (int64_t c = (int64_t)threadIdx.x * N; c < j.n; c += (int64_t)blockDim.x * N) {
        const piece<S, N> in = load_piece<S, N>(sum + c);
        piece<R, N> add = {};
        piece<Y, N> out;

        if (residual)
            add = load_piece<R, N>(residual + c);
        for (int i = 0; i < N; i++) {
            float x = to_f32(in.v[i]);

            if (j.scale_w)
                x *= j.scale_x[row] * j.scale_w[c + i];
            if (j.bias)
                x += j.bias[c + i];
            x = activate(j.act, x);
            if (residual)
                x += to_f32(add.v[i]);
            out.v[i] = from_f32<Y>(x);
        }
        store_piece(y + c, out);
    }
}

static __device__ __forceinline__ float to_f32(__nv_fp8_e4m3 x)
{
    return fp8_value(x.__x);
}

/* One warp per element: slow, for products that the library does not support. Grid: rows x blocks of columns. */
template <typename X>
static __global__ void plain_product(const X *x, int64_t ld_x, const X *w, int n, int64_t k, float *sum)
{
    const int column = (int)(blockIdx.y * (blockDim.x / CUDA_WARP) + threadIdx.x / CUDA_WARP);
    const X *a = x + (int64_t)blockIdx.x * ld_x, *b = w + (int64_t)column * k;
    float total = 0;

    if (column >= n)
        return;
    for (int64_t i = threadIdx.x % CUDA_WARP; i < k; i += CUDA_WARP)
        total += to_f32(a[i]) * to_f32(b[i]);
    total = warp_sum(total);
    if (threadIdx.x % CUDA_WARP == 0)
        sum[(int64_t)blockIdx.x * n + column] = total;
}

/* -- launchers -- */

template <typename S, typename Y, typename R> static int launch_finish(struct cuda_ops *o, const struct finish_job &j)
{
    constexpr int N = 16 / sizeof(S); /* the sums' type is the widest */
    const uintptr_t sums = address_bits(j.sum) | distance_bits(j.ld_sum, sizeof(S));
    const uintptr_t ys = address_bits(j.y) | distance_bits(j.ld_y, sizeof(Y));
    const uintptr_t residuals = j.residual ? address_bits(j.residual) | distance_bits(j.ld_residual, sizeof(R)) : 0;
    const bool pieces =
        j.n % N == 0 && is_aligned(sums, 16) && is_aligned(ys, N * sizeof(Y)) && is_aligned(residuals, N * sizeof(R));
    const dim3 block = row_block(pieces ? j.n / N : j.n);

    return cuda_launch(o, pieces ? finish<S, Y, R, N> : finish<S, Y, R, 1>, row_grid(block, j.n_rows), block, 0, j);
}

/* Sums in f32 (or in place, in activations) -> y. */
static int run_finish(struct cuda_ops *o, const struct finish_job &j, bool sum_f32, bool y_f32)
{
    return by_act_dtype(o, [&](auto tag) {
        using T = typename decltype(tag)::type;

        if (!sum_f32)
            return launch_finish<T, T, T>(o, j);
        return y_f32 ? launch_finish<float, float, T>(o, j) : launch_finish<float, T, T>(o, j);
    });
}

template <typename X> static int run_plain(struct cuda_ops *o, const struct cuda_product *p)
{
    const int64_t per_block = PLAIN_THREADS / CUDA_WARP;

    return cuda_launch(o, plain_product<X>, dim3((unsigned)p->n_rows, (unsigned)div_up(p->n, per_block)),
                       dim3(PLAIN_THREADS), 0, (const X *)p->x, p->ld_x, (const X *)p->w, (int)p->n, p->k,
                       (float *)p->d);
}

static int plain_run(struct cuda_ops *o, const struct cuda_product *p)
{
    if (p->in_type == CUDA_R_8F_E4M3)
        return run_plain<__nv_fp8_e4m3>(o, p);
    return by_act_dtype(o, [&](auto tag) { return run_plain<typename decltype(tag)::type>(o, p); });
}

/* -- ways -- */

/* x as the product reads it: in activations or in e4m3. */
struct operand {
    const void *x;
    int64_t ld;
    const float *scale;
    cudaDataType type;
    size_t element_bytes;
};

/* Not relu: how the library's relu treats NaN is undocumented, and max(x, 0) would turn it into 0. (A separate relu
 * costs OPT-2.7B a read and a write of fc1's output, about 3 % of a prompt's pass. gelu multiplies, so NaN stays.) */
static bool act_fits_epilogue(const struct cuda_ops *o, const struct ops_linear_args *a)
{
    switch (a->act) {
    case OPS_ACT_NONE:
        return true;
    case OPS_ACT_RELU:
        return false;
    case OPS_ACT_GELU_ERF:
        return GELU_ERF_AS_TANH_IN_BF16 && o->base.act_dtype == DTYPE_BF16 && !a->y_f32;
    default: /* the library's tanh is approximate: accurate to 11 bits */
        return o->base.act_dtype != DTYPE_F32 && !a->y_f32;
    }
}

/* False if this way is impossible. */
static bool share_of(const struct cuda_ops *o, const struct ops_linear_args *a, enum way way, struct share *ret)
{
    const bool y_is_act = !a->y_f32 || o->base.act_dtype == DTYPE_F32;
    const bool residual_in_product = !a->act && y_is_act;

    ret->bias = way != WAY_PRODUCT;
    ret->act = way == WAY_FUSED;
    ret->residual = way != WAY_PRODUCT && residual_in_product;
    if (way == WAY_FUSED)
        return act_fits_epilogue(o, a) && (!a->residual || residual_in_product);
    /* The following steps need the original residual. */
    return !a->residual || ret->residual || a->residual != a->y;
}

static cublasLtEpilogue_t epilogue_of(enum ops_act act, bool bias)
{
    if (act == OPS_ACT_NONE)
        return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
}

static struct cuda_product product_of(const struct ops_linear_args *a, const struct operand *x)
{
    struct cuda_product p = {};

    p.n_rows = a->n_rows;
    p.n = a->weight->n;
    p.k = a->weight->k;
    p.in_type = x->type;
    p.w = a->weight->d_values;
    p.x = x->x;
    p.ld_x = x->ld;
    p.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return p;
}

/* -ENOTSUP: the library does not support this way. */
static int linear_into_y(struct cuda_ops *o, const struct ops_linear_args *a, const struct operand *x, enum way way)
{
    const struct ops_weight *w = a->weight;
    struct cuda_product p = product_of(a, x);
    struct finish_job j = {};
    struct share s;
    int rc;

    if (!share_of(o, a, way, &s))
        return -ENOTSUP;
    p.out_type = a->y_f32 ? CUDA_R_32F : cuda_data_type(o->base.act_dtype);
    p.d_scale_x = x->scale;
    p.d_scale_w = w->d_scale;
    p.c = s.residual ? a->residual : NULL;
    p.ld_c = a->ld_residual;
    p.d = a->y;
    p.ld_d = a->ld_y;
    p.epilogue = epilogue_of(s.act ? a->act : OPS_ACT_NONE, s.bias && w->d_bias);
    if (s.bias && w->d_bias) {
        /* e4m3 products take a 16-bit bias even if the result is f32 (cublasLtMatmul's table of types). */
        const bool in_f32 = p.out_type == CUDA_R_32F && !w->fp8;

        p.d_bias = in_f32 ? w->d_bias_f32 : w->d_bias;
        p.bias_type = in_f32 ? CUDA_R_32F : cuda_data_type(o->base.act_dtype);
    }
    rc = cuda_product_run(o, &p);
    if (rc < 0)
        return rc;
    j.bias = s.bias ? NULL : w->d_bias_f32;
    j.act = s.act ? OPS_ACT_NONE : a->act;
    j.residual = s.residual ? NULL : a->residual;
    if (!j.bias && !j.act && !j.residual)
        return 0;
    j.n_rows = a->n_rows;
    j.n = w->n;
    j.sum = j.y = a->y;
    j.ld_sum = j.ld_y = a->ld_y;
    j.ld_residual = a->ld_residual;
    return run_finish(o, j, a->y_f32, a->y_f32);
}

/* Computes rows row .. row + n_rows - 1: the library's sums into scratch, or our own. */
static int apart_rows(struct cuda_ops *o, const struct ops_linear_args *a, const struct operand *x, int64_t row,
                      int64_t n_rows, float *sum)
{
    const struct ops_weight *w = a->weight;
    const size_t element = cuda_element_bytes(o), y_element = a->y_f32 ? sizeof(float) : element;
    struct cuda_product p = product_of(a, x);
    struct finish_job j = {};
    int rc;

    p.x = (const char *)x->x + (size_t)(row * x->ld) * x->element_bytes;
    p.n_rows =
        w->fp8 ? div_up(n_rows, APART_ROWS) * APART_ROWS : n_rows; /* cuda_quantised_place reserves the padding */
    p.out_type = CUDA_R_32F;
    p.d = sum;
    p.ld_d = w->n;
    rc = cuda_product_run(o, &p);
    if (rc == -ENOTSUP)
        rc = plain_run(o, &p);
    if (rc < 0)
        return rc;
    j.n_rows = n_rows;
    j.n = w->n;
    j.sum = sum;
    j.ld_sum = w->n;
    j.y = (char *)a->y + (size_t)(row * a->ld_y) * y_element;
    j.ld_y = a->ld_y;
    j.residual = a->residual ? (const char *)a->residual + (size_t)(row * a->ld_residual) * element : NULL;
    j.ld_residual = a->ld_residual;
    j.scale_x = x->scale ? x->scale + row : NULL;
    j.scale_w = w->d_scale;
    j.bias = w->d_bias_f32;
    j.act = a->act;
    return run_finish(o, j, true, a->y_f32);
}

/* Half the L2 cache, so that sums stay in it; through memory they would take longer than the e4m3 product itself
 * (ViT-g at 256 images on a card with 0.9 TB/s: 8 ms per layer, the products 7 ms). */
static int64_t apart_bytes(const struct cuda_ops *o)
{
    const int64_t half = (int64_t)(o->l2_bytes / 2);

    return half < APART_LEAST_BYTES ? (int64_t)APART_LEAST_BYTES : half;
}

static int linear_apart(struct cuda_ops *o, const struct ops_linear_args *a, const struct operand *x)
{
    const int64_t row_bytes = a->weight->n * (int64_t)sizeof(float);
    const int64_t fit = apart_bytes(o) / (row_bytes * APART_ROWS), all = div_up(a->n_rows, APART_ROWS);
    const int64_t step = (fit < 1 ? 1 : fit < all ? fit : all) * APART_ROWS;
    void *sum;
    int rc = cuda_scratch(o, CUDA_SLOT_LINEAR, (size_t)(step * row_bytes), &sum);

    for (int64_t row = 0; row < a->n_rows && rc == 0; row += step)
        rc = apart_rows(o, a, x, row, a->n_rows - row < step ? a->n_rows - row : step, (float *)sum);
    return rc;
}

static int operand_of(struct cuda_ops *o, const struct ops_linear_args *a, struct operand *ret)
{
    const struct ops_weight *w = a->weight;
    int rc;

    ret->x = a->x;
    ret->ld = a->ld_x;
    ret->scale = NULL;
    ret->type = cuda_data_type(o->base.act_dtype);
    ret->element_bytes = cuda_element_bytes(o);
    if (!w->fp8)
        return 0;
    rc = cuda_quantise(o, a->n_rows, w->k, a->x, a->ld_x, &ret->x, &ret->scale);
    o->quantised.of = NULL;
    ret->ld = w->k;
    ret->type = CUDA_R_8F_E4M3;
    ret->element_bytes = 1;
    return rc;
}

int cuda_linear(struct ops *base, const struct ops_linear_args *a)
{
    static const enum way ways[] = {WAY_FUSED, WAY_ACT, WAY_PRODUCT};
    struct cuda_ops *o = cuda_of(base);
    struct operand x;
    int rc;

    assert(a->n_rows >= 1 && a->ld_x >= a->weight->k && a->ld_y >= a->weight->n && a->x != a->y);
    assert(a->n_rows <= INT32_MAX && a->weight->n <= INT32_MAX);
    cuda_overwrites(o, a->y);
    if (cuda_skips(o)) { /* the norm's quantised form is also consumed */
        if (a->weight->fp8)
            o->quantised.of = NULL;
        return 0;
    }
    rc = cuda_failed(o);
    if (rc == 0)
        rc = operand_of(o, a, &x);
    if (rc < 0)
        return rc;
    for (enum way way : ways) {
        rc = linear_into_y(o, a, &x, way);
        if (rc != -ENOTSUP)
            return rc;
    }
    return linear_apart(o, a, &x);
}
