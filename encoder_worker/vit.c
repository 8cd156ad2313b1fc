#include "encoder_worker/vit.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "model/params.h"
#include "tensor/ops.h"

struct vit_layer {
    struct params_norm norm1, norm2;
    struct ops_weight *qkv, *projection, *fc1, *fc2;
};

struct vit {
    struct ops *o;
    uint64_t graph_number;
    struct config_vision shape;
    int max_batch;
    struct ops_patchify_args pixels; /* mean, std, rescale; the rest is set in each call */

    struct ops_weight *patch; /* [C, 3 * patch^2] */
    struct ops_vector *cls, *pos;
    struct vit_layer *layers;

    /* views of one slab; act_dtype, max_batch images */
    void *slab;
    void *x;              /* [B*P, C] the residual stream */
    void *h;              /* [B*P, C] */
    void *wide;           /* [B*P, max(3C, F, 3 patch^2)] */
    int32_t *start, *len; /* [B] the rows of each image */
};

static int load_layer(struct vit_layer *l, const struct params *p, const struct config_vision *s, int i)
{
    const char *at = "vision_model.encoder.layers";
    const int64_t c = s->width, f = s->ffn_width;
    char name[PARAMS_NAME_MAX];
    int rc;

    if ((rc = params_norm_load(p, params_name(name, "%s.%d.layer_norm1", at, i), c, &l->norm1)) < 0 ||
        (rc = params_norm_load(p, params_name(name, "%s.%d.layer_norm2", at, i), c, &l->norm2)) < 0)
        return rc;
    params_name(name, "%s.%d.self_attn.qkv", at, i);
    if ((rc = params_linear(p, name, 3 * c, c, s->qkv_bias, &l->qkv)) < 0)
        return rc;
    params_name(name, "%s.%d.self_attn.projection", at, i);
    if ((rc = params_linear(p, name, c, c, true, &l->projection)) < 0)
        return rc;
    if ((rc = params_linear(p, params_name(name, "%s.%d.mlp.fc1", at, i), f, c, true, &l->fc1)) < 0)
        return rc;
    return params_linear(p, params_name(name, "%s.%d.mlp.fc2", at, i), c, f, true, &l->fc2);
}

static int load_weights(struct vit *v, const struct params *p)
{
    const struct config_vision *s = &v->shape;
    const int64_t c = s->width;
    int rc;

    rc = params_patch(p, "vision_model.embeddings.patch_embedding", c, 3, s->patch_size, s->patch_size, &v->patch);
    if (rc < 0)
        return rc;
    rc = params_vector(p, "vision_model.embeddings.class_embedding", 3, (const int64_t[]){1, 1, c}, &v->cls);
    if (rc < 0)
        return rc;
    rc = params_vector(p, "vision_model.embeddings.position_embedding", 3, (const int64_t[]){1, s->n_tokens, c},
                       &v->pos);
    for (int i = 0; rc == 0 && i < s->n_layers; i++)
        rc = load_layer(&v->layers[i], p, s, i);
    return rc;
}

static int64_t max3(int64_t a, int64_t b, int64_t c)
{
    int64_t m = a > b ? a : b;

    return m > c ? m : c;
}

static int alloc_activations(struct vit *v, struct err *err)
{
    const struct config_vision *s = &v->shape;
    const int64_t wide = max3(3 * s->width, s->ffn_width, 3 * s->patch_size * s->patch_size);
    size_t size = dtype_size_bytes(v->o->act_dtype), narrow_bytes, total_bytes;

    if (__builtin_mul_overflow((size_t)v->max_batch * (size_t)s->n_tokens, (size_t)s->width * size, &narrow_bytes) ||
        __builtin_mul_overflow((size_t)v->max_batch * (size_t)s->n_tokens, (size_t)(2 * s->width + wide) * size,
                               &total_bytes))
        return err_set(err, -EOVERFLOW, "vision: a batch of %d images is too large", v->max_batch);
    narrow_bytes = (narrow_bytes + 63) / 64 * 64;
    v->start = calloc((size_t)v->max_batch, sizeof(*v->start));
    v->len = calloc((size_t)v->max_batch, sizeof(*v->len));
    if (!v->start || !v->len || v->o->f->alloc(v->o, total_bytes + 128, &v->slab) < 0)
        return err_set(err, -ENOMEM, "vision: no memory for %zu bytes of activations (batch %d)", total_bytes,
                       v->max_batch);
    v->x = v->slab;
    v->h = (char *)v->slab + narrow_bytes;
    v->wide = (char *)v->h + narrow_bytes;
    for (int i = 0; i < v->max_batch; i++) {
        v->start[i] = i * s->n_tokens;
        v->len[i] = s->n_tokens;
    }
    return 0;
}

int vit_new(struct ops *o, const struct checkpoint *c, int max_batch, struct vit **ret, struct err *err)
{
    struct vit *v = calloc(1, sizeof(*v));
    int rc;

    assert(max_batch >= 1);
    if (!v)
        return err_set(err, -ENOMEM, "no memory for the vision model");
    v->o = o;
    v->graph_number = params_graph_number();
    v->shape = c->config.vision;
    v->max_batch = max_batch;
    v->pixels.rescale = (float)c->config.pixels.rescale;
    for (int i = 0; i < 3; i++) {
        v->pixels.mean[i] = (float)c->config.pixels.mean[i];
        v->pixels.std[i] = (float)c->config.pixels.std[i];
    }
    v->layers = calloc((size_t)v->shape.n_layers, sizeof(*v->layers));
    rc = v->layers ? 0 : err_set(err, -ENOMEM, "no memory for the vision model");
    if (rc == 0)
        rc = load_weights(v, &(struct params){o, c, err, OPS_WEIGHT_FP8});
    if (rc == 0)
        rc = alloc_activations(v, err);
    if (rc < 0) {
        vit_free(v);
        return rc;
    }
    *ret = v;
    return 0;
}

