#include "tensor/cpu.h"

#include "tensor/host.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Row-wise operators without products: norms, gates, copies, look-ups, patches of an image. All are memory-bound, so
 * rows are divided evenly among the threads. */

enum { PART = 256 /* elements converted at a time */ };

/* The rows of one operator call, divided among the threads. */
struct rows {
    const struct ops_cpu *cpu;
    size_t element;
    const void *args; /* the operator's arguments */
};

static void share_rows(struct ops *o, double flop_per_value, int64_t n_rows, int64_t width, cpu_share_fn *fn,
                       const void *args)
{
    const struct ops_cpu *c = cpu_of(o);

    cpu_share(c, flop_per_value * (double)n_rows * (double)width, n_rows, 0, fn,
              &(struct rows){c, cpu_element_bytes(c), args});
}

static void norm_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows *s = arg;
    const struct ops_norm_args *a = s->args;
    const float *gamma = a->gamma->values, *beta = a->beta ? a->beta->values : NULL;

    (void)thread;
    for (int64_t r = begin; r < end; r++)
        s->cpu->kernels->norm(cpu_element(a->x, r * a->ld_x, s->element), gamma, beta, a->eps, a->width,
                              cpu_element_out(a->y, r * a->ld_y, s->element));
}

int cpu_norm(struct ops *o, const struct ops_norm_args *a)
{
    assert(a->gamma->n == a->width && (!a->beta || a->beta->n == a->width));
    share_rows(o, 16, a->n_rows, a->width, norm_some, a);
    return 0;
}

static void gate_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows *s = arg;
    const struct ops_gate_args *a = s->args;

    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const void *x = cpu_element(a->x, r * a->ld_x, s->element);

        s->cpu->kernels->gate(x, cpu_element(x, a->width, s->element), (int)a->act, a->width,
                              cpu_element_out(a->y, r * a->ld_y, s->element));
    }
}

int cpu_gate(struct ops *o, const struct ops_gate_args *a)
{
    assert(a->ld_x >= 2 * a->width && a->ld_y >= a->width);
    share_rows(o, 30, a->n_rows, a->width, gate_some, a);
    return 0;
}

static void copy_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows *s = arg;
    const struct ops_rows_args *a = s->args;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t from = a->src_index ? a->src_index[i] : i, to = a->dst_index ? a->dst_index[i] : i;

        memcpy(cpu_element_out(a->dst, to * a->ld_dst, s->element), cpu_element(a->src, from * a->ld_src, s->element),
               (size_t)a->width * s->element);
    }
}

int cpu_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
    share_rows(o, 8, a->n_rows, a->width, copy_some, a);
    return 0;
}

/* Position of a patch in the image and in y; each patch is red, green, blue, each p * p. */
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

/* The float value of each pixel byte, per channel. */
struct patch_tables {
    const struct ops_patchify_args *args;
    float f32[3][256];
    uint16_t bf16[3][256];
};

static void patchify_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows *s = arg;
    const struct patch_tables *t = s->args;
    const int64_t width = 3 * (int64_t)t->args->patch_size * t->args->patch_size;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct patch patch = patch_at(t->args, i);

        if (s->cpu->base.act_dtype == DTYPE_BF16)
            patch_row_bf16(&patch, t->bf16, (uint16_t *)t->args->y + i * width);
        else
            patch_row_f32(&patch, t->f32, (float *)t->args->y + i * width);
    }
}

int cpu_patchify(struct ops *o, const struct ops_patchify_args *a)
{
    int64_t grid, n, width = 3 * (int64_t)a->patch_size * a->patch_size;
    struct patch_tables t = {.args = a};

    assert(a->patch_size >= 1 && a->image_size >= a->patch_size && a->image_size % a->patch_size == 0);
    grid = a->image_size / a->patch_size;
    n = a->n_images * grid * grid;
    for (int i = 0; i < 3; i++)
        for (int u = 0; u < 256; u++)
            t.f32[i][u] = (float)(((double)u * a->rescale - a->mean[i]) / a->std[i]);
    tensor_from_f32(t.bf16, DTYPE_BF16, &t.f32[0][0], 3 * 256);
    share_rows(o, 50, n, width, patchify_some, &t);
    return 0;
}

/* y = a row of `table` + what is in y (add_y) + what is in `other` (f32 or NULL), converted in f32 parts. */
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

struct vit_embedding {
    int64_t n_tokens, width;
    const void *patches;
    const float *cls, *pos;
    void *y;
};

static void vit_embed_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows *s = arg;
    const struct vit_embedding *e = s->args;

    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / e->n_tokens, t = r % e->n_tokens;
        const void *patch =
            t == 0 ? NULL : cpu_element(e->patches, (b * (e->n_tokens - 1) + t - 1) * e->width, s->element);

        add_rows(s->cpu, patch ? s->cpu->base.act_dtype : DTYPE_F32, patch ? patch : e->cls, e->pos + t * e->width,
                 false, e->width, cpu_element_out(e->y, r * e->width, s->element));
    }
}

int cpu_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                  const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    assert(cls->n == width && pos->n == n_tokens * width);
    share_rows(o, 16, n_images * n_tokens, width, vit_embed_some,
               &(struct vit_embedding){n_tokens, width, patches, cls->values, pos->values, y});
    return 0;
}

struct lookup {
    const struct ops_table *table;
    const int32_t *index, *dst_index;
    bool add;
    void *y;
    int64_t ld_y;
};

static void embed_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows *s = arg;
    const struct lookup *l = s->args;
    const struct tensor *t = &l->table->tensor;
    const int64_t width = l->table->width;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        assert(l->index[i] >= 0 && l->index[i] < t->shape[0]);
        add_rows(s->cpu, t->dtype, cpu_element(t->data, l->index[i] * width, dtype_size_bytes(t->dtype)), NULL, l->add,
                 width, cpu_element_out(l->y, (l->dst_index ? l->dst_index[i] : i) * l->ld_y, s->element));
    }
}

int cpu_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index, const int32_t *dst_index,
              bool add, void *y, int64_t ld_y)
{
    share_rows(o, 16, n_rows, t->width, embed_some, &(struct lookup){t, index, dst_index, add, y, ld_y});
    return 0;
}
