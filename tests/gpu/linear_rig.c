#include "tests/gpu/linear_rig.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/device.h"

struct ops *linear_rig_open_fp8(void)
{
    const struct device_conf conf = {.device = "cuda:0",
                                     .cuda_library = getenv("BLIPLINE_TEST_CUDA_LIBRARY"),
                                     .n_threads = 2,
                                     .act_dtype = DTYPE_BF16,
                                     .fp8 = true,
                                     .memory_share = 0.3};
    struct ops *o = NULL;
    struct err err = {""};
    int rc = device_open(&conf, &o, &err);

    if (rc < 0 && rc != -ENOTSUP)
        fail_msg("%s", err.text);
    if (rc < 0) {
        printf("without fp8: %s\n", err.text);
        skip();
    }
    return o;
}

int64_t linear_case_ld_x(const struct linear_case *t)
{
    return t->k + t->pad;
}

int64_t linear_case_ld_y(const struct linear_case *t)
{
    return t->n + t->pad;
}

struct linear_inputs *linear_inputs_new(const struct ops *o, const struct linear_case *t)
{
    struct linear_inputs *in = malloc(sizeof(*in));
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    assert_non_null(in);
    *in = (struct linear_inputs){.n_x = (size_t)(t->m * linear_case_ld_x(t)),
                                 .n_y = (size_t)(t->m * linear_case_ld_y(t))};
    assert_int_equal(t->n % t->n_parts, 0);
    for (int i = 0; i < t->n_parts; i++) {
        enum dtype dtype = i == 0 ? t->dtype : dtypes[i];

        in->weight[i] = ops_rig_tensor(dtype, t->n / t->n_parts, t->k, 1 / sqrtf((float)t->k));
        in->bias[i] = ops_rig_tensor(dtype, t->n / t->n_parts, 0, 1);
        ops_rig_round(&in->weight[i], o->act_dtype);
        ops_rig_round(&in->bias[i], o->act_dtype);
        in->parts[i] = (struct ops_weight_part){&in->weight[i], t->bias ? &in->bias[i] : NULL};
    }
    in->x = ops_rig_random(o, in->n_x);
    for (int64_t r = 0; r < t->m; r++)
        for (int64_t c = t->k; c < linear_case_ld_x(t); c++)
            in->x[r * linear_case_ld_x(t) + c] = NAN;
    in->residual = ops_rig_random(o, in->n_y);
    return in;
}

void linear_inputs_free(struct linear_inputs *in)
{
    for (int i = 0; i < LINEAR_PARTS; i++) {
        free(in->weight[i].data);
        free(in->bias[i].data);
    }
    free(in->x);
    free(in->residual);
    free(in);
}

struct ops_weight *linear_weight(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags)
{
    struct ops_weight *w = NULL;
    struct err err = {""};

    if (o->f->weight_new(o, parts, n_parts, flags, &w, &err) < 0)
        fail_msg("%s", err.text);
    return w;
}

/* NaN, with the residual in it where it is added in place. */
static float *y_before(const struct linear_case *t, const struct linear_inputs *in)
{
    float *y = ops_rig_nan(in->n_y);

    if (t->residual == LINEAR_RESIDUAL_IN_PLACE)
        for (int64_t r = 0; r < t->m; r++)
            memcpy(y + r * linear_case_ld_y(t), in->residual + r * linear_case_ld_y(t), (size_t)t->n * sizeof(float));
    return y;
}

struct ops_linear_args linear_case_args(const struct linear_case *t, const struct ops_weight *w, const void *x, void *y,
                                        const void *residual)
{
    return (struct ops_linear_args){.weight = w,
                                    .n_rows = t->m,
                                    .x = x,
                                    .ld_x = linear_case_ld_x(t),
                                    .y = y,
                                    .ld_y = linear_case_ld_y(t),
                                    .y_f32 = t->y_f32,
                                    .act = t->act,
                                    .residual = t->residual == LINEAR_RESIDUAL_NONE    ? NULL
                                                : t->residual == LINEAR_RESIDUAL_OTHER ? residual
                                                                                       : y,
                                    .ld_residual = linear_case_ld_y(t)};
}

