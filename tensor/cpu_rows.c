#include "tensor/cpu.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* What is done row by row, without products: norms, copies, look-ups, the patches of a picture, the best logit. All of
 * it is bound by memory; rows are shared out evenly. */

int cpu_norm(struct ops *o, const struct ops_norm_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const float *gamma = a->gamma->values, *beta = a->beta ? a->beta->values : NULL;

    assert(a->gamma->n == a->width && (!a->beta || a->beta->n == a->width));
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * a->n_rows * a->width))
    for (int64_t r = 0; r < a->n_rows; r++)
        c->kernels->norm((const float *)a->x + r * a->ld_x, gamma, beta, a->eps, a->width, (float *)a->y + r * a->ld_y);
    return 0;
}

static float activate(enum ops_act act, float x)
{
    switch (act) {
    case OPS_ACT_NONE:
        return x;
    case OPS_ACT_RELU:
        return x < 0 ? 0 : x;
    case OPS_ACT_GELU_ERF:
        return 0.5f * x * (1 + erff(x * (float)M_SQRT1_2));
    case OPS_ACT_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
    }
    assert(!"a value of enum ops_act");
    return x;
}

int cpu_gate(struct ops *o, const struct ops_gate_args *a)
{
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 30.0 * a->n_rows * a->width))
    for (int64_t r = 0; r < a->n_rows; r++) {
        const float *x = (const float *)a->x + r * a->ld_x;
        float *y = (float *)a->y + r * a->ld_y;

        for (int64_t i = 0; i < a->width; i++)
            y[i] = activate(a->act, x[i]) * x[a->width + i];
    }
    return 0;
}

int cpu_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 8.0 * a->n_rows * a->width))
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
    int64_t grid, n, width = 3 * (int64_t)a->patch_size * a->patch_size;
    float table[3][256];

    assert(a->patch_size >= 1 && a->image_size >= a->patch_size && a->image_size % a->patch_size == 0);
    grid = a->image_size / a->patch_size;
    n = a->n_images * grid * grid;
    for (int i = 0; i < 3; i++)
        for (int u = 0; u < 256; u++)
            table[i][u] = (float)(((double)u * a->rescale - a->mean[i]) / a->std[i]);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 50.0 * n * width))
    for (int64_t patch = 0; patch < n; patch++)
        patch_row(a, table, patch, (float *)a->y + patch * width);
    return 0;
}

int cpu_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                  const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    assert(cls->n == width && pos->n == n_tokens * width);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 16.0 * n_images * n_tokens * width))
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
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 16.0 * n_rows * t->width))
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
