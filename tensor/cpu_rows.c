#include "tensor/cpu.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "tensor/cpu_simd.h"

/* What is done row by row, without products: norms, copies, look-ups, the patches of a picture, the best logit.
 * All of it is bound by memory; rows are shared out evenly. */

struct row_kernels {
    void (*norm)(const float *x, const float *gamma, const float *beta, float eps, int64_t width, float *y);
    void (*argmax)(const float *x, int64_t n, int32_t *ret_id, float *ret_logprob);
};

CPU_INLINE float sum_of(const float *x, int64_t n)
{
    cpu_v16 sum[4] = {{0}};
    float tail = 0;
    int64_t i = 0;

    for (; i + 4 * CPU_LANES <= n; i += 4 * CPU_LANES)
        for (int j = 0; j < 4; j++)
            sum[j] += cpu_load(x + i + j * CPU_LANES);
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        sum[0] += cpu_load(x + i);
    for (; i < n; i++)
        tail += x[i];
    return cpu_sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

CPU_INLINE float sum_of_squares(const float *x, int64_t n, float mean)
{
    cpu_v16 sum[4] = {{0}}, m = cpu_set(mean);
    float tail = 0;
    int64_t i = 0;

    for (; i + 4 * CPU_LANES <= n; i += 4 * CPU_LANES)
        for (int j = 0; j < 4; j++) {
            cpu_v16 d = cpu_load(x + i + j * CPU_LANES) - m;

            sum[j] += d * d;
        }
    for (; i + CPU_LANES <= n; i += CPU_LANES) {
        cpu_v16 d = cpu_load(x + i) - m;

        sum[0] += d * d;
    }
    for (; i < n; i++)
        tail += (x[i] - mean) * (x[i] - mean);
    return cpu_sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

CPU_INLINE void norm_row(const float *x, const float *gamma, const float *beta, float eps, int64_t width, float *y)
{
    float mean = beta ? sum_of(x, width) / (float)width : 0;
    float scale = 1 / sqrtf(sum_of_squares(x, width, mean) / (float)width + eps);
    cpu_v16 m = cpu_set(mean), s = cpu_set(scale);
    int64_t i = 0;

    for (; i + CPU_LANES <= width; i += CPU_LANES) {
        cpu_v16 v = (cpu_load(x + i) - m) * s * cpu_load(gamma + i);

        cpu_store(y + i, beta ? v + cpu_load(beta + i) : v);
    }
    for (; i < width; i++)
        y[i] = (x[i] - mean) * scale * gamma[i] + (beta ? beta[i] : 0);
}

/* As in ref.c, a NaN is never larger, but it makes the probability NaN. */
CPU_INLINE void argmax_row(const float *x, int64_t n, int32_t *ret_id, float *ret_logprob)
{
    enum { BLOCK = 64 * CPU_LANES }; /* float sums stay short, double takes them over */
    cpu_v16 largest = cpu_set(x[0]);
    int64_t i = 0, id = 0;
    double total = 0;
    float max;

    for (; i + CPU_LANES <= n; i += CPU_LANES)
        largest = cpu_max(cpu_load(x + i), largest);
    max = cpu_max_lanes(largest);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    while (id < n && !(x[id] == max))
        id++;
    for (i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK, j = i;
        cpu_v16 sum = {0}, last = cpu_set(-HUGE_VALF);

        for (; j + CPU_LANES <= end; j += CPU_LANES)
            sum += cpu_exp_nonpositive(cpu_load(x + j) - cpu_set(max));
        memcpy(&last, x + j, (size_t)(end - j) * sizeof(float));
        if (j < end)
            sum += cpu_exp_nonpositive(last - cpu_set(max));
        total += cpu_sum_lanes(sum);
    }
    *ret_id = id < n ? (int32_t)id : 0;
    *ret_logprob = (float)-log(total);
}

#define ROW_WRAPPERS(isa, target)                                                                                  \
    target static void norm_##isa(const float *x, const float *gamma, const float *beta, float eps, int64_t width, \
                                  float *y)                                                                        \
    {                                                                                                              \
        norm_row(x, gamma, beta, eps, width, y);                                                                   \
    }                                                                                                              \
    target static void argmax_##isa(const float *x, int64_t n, int32_t *ret_id, float *ret_logprob)                \
    {                                                                                                              \
        argmax_row(x, n, ret_id, ret_logprob);                                                                     \
    }
ROW_WRAPPERS(base, )
ROW_WRAPPERS(avx2, CPU_TARGET_AVX2)
ROW_WRAPPERS(avx512, CPU_TARGET_AVX512)

static const struct row_kernels kernels[CPU_ISA_COUNT] = {
    [CPU_ISA_BASE] = {norm_base, argmax_base},
    [CPU_ISA_AVX2] = {norm_avx2, argmax_avx2},
    [CPU_ISA_AVX512] = {norm_avx512, argmax_avx512},
};

int cpu_norm(struct ops *o, const struct ops_norm_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const struct row_kernels *kernel = &kernels[c->isa];
    const float *gamma = a->gamma->values, *beta = a->beta ? a->beta->values : NULL;

    assert(a->gamma->n == a->width && (!a->beta || a->beta->n == a->width));
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * a->n_rows * a->width))
    for (int64_t r = 0; r < a->n_rows; r++)
        kernel->norm((const float *)a->x + r * a->ld_x, gamma, beta, a->eps, a->width, (float *)a->y + r * a->ld_y);
    return 0;
}