float *linear_case_reference(struct ops *ref, const struct linear_case *t, const struct linear_inputs *in)
{
    struct ops_weight *w = linear_weight(ref, in->parts, t->n_parts, 0);
    float *y = y_before(t, in);
    struct ops_linear_args a = linear_case_args(t, w, in->x, y, in->residual);

    assert_int_equal(ref->f->linear(ref, &a), 0);
    ref->f->weight_free(ref, w);
    return y;
}

static void *put_at(struct ops *o, const float *x, size_t n, int offset, bool f32)
{
    float *shifted = ops_rig_nan(n + (size_t)offset);
    void *d;

    memcpy(shifted + offset, x, n * sizeof(*x));
    d = f32 ? cuda_rig_put_f32(o, shifted, n + (size_t)offset) : cuda_rig_put(o, shifted, n + (size_t)offset);
    free(shifted);
    return d;
}

float *linear_case_run(struct ops *o, const struct linear_case *t, const struct linear_inputs *in)
{
    const size_t element = dtype_size_bytes(o->act_dtype), y_element = t->y_f32 ? 4 : element;
    struct ops_weight *w = linear_weight(o, in->parts, t->n_parts, t->flags);
    float *before = y_before(t, in), *out;
    void *x = put_at(o, in->x, in->n_x, t->offset, false), *y = put_at(o, before, in->n_y, t->offset, t->y_f32);
    void *residual = cuda_rig_put(o, in->residual, in->n_y);
    struct ops_linear_args a = linear_case_args(t, w, (char *)x + (size_t)t->offset * element,
                                                (char *)y + (size_t)t->offset * y_element, residual);

    if (o->f->linear(o, &a) < 0)
        fail_msg("linear: %s", o->why.text);
    out = t->y_f32 ? cuda_rig_take_f32(o, y, in->n_y + (size_t)t->offset)
                   : cuda_rig_take(o, y, in->n_y + (size_t)t->offset);
    for (int i = 0; i < t->offset; i++)
        assert_true(isnan(out[i]));
    memmove(out, out + t->offset, in->n_y * sizeof(*out));
    cuda_rig_drop(o, x);
    cuda_rig_drop(o, residual);
    o->f->weight_free(o, w);
    free(before);
    return out;
}

double linear_case_limit(const struct ops *o, const struct linear_case *t)
{
    return t->y_f32 ? 4e-6 : 2 * cuda_rig_limit(o);
}

double linear_case_distance(const struct linear_case *t, const float *out, const float *ref)
{
    return ops_rig_distance(out, ref, t->m, t->n, linear_case_ld_y(t));
}

/* Relative to the result, or to half of what the activation was computed from if that is larger: a relu may leave next
 * to nothing of what was rounded. */
static double limit_of_check(const struct cuda_rig *g, const struct ops *o, const struct linear_case *t,
                             const struct linear_inputs *in, const float *ref)
{
    struct linear_case before = *t;
    float *sums;
    double ret;

    before.act = OPS_ACT_NONE;
    sums = linear_case_reference(g->ref, &before, in);
    ret = linear_case_limit(o, t) * fmax(1, 0.5 * ops_rig_size(sums, t->m, t->n, linear_case_ld_y(t)) /
                                                fmax(ops_rig_size(ref, t->m, t->n, linear_case_ld_y(t)), 1e-30));
    free(sums);
    return ret;
}

void linear_case_check(const struct cuda_rig *g, struct ops *o, const struct linear_case *t)
{
    struct linear_inputs *in = linear_inputs_new(o, t);
    float *ref = linear_case_reference(g->ref, t, in), *out = linear_case_run(o, t, in);

    LINEAR_CASE_NEAR(o, out, ref, t, limit_of_check(g, o, t, in, ref), "linear");
    linear_inputs_free(in);
    free(ref);
    free(out);
}
