#include "tensor/cuda/cuda.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* Loads n values of t to the device. */
static int load(struct cuda_ops *o, const struct tensor *t, enum dtype dtype, const char *what, void **ret,
                int64_t *ret_n, struct err *err)
{
    void *d_values = NULL;
    int64_t n = 0;
    int rc = tensor_n_elements(t, &n);

    assert(rc == 0 && n > 0);
    rc = (uint64_t)n > SIZE_MAX / sizeof(float) ? -ENOMEM
                                                : cuda_malloc(o, (size_t)n * dtype_size_bytes(dtype), &d_values);
    if (rc == 0)
        rc = cuda_load(o, d_values, dtype, t->data, t->dtype, (size_t)n);
    if (rc < 0) {
        char shape[64];

        cuda_free(o, d_values);
        return err_set(err, rc, "%s %s: %s", what, tensor_shape_text(t->n_dims, t->shape, shape, sizeof(shape)),
                       rc == -ENOMEM ? "out of device memory" : o->base.why.text);
    }
    *ret = d_values;
    *ret_n = n;
    return 0;
}

int cuda_vector_new(struct ops *base, const struct tensor *t, struct ops_vector **ret, struct err *err)
{
    struct ops_vector *v = (struct ops_vector *)calloc(1, sizeof(*v));
    void *d_values = NULL;
    int rc;

    if (!v)
        return err_set(err, -ENOMEM, "vector: out of memory");
    rc = load(cuda_of(base), t, DTYPE_F32, "vector", &d_values, &v->n, err);
    if (rc < 0) {
        free(v);
        return rc;
    }
    v->d_values = (float *)d_values;
    *ret = v;
    return 0;
}

void cuda_vector_free(struct ops *base, struct ops_vector *v)
{
    if (!v)
        return;
    cuda_free(cuda_of(base), v->d_values);
    free(v);
}

int cuda_table_new(struct ops *base, const struct tensor *t, struct ops_table **ret, struct err *err)
{
    struct ops_table *table = (struct ops_table *)calloc(1, sizeof(*table));
    int64_t n;
    int rc;

    assert(t->n_dims == 2);
    if (!table)
        return err_set(err, -ENOMEM, "table: out of memory");
    rc = load(cuda_of(base), t, base->act_dtype, "table", &table->d_values, &n, err);
    if (rc < 0) {
        free(table);
        return rc;
    }
    table->n_rows = t->shape[0];
    table->width = t->shape[1];
    *ret = table;
    return 0;
}

void cuda_table_free(struct ops *base, struct ops_table *t)
{
    if (!t)
        return;
    cuda_free(cuda_of(base), t->d_values);
    free(t);
}