int cpu_argmax_logprob(struct ops *o, int64_t n_rows, int64_t vocab, const float *logits, int64_t ld, int32_t *ret_ids,
                       float *ret_logprob)
{
    struct ops_cpu *c = cpu_of(o);
    const struct row_kernels *kernel = &kernels[c->isa];

    assert(vocab >= 1 && vocab <= ld);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 30.0 * n_rows * vocab))
    for (int64_t r = 0; r < n_rows; r++)
        kernel->argmax(logits + r * ld, vocab, &ret_ids[r], &ret_logprob[r]);
    return 0;
}

int cpu_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
    struct ops_cpu *c = cpu_of(o);

#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 8.0 * a->n_rows * a->width))
    for (int64_t i = 0; i < a->n_rows; i++) {
        int64_t from = a->src_index ? a->src_index[i] : i, to = a->dst_index ? a->dst_index[i] : i;

        memcpy((float *)a->dst + to * a->ld_dst, (const float *)a->src + from * a->ld_src,
               (size_t)a->width * sizeof(float));
    }
    return 0;
}

static void patch_row(const struct ops_patchify_args *a, const float table[3][256], int64_t patch, float *y)
{
    int64_t size = a->image_size, p = a->patch_size, grid = size / p;
    int64_t b = patch / (grid * grid), py = patch / grid % grid, px = patch % grid;

    for (int64_t i = 0; i < p; i++) {
        const uint8_t *rgb = a->rgb + ((b * size + py * p + i) * size + px * p) * 3;
        float *red = y + i * p, *green = red + p * p, *blue = green + p * p;

        for (int64_t j = 0; j < p; j++, rgb += 3) {
            red[j] = table[0][rgb[0]];
            green[j] = table[1][rgb[1]];
            blue[j] = table[2][rgb[2]];
        }
    }
}

int cpu_patchify(struct ops *o, const struct ops_patchify_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    int64_t grid = a->image_size / a->patch_size, n = a->n_images * grid * grid;
    int64_t width = 3 * (int64_t)a->patch_size * a->patch_size;
    float table[3][256];

    assert(a->patch_size >= 1 && grid >= 1 && grid * a->patch_size == a->image_size);
    for (int i = 0; i < 3; i++)
        for (int u = 0; u < 256; u++)
            table[i][u] = (float)(((double)u * a->rescale - a->mean[i]) / a->std[i]);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 50.0 * n * width))
    for (int64_t patch = 0; patch < n; patch++)
        patch_row(a, table, patch, (float *)a->y + patch * width);
    return 0;
}

int cpu_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                  const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    struct ops_cpu *c = cpu_of(o);

    assert(cls->n == width && pos->n == n_tokens * width);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * n_images * n_tokens * width))
    for (int64_t r = 0; r < n_images * n_tokens; r++) {
        int64_t b = r / n_tokens, t = r % n_tokens;
        const float *from = t == 0 ? cls->values : (const float *)patches + (b * (n_tokens - 1) + t - 1) * width;
        const float *add = pos->values + t * width;
        float *to = (float *)y + r * width;

        for (int64_t i = 0; i < width; i++)
            to[i] = from[i] + add[i];
    }
    return 0;
}

static void add_row(const struct tensor *t, int64_t row, int64_t width, float *y)
{
    const size_t element = dtype_size_bytes(t->dtype);
    const unsigned char *from = (const unsigned char *)t->data + (size_t)(row * width) * element;
    float part[256];

    for (int64_t i = 0; i < width; i += 256) {
        int64_t n = width - i < 256 ? width - i : 256;

        tensor_to_f32(part, t->dtype, from + (size_t)i * element, (size_t)n);
        for (int64_t j = 0; j < n; j++)
            y[i + j] += part[j];
    }
}

int cpu_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index, const int32_t *dst_index,
              bool add, void *y, int64_t ld_y)
{
    struct ops_cpu *c = cpu_of(o);

#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * n_rows * t->width))
    for (int64_t i = 0; i < n_rows; i++) {
        float *to = (float *)y + (dst_index ? dst_index[i] : i) * ld_y;

        assert(index[i] >= 0 && index[i] < t->tensor.shape[0]);
        if (add)
            add_row(&t->tensor, index[i], t->width, to);
        else
            tensor_row_to_f32(&t->tensor, index[i], to);
    }
    return 0;
}
