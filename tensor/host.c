#include "tensor/host.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { ALIGN = 64 };

void *host_alloc_aligned(size_t bytes)
{
    return bytes > SIZE_MAX - ALIGN ? NULL : aligned_alloc(ALIGN, (bytes + ALIGN) / ALIGN * ALIGN);
}

int host_alloc(struct ops *o, size_t bytes, void **ret)
{
    void *p = host_alloc_aligned(bytes);

    (void)o;
    if (!p)
        return -ENOMEM;
    *ret = p;
    return 0;
}

void host_release(struct ops *o, void *p)
{
    (void)o;
    free(p);
}

int host_convert(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    (void)o;
    tensor_convert(dst, dst_dtype, src, src_dtype, n);
    return 0;
}

int host_upload_begin(struct ops *o, void *dst, size_t n, void **ret_host)
{
    (void)o;
    (void)n;
    *ret_host = dst;
    return 0;
}

int host_download_start(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n, uint64_t *ret_ticket)
{
    *ret_ticket = 0;
    return host_convert(o, dst, dtype, src, dtype, n);
}

int host_download_wait(struct ops *o, uint64_t ticket)
{
    (void)o;
    (void)ticket;
    return 0;
}

int host_sync(struct ops *o)
{
    (void)o;
    return 0;
}

int host_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err)
{
    struct ops_vector *v = malloc(sizeof(*v));
    int64_t n;

    (void)o;
    if (!v || tensor_n_elements(t, &n) < 0 || n > (int64_t)(PTRDIFF_MAX / sizeof(float)) ||
        !(v->values = host_alloc_aligned((size_t)n * sizeof(float)))) {
        free(v);
        return err_set(err, -ENOMEM, "vector: out of memory");
    }
    v->n = n;
    tensor_to_f32(v->values, t->dtype, t->data, (size_t)n);
    *ret = v;
    return 0;
}

void host_vector_free(struct ops *o, struct ops_vector *v)
{
    (void)o;
    if (!v)
        return;
    free(v->values);
    free(v);
}

int host_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err)
{
    struct ops_table *table = malloc(sizeof(*table));

    (void)o;
    assert(t->n_dims == 2);
    if (!table)
        return err_set(err, -ENOMEM, "table: out of memory");
    *table = (struct ops_table){.tensor = *t, .width = t->shape[1]};
    *ret = table;
    return 0;
}

void host_table_free(struct ops *o, struct ops_table *t)
{
    (void)o;
    free(t);
}
