/* Loads matrices of a checkpoint to the device: parts stacked by rows, in act_dtype or as e4m3 with one scale per
 * row. */
#include "tensor/cuda/launch.cuh"

extern "C" {
#include "tensor/weight_parts.h"
}

#include "tensor/cuda/quantise.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    FP8_MULTIPLE = 16,      /* e4m3 products need N and K to be multiples of this; other matrices stay in act_dtype */
    SLICE_BYTES = 32 << 20, /* bytes of f32 converted to e4m3 at a time; at least one row */
};

void cuda_weight_free(struct ops *base, struct ops_weight *w)
{
    struct cuda_ops *o = cuda_of(base);

    if (!w)
        return;
    cuda_free(o, w->d_values);
    cuda_free(o, w->d_scale);
    cuda_free(o, w->d_bias);
    cuda_free(o, w->d_bias_f32);
    free(w);
}

static int size_of(const struct ops_weight_part *parts, int n_parts, int64_t *ret_n, int64_t *ret_k)
{
    int64_t n, k, total;

    if (weight_parts_shape(parts, n_parts, &n, &k) < 0)
        return -EOVERFLOW;
    if (__builtin_mul_overflow(n, k, &total) || total > (int64_t)(PTRDIFF_MAX / sizeof(float)) || n > INT32_MAX / 2 ||
        k > INT32_MAX / 2)
        return -EOVERFLOW;
    *ret_n = n;
    *ret_k = k;
    return 0;
}

template <typename T> static int take(struct cuda_ops *o, size_t n_bytes, T **ret)
{
    void *p;
    int rc = cuda_malloc(o, n_bytes, &p);

    if (rc == 0)
        *ret = (T *)p;
    return rc;
}

/* Allocates the weight's device memory. */
static int take_memory(struct cuda_ops *o, struct ops_weight *w, bool has_bias)
{
    const size_t element = cuda_element_bytes(o), n = (size_t)w->n;
    int rc = take(o, n * (size_t)w->k * (w->fp8 ? 1 : element), &w->d_values);

    if (rc == 0 && w->fp8)
        rc = take(o, n * sizeof(float), &w->d_scale);
    if (rc == 0 && has_bias)
        rc = take(o, n * element, &w->d_bias);
    if (rc == 0 && has_bias)
        rc = take(o, n * sizeof(float), &w->d_bias_f32);
    return rc;
}

/* Converts the rows of one part in slices of f32, to limit temporary memory. */
static int load_fp8(struct cuda_ops *o, const struct ops_weight *w, int64_t first_row, const struct tensor *t,
                    float *slice, int64_t slice_rows)
{
    const size_t row_bytes = (size_t)w->k * dtype_size_bytes(t->dtype);
    int rc = 0;

    for (int64_t row = 0; row < t->shape[0] && rc == 0; row += slice_rows) {
        const int64_t n = t->shape[0] - row < slice_rows ? t->shape[0] - row : slice_rows;

        rc = cuda_load(o, slice, DTYPE_F32, (const char *)t->data + (size_t)row * row_bytes, t->dtype,
                       (size_t)(n * w->k));
        if (rc == 0)
            rc = cuda_quantise_rows(o, n, w->k, slice, DTYPE_F32, w->k, (char *)w->d_values + (first_row + row) * w->k,
                                    w->d_scale + first_row + row);
    }
    return rc;
}

static int load_bias(struct cuda_ops *o, const struct ops_weight *w, int64_t first_row, const struct tensor *t)
{
    const size_t n = (size_t)t->shape[0];
    int rc = cuda_load(o, (char *)w->d_bias + (size_t)first_row * cuda_element_bytes(o), o->base.act_dtype, t->data,
                       t->dtype, n);

    return rc < 0 ? rc : cuda_load(o, w->d_bias_f32 + first_row, DTYPE_F32, t->data, t->dtype, n);
}

static int load(struct cuda_ops *o, struct ops_weight *w, const struct ops_weight_part *parts, int n_parts)
{
    const int64_t row_bytes = w->k * (int64_t)sizeof(float);
    const int64_t fit = SLICE_BYTES / row_bytes, slice_rows = fit < 1 ? 1 : fit < w->n ? fit : w->n;
    int64_t row = 0;
    void *slice = NULL;
    int rc = w->fp8 ? cuda_malloc(o, (size_t)(slice_rows * row_bytes), &slice) : 0;

    for (int i = 0; i < n_parts && rc == 0; i++) {
        const struct tensor *t = parts[i].weight;

        if (w->fp8)
            rc = load_fp8(o, w, row, t, (float *)slice, slice_rows);
        else
            rc = cuda_load(o, (char *)w->d_values + (size_t)(row * w->k) * cuda_element_bytes(o), o->base.act_dtype,
                           t->data, t->dtype, (size_t)(t->shape[0] * w->k));
        if (rc == 0 && parts[i].bias)
            rc = load_bias(o, w, row, parts[i].bias);
        row += t->shape[0];
    }
    if (rc == 0)
        rc = cuda_status(o, cudaStreamSynchronize(o->stream), "weight");
    cuda_free(o, slice);
    return rc;
}

static int report(struct cuda_ops *o, const struct ops_weight *w, int rc, struct err *err)
{
    const double mib = 1024 * 1024;
    const double bytes = (double)w->n * (double)w->k * (w->fp8 ? 1 : (double)cuda_element_bytes(o));

    if (rc != -ENOMEM)
        return err_set(err, rc, "weight [%lld, %lld]: %s", (long long)w->n, (long long)w->k, o->base.why.text);
    return err_set(
        err, rc,
        "weight [%lld, %lld]: %.1f MiB do not fit: this process uses %.1f MiB of the device's memory, and %.1f MiB "
        "is its limit; raise memory_share, or use a larger card or a smaller dtype",
        (long long)w->n, (long long)w->k, bytes / mib, (double)o->memory_allocated / mib,
        (double)o->memory_limit / mib);
}

int cuda_weight_new(struct ops *base, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                    struct ops_weight **ret, struct err *err)
{
    struct cuda_ops *o = cuda_of(base);
    struct ops_weight *w;
    int64_t n, k;
    int rc;

    if (size_of(parts, n_parts, &n, &k) < 0)
        return err_set(err, -EOVERFLOW, "weight: the matrix is too large for this device");
    w = (struct ops_weight *)calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, -ENOMEM, "weight [%lld, %lld]: out of memory", (long long)n, (long long)k);
    w->n = n;
    w->k = k;
    w->fp8 = (flags & OPS_WEIGHT_FP8) && base->fp8 && n % FP8_MULTIPLE == 0 && k % FP8_MULTIPLE == 0;
    rc = take_memory(o, w, parts[0].bias != NULL);
    if (rc == 0)
        rc = load(o, w, parts, n_parts);
    if (rc < 0) {
        rc = report(o, w, rc, err);
        cuda_weight_free(base, w);
        return rc;
    }
    *ret = w;
    return 0;
}
