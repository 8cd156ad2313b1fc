#include "model/params.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

const char *params_name(char buf[PARAMS_NAME_MAX], const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, PARAMS_NAME_MAX, fmt, ap);
    va_end(ap);
    assert(n >= 0 && n < PARAMS_NAME_MAX);
    return buf;
}

int params_linear(const struct params *p, const char *name, int64_t n, int64_t k, bool bias, struct ops_weight **ret)
{
    return params_stacked(p, name, 1, (const char *const[]){""}, n, k, bias, ret);
}

int params_stacked(const struct params *p, const char *prefix, int n_parts, const char *const *suffixes, int64_t n,
                   int64_t k, bool bias, struct ops_weight **ret)
{
    struct tensor weights[PARAMS_MAX_PARTS], biases[PARAMS_MAX_PARTS];
    struct ops_weight_part parts[PARAMS_MAX_PARTS] = {0};
    char name[PARAMS_NAME_MAX];
    int rc;

    assert(n_parts >= 1 && n_parts <= PARAMS_MAX_PARTS);
    for (int i = 0; i < n_parts; i++) {
        params_name(name, "%s%s.weight", prefix, suffixes[i]);
        if ((rc = checkpoint_get_2d(p->c, name, n, k, &weights[i], p->err)) < 0)
            return rc;
        params_name(name, "%s%s.bias", prefix, suffixes[i]);
        if (bias && (rc = checkpoint_get_1d(p->c, name, n, &biases[i], p->err)) < 0)
            return rc;
        parts[i] = (struct ops_weight_part){&weights[i], bias ? &biases[i] : NULL};
    }
    if ((rc = p->o->f->weight_new(p->o, parts, n_parts, p->weight_flags, ret, p->err)) < 0)
        return err_prefix(p->err, rc, "%s%s", prefix, suffixes[0]);
    for (int i = 0; i < n_parts; i++)
        checkpoint_drop(p->c, params_name(name, "%s%s.weight", prefix, suffixes[i]));
    return 0;
}

int params_patch(const struct params *p, const char *name, int64_t n, int64_t c, int64_t h, int64_t w,
                 struct ops_weight **ret)
{
    struct tensor weight, bias;
    char full[PARAMS_NAME_MAX];
    int rc;

    params_name(full, "%s.bias", name);
    if ((rc = checkpoint_get_1d(p->c, full, n, &bias, p->err)) < 0)
        return rc;
    params_name(full, "%s.weight", name);
    if ((rc = checkpoint_get(p->c, full, 4, (const int64_t[]){n, c, h, w}, &weight, p->err)) < 0)
        return rc;
    weight.n_dims = 2;
    weight.shape[1] = c * h * w;
    rc = p->o->f->weight_new(p->o, &(struct ops_weight_part){&weight, &bias}, 1, 0, ret, p->err);
    if (rc < 0)
        return err_prefix(p->err, rc, "%s", name);
    checkpoint_drop(p->c, full);
    return 0;
}

int params_vector(const struct params *p, const char *name, int n_dims, const int64_t *shape, struct ops_vector **ret)
{
    struct tensor t;
    int rc = checkpoint_get(p->c, name, n_dims, shape, &t, p->err);

    if (rc < 0)
        return rc;
    for (int i = 1; i < t.n_dims; i++)
        t.shape[0] *= t.shape[i];
    t.n_dims = 1;
    rc = p->o->f->vector_new(p->o, &t, ret, p->err);
    return rc < 0 ? err_prefix(p->err, rc, "%s", name) : 0;
}

int params_norm_load(const struct params *p, const char *name, int64_t n, struct params_norm *ret)
{
    struct params_norm norm = {0};
    char full[PARAMS_NAME_MAX];
    int rc;

    rc = params_vector(p, params_name(full, "%s.weight", name), 1, &n, &norm.gamma);
    if (rc == 0)
        rc = params_vector(p, params_name(full, "%s.bias", name), 1, &n, &norm.beta);
    if (rc < 0) {
        params_norm_free(p->o, &norm);
        return rc;
    }
    *ret = norm;
    return 0;
}

