#include "tensor/cpu.h"

#include "tensor/host.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* What is done row by row, without products: norms, gates, copies, look-ups, the patches of a picture. All of it is bound
 * by memory; rows are shared out evenly. */

enum { PART = 256 /* elements converted at a time */ };

int cpu_norm(struct ops *o, const struct ops_norm_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const size_t element = cpu_element_bytes(c);
    const float *gamma = a->gamma->values, *beta = a->beta ? a->beta->values : NULL;

    assert(a->gamma->n == a->width && (!a->beta || a->beta->n == a->width));
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * a->n_rows * a->width))
    for (int64_t r = 0; r < a->n_rows; r++)
        c->kernels->norm(cpu_element(a->x, r * a->ld_x, element), gamma, beta, a->eps, a->width,
                         cpu_element_out(a->y, r * a->ld_y, element));
    return 0;
}

int cpu_gate(struct ops *o, const struct ops_gate_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const size_t element = cpu_element_bytes(c);

    assert(a->ld_x >= 2 * a->width && a->ld_y >= a->width);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 30.0 * a->n_rows * a->width))
    for (int64_t r = 0; r < a->n_rows; r++) {
        const void *x = cpu_element(a->x, r * a->ld_x, element);

        c->kernels->gate(x, cpu_element(x, a->width, element), (int)a->act, a->width,
                         cpu_element_out(a->y, r * a->ld_y, element));
    }
    return 0;
}

int cpu_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
    const size_t element = cpu_element_bytes(cpu_of(o));

#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 8.0 * a->n_rows * a->width))
    for (int64_t i = 0; i < a->n_rows; i++) {
        int64_t from = a->src_index ? a->src_index[i] : i, to = a->dst_index ? a->dst_index[i] : i;

        memcpy(cpu_element_out(a->dst, to * a->ld_dst, element), cpu_element(a->src, from * a->ld_src, element),
               (size_t)a->width * element);
    }
    return 0;
}

/* Where an image's patch begins, and the distance between its rows in y: red, green, blue, each p * p. */
struct patch {
    const uint8_t *rgb;
    int64_t image_row_bytes, p;
};

static struct patch patch_at(const struct ops_patchify_args *a, int64_t index)
{
    int64_t size = a->image_size, p = a->patch_size, grid = size / p;
    int64_t b = index / (grid * grid), py = index / grid % grid, px = index % grid;

    return (struct patch){
        .rgb = a->rgb + ((b * size + py * p) * size + px * p) * 3, .image_row_bytes = size * 3, .p = p};
}

static void patch_row_f32(const struct patch *from, const float table[3][256], float *y)
{
    const int64_t p = from->p;

    for (int64_t i = 0; i < p; i++) {
        const uint8_t *rgb = from->rgb + i * from->image_row_bytes;
        float *red = y + i * p, *green = red + p * p, *blue = green + p * p;

        for (int64_t j = 0; j < p; j++, rgb += 3) {
            red[j] = table[0][rgb[0]];
            green[j] = table[1][rgb[1]];
            blue[j] = table[2][rgb[2]];
        }
    }
}

static void patch_row_bf16(const struct patch *from, const uint16_t table[3][256], uint16_t *y)
{
    const int64_t p = from->p;

    for (int64_t i = 0; i < p; i++) {
        const uint8_t *rgb = from->rgb + i * from->image_row_bytes;
        uint16_t *red = y + i * p, *green = red + p * p, *blue = green + p * p;

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
    uint16_t table_bf16[3][256];

    assert(a->patch_size >= 1 && a->image_size >= a->patch_size && a->image_size % a->patch_size == 0);
    grid = a->image_size / a->patch_size;
    n = a->n_images * grid * grid;
    for (int i = 0; i < 3; i++)
        for (int u = 0; u < 256; u++)
            table[i][u] = (float)(((double)u * a->rescale - a->mean[i]) / a->std[i]);
    tensor_from_f32(table_bf16, DTYPE_BF16, &table[0][0], 3 * 256);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu_of(o), 50.0 * n * width))
    for (int64_t i = 0; i < n; i++) {
        const struct patch patch = patch_at(a, i);

        if (o->act_dtype == DTYPE_BF16)
            patch_row_bf16(&patch, table_bf16, (uint16_t *)a->y + i * width);
        else
            patch_row_f32(&patch, table, (float *)a->y + i * width);
    }
    return 0;
}

/* y = a row of `table` + what is in y (add_y) + what is in `other` (f32 or NULL), through parts in f32. */
static void add_rows(const struct ops_cpu *c, enum dtype dtype, const void *from, const float *other, bool add_y,
                     int64_t width, void *y)
{
    const size_t element = cpu_element_bytes(c), from_bytes = dtype_size_bytes(dtype);
    const enum dtype act = c->base.act_dtype;
    float part[PART], before[PART];

    for (int64_t i = 0; i < width; i += PART) {
        size_t n = (size_t)(width - i < PART ? width - i : PART);
        void *to = cpu_element_out(y, i, element);

        tensor_to_f32(part, dtype, cpu_element(from, i, from_bytes), n);
        if (add_y)
            tensor_to_f32(before, act, to, n);
        for (size_t j = 0; j < n; j++)
            part[j] = (add_y ? before[j] : 0) + part[j] + (other ? other[i + (int64_t)j] : 0);
        tensor_from_f32(to, act, part, n);
    }
}

int cpu_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                  const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    struct ops_cpu *c = cpu_of(o);
    const size_t element = cpu_element_bytes(c);

    assert(cls->n == width && pos->n == n_tokens * width);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * n_images * n_tokens * width))
    for (int64_t r = 0; r < n_images * n_tokens; r++) {
        int64_t b = r / n_tokens, t = r % n_tokens;
        const void *patch = t == 0 ? NULL : cpu_element(patches, (b * (n_tokens - 1) + t - 1) * width, element);

        add_rows(c, patch ? o->act_dtype : DTYPE_F32, patch ? patch : cls->values, pos->values + t * width, false,
                 width, cpu_element_out(y, r * width, element));
    }
    return 0;
}

int cpu_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index, const int32_t *dst_index,
              bool add, void *y, int64_t ld_y)
{
    struct ops_cpu *c = cpu_of(o);
    const size_t element = cpu_element_bytes(c), table_bytes = dtype_size_bytes(t->tensor.dtype);

#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(c, 16.0 * n_rows * t->width))
    for (int64_t i = 0; i < n_rows; i++) {
        assert(index[i] >= 0 && index[i] < t->tensor.shape[0]);
        add_rows(c, t->tensor.dtype, cpu_element(t->tensor.data, index[i] * t->width, table_bytes), NULL, add, t->width,
                 cpu_element_out(y, (dst_index ? dst_index[i] : i) * ld_y, element));
    }
    return 0;
}
