#include "tensor/cpu_matmul_private.h"

#include <stdlib.h>

/* oneDNN's relu is max(x, 0), which hides NaN and -inf. With a slope it multiplies values <= 0, so both survive; the
 * slope is too small for finite values to change a sum. */
static const float relu_slope = 0x1p-80f;

void cpu_matmul_md_free(cpu_matmul_md d)
{
#if DNNL_VERSION_MAJOR >= 3
    if (d)
        (void)dnnl_memory_desc_destroy(d);
#else
    free(d);
#endif
}

cpu_matmul_md cpu_matmul_md_new(dnnl_data_type_t type, int64_t rows, int64_t columns, int64_t row_stride,
                                int64_t column_stride)
{
    dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    dnnl_status_t status;
    cpu_matmul_md d = NULL;

#if DNNL_VERSION_MAJOR >= 3
    if (row_stride)
        status = dnnl_memory_desc_create_with_strides(&d, 2, dims, type, strides);
    else
        status = dnnl_memory_desc_create_with_tag(&d, 2, dims, type, dnnl_format_tag_any);
#else
    d = malloc(sizeof(*d));
    if (!d)
        return NULL;
    if (row_stride)
        status = dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides);
    else
        status = dnnl_memory_desc_init_by_tag(d, 2, dims, type, dnnl_format_tag_any);
#endif
    if (status != dnnl_success) {
        cpu_matmul_md_free(d);
        return NULL;
    }
    return d;
}

cpu_matmul_md cpu_matmul_md_of(const_dnnl_primitive_desc_t p, dnnl_query_t what)
{
    cpu_matmul_md d = NULL;

#if DNNL_VERSION_MAJOR >= 3
    if (dnnl_memory_desc_clone(&d, dnnl_primitive_desc_query_md(p, what, 0)) != dnnl_success)
        return NULL;
#else
    const dnnl_memory_desc_t *from = dnnl_primitive_desc_query_md(p, what, 0);

    d = malloc(sizeof(*d));
    if (d && from)
        *d = *from;
#endif
    return d;
}

static dnnl_status_t append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_eltwise(ops, kind, alpha, 0);
#else
    return dnnl_post_ops_append_eltwise(ops, 1, kind, alpha, 0);
#endif
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
#else
    return dnnl_post_ops_append_sum(ops, 1);
#endif
}

static dnnl_status_t matmul_desc_new(dnnl_engine_t engine, cpu_matmul_md x, cpu_matmul_md weight, cpu_matmul_md bias,
                                     cpu_matmul_md y, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *ret)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(ret, engine, x, weight, bias, y, attr);
#else
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, x, weight, bias, y);

    return status == dnnl_success ? dnnl_primitive_desc_create(ret, &desc, attr, engine, NULL) : status;
#endif
}

static dnnl_status_t attr_new(const struct cpu_matmul_shape *s, dnnl_primitive_attr_t *ret)
{
    static const dnnl_alg_kind_t kinds[] = {
        [OPS_ACT_RELU] = dnnl_eltwise_relu,
        [OPS_ACT_GELU_ERF] = dnnl_eltwise_gelu_erf,
        [OPS_ACT_GELU_TANH] = dnnl_eltwise_gelu_tanh,
    };
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);

    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success && s->act != OPS_ACT_NONE)
        status = append_eltwise(ops, kinds[s->act], s->act == OPS_ACT_RELU ? relu_slope : 0);
    if (status == dnnl_success && s->add_to_y)
        status = append_sum(ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    if (ops)
        (void)dnnl_post_ops_destroy(ops);
    if (status == dnnl_success)
        *ret = attr;
    else if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    return status;
}

dnnl_status_t cpu_matmul_desc(const struct cpu_matmul *m, const struct cpu_matmul_shape *s, cpu_matmul_md weight,
                              dnnl_primitive_desc_t *ret)
{
    cpu_matmul_md x = cpu_matmul_md_new(m->type, s->m, s->k, s->ld_x, 1);
    cpu_matmul_md y = cpu_matmul_md_new(s->y_f32 ? dnnl_f32 : m->type, s->m, s->n, s->ld_y, 1);
    cpu_matmul_md bias = s->has_bias ? cpu_matmul_md_new(dnnl_f32, 1, s->n, s->n, 1) : NULL;
    cpu_matmul_md any = weight ? NULL : cpu_matmul_md_new(m->type, s->k, s->n, 0, 0);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_out_of_memory;

    if (x && y && (bias || !s->has_bias) && (weight || any))
        status = attr_new(s, &attr);
    if (status == dnnl_success)
        status = matmul_desc_new(m->engine, x, weight ? weight : any, bias, y, attr, ret);
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    cpu_matmul_md_free(any);
    cpu_matmul_md_free(bias);
    cpu_matmul_md_free(y);
    cpu_matmul_md_free(x);
    return status;
}