int params_rms_load(const struct params *p, const char *name, int64_t n, float scale, struct params_norm *ret)
{
    struct ops_vector *gamma = NULL;
    char full[PARAMS_NAME_MAX];
    struct tensor t;
    float *scaled;
    int rc;

    params_name(full, "%s.weight", name);
    if (scale == 1) {
        rc = params_vector(p, full, 1, &n, &gamma);
        if (rc == 0)
            *ret = (struct params_norm){.gamma = gamma};
        return rc;
    }
    if ((rc = checkpoint_get_1d(p->c, full, n, &t, p->err)) < 0)
        return rc;
    scaled = malloc((size_t)n * sizeof(float));
    if (!scaled)
        return err_set(p->err, -ENOMEM, "%s: no memory", full);
    tensor_to_f32(scaled, t.dtype, t.data, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        scaled[i] *= scale;
    t.dtype = DTYPE_F32;
    t.data = scaled;
    rc = p->o->f->vector_new(p->o, &t, &gamma, p->err);
    free(scaled);
    if (rc < 0)
        return err_prefix(p->err, rc, "%s", full);
    *ret = (struct params_norm){.gamma = gamma};
    return 0;
}

void params_norm_free(struct ops *o, struct params_norm *n)
{
    params_vector_free(o, &n->gamma);
    params_vector_free(o, &n->beta);
}

void params_weight_free(struct ops *o, struct ops_weight **w)
{
    if (*w)
        o->f->weight_free(o, *w);
    *w = NULL;
}

void params_vector_free(struct ops *o, struct ops_vector **v)
{
    if (*v)
        o->f->vector_free(o, *v);
    *v = NULL;
}

void params_table_free(struct ops *o, struct ops_table **t)
{
    if (*t)
        o->f->table_free(o, *t);
    *t = NULL;
}

int params_table(const struct params *p, const char *name, int64_t rows, int64_t width, struct ops_table **ret)
{
    char full[PARAMS_NAME_MAX];
    struct tensor t;
    int rc;

    params_name(full, "%s.weight", name);
    if ((rc = checkpoint_get_2d(p->c, full, rows, width, &t, p->err)) < 0)
        return rc;
    rc = p->o->f->table_new(p->o, &t, ret, p->err);
    return rc < 0 ? err_prefix(p->err, rc, "%s", full) : 0;
}

int params_apply(struct ops *o, const struct ops_weight *w, int64_t n_rows, int64_t k, int64_t n, const void *x,
                 void *y, enum ops_act act, const void *residual)
{
    if (o->alive)
        o->alive(o->alive_arg);
    return o->f->linear(o, &(struct ops_linear_args){.weight = w,
                                                     .n_rows = n_rows,
                                                     .x = x,
                                                     .ld_x = k,
                                                     .y = y,
                                                     .ld_y = n,
                                                     .act = act,
                                                     .residual = residual,
                                                     .ld_residual = n});
}

int params_norm_apply(struct ops *o, const struct params_norm *norm, int64_t n_rows, int64_t width, float eps,
                      const void *x, void *y, const struct ops_weight *consumer)
{
    return o->f->norm(o, &(struct ops_norm_args){.n_rows = n_rows,
                                                 .width = width,
                                                 .x = x,
                                                 .ld_x = width,
                                                 .y = y,
                                                 .ld_y = width,
                                                 .gamma = norm->gamma,
                                                 .beta = norm->beta,
                                                 .eps = eps,
                                                 .consumer = consumer});
}

int params_graph_end(struct ops *o, int rc)
{
    const int ended = ops_graph_end(o);

    return rc < 0 ? rc : ended;
}

uint64_t params_graph_number(void)
{
    static _Atomic uint64_t last;

    return ++last;
}

uint64_t params_graph_key(uint64_t graph_number, const int64_t *numbers, int n_numbers)
{
    return XXH3_64bits_withSeed(numbers, (size_t)n_numbers * sizeof(*numbers), graph_number);
}