void vit_free(struct vit *v)
{
    if (!v)
        return;
    const struct ops_funcs *f = v->o->f;

    for (int i = 0; v->layers && i < v->shape.n_layers; i++) {
        struct vit_layer *l = &v->layers[i];

        params_norm_free(v->o, &l->norm1);
        params_norm_free(v->o, &l->norm2);
        params_weight_free(v->o, &l->qkv);
        params_weight_free(v->o, &l->projection);
        params_weight_free(v->o, &l->fc1);
        params_weight_free(v->o, &l->fc2);
    }
    params_weight_free(v->o, &v->patch);
    params_vector_free(v->o, &v->cls);
    params_vector_free(v->o, &v->pos);
    f->release(v->o, v->slab);
    free(v->layers);
    free(v->start);
    free(v->len);
    free(v);
}

int vit_image_size(const struct vit *v)
{
    return v->shape.image_size;
}

int vit_n_tokens(const struct vit *v)
{
    return v->shape.n_tokens;
}

int vit_width(const struct vit *v)
{
    return v->shape.width;
}

/* pixels -> the rows of the patch product, in wide */
static int patchify(struct vit *v, int n, const uint8_t *rgb)
{
    struct ops_patchify_args a = v->pixels;

    a.n_images = n;
    a.image_size = v->shape.image_size;
    a.patch_size = v->shape.patch_size;
    a.rgb = rgb;
    a.y = v->wide;
    return v->o->f->patchify(v->o, &a);
}

/* wide -> x [n*P, C] */
static int embed(struct vit *v, int n)
{
    const struct config_vision *s = &v->shape;
    const int64_t n_patches = (int64_t)n * (s->n_tokens - 1), patch_len = 3 * s->patch_size * s->patch_size;
    int rc = params_apply(v->o, v->patch, n_patches, patch_len, s->width, v->wide, v->h, OPS_ACT_NONE, NULL);

    return rc < 0 ? rc : v->o->f->vit_embed(v->o, n, s->n_tokens, s->width, v->h, v->cls, v->pos, v->x);
}

/* x += projection(attention(norm1(x))) */
static int attend(struct vit *v, const struct vit_layer *l, int n)
{
    const struct config_vision *s = &v->shape;
    const int64_t rows = (int64_t)n * s->n_tokens, c = s->width;
    const size_t column = (size_t)c * dtype_size_bytes(v->o->act_dtype);
    struct ops_attention_args a = {
        .n_seqs = n,
        .n_heads = s->n_heads,
        .head_dim = s->head_dim,
        .scale = 1 / sqrtf((float)s->head_dim),
        .q = v->wide,
        .k = (char *)v->wide + column,
        .v = (char *)v->wide + 2 * column,
        .ld_q = 3 * c,
        .ld_k = 3 * c,
        .ld_v = 3 * c,
        .q_start = v->start,
        .q_len = v->len,
        .kv_start = v->start,
        .kv_len = v->len,
        .out = v->h,
        .ld_out = c,
    };
    int rc;

    if ((rc = params_norm_apply(v->o, &l->norm1, rows, c, s->eps, v->x, v->h, l->qkv)) < 0 ||
        (rc = params_apply(v->o, l->qkv, rows, c, 3 * c, v->h, v->wide, OPS_ACT_NONE, NULL)) < 0 ||
        (rc = v->o->f->attention(v->o, &a)) < 0)
        return rc;
    return params_apply(v->o, l->projection, rows, c, c, v->h, v->x, OPS_ACT_NONE, v->x);
}

/* x += fc2(gelu(fc1(norm2(x)))) */
static int feed_forward(struct vit *v, const struct vit_layer *l, int n)
{
    const struct config_vision *s = &v->shape;
    const int64_t rows = (int64_t)n * s->n_tokens, c = s->width, f = s->ffn_width;
    int rc;

    if ((rc = params_norm_apply(v->o, &l->norm2, rows, c, s->eps, v->x, v->h, l->fc1)) < 0 ||
        (rc = params_apply(v->o, l->fc1, rows, c, f, v->h, v->wide, OPS_ACT_GELU_ERF, NULL)) < 0)
        return rc;
    return params_apply(v->o, l->fc2, rows, f, c, v->wide, v->x, OPS_ACT_NONE, v->x);
}

/* Everything after patchify: the same calls for every batch of n images. */
static int run(struct vit *v, int n)
{
    int rc = ops_graph_begin(v->o, params_graph_key(v->graph_number, (const int64_t[]){n}, 1));

    if (rc < 0)
        return rc;
    rc = embed(v, n);
    for (int i = 0; rc == 0 && i < v->shape.n_layers; i++) {
        rc = attend(v, &v->layers[i], n);
        if (rc == 0)
            rc = feed_forward(v, &v->layers[i], n);
    }
    return params_graph_end(v->o, rc);
}

int vit_forward(struct vit *v, int n, const uint8_t *rgb, const void **ret)
{
    int rc;

    assert(n >= 1 && n <= v->max_batch);
    rc = patchify(v, n, rgb);
    if (rc == 0)
        rc = run(v, n);
    if (rc == -EAGAIN) /* the graph could not be captured */
        rc = run(v, n);
    if (rc < 0)
        return rc;
    *ret = v->x;
    return 0;
}
