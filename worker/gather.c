#include "worker/gather.h"

#include "tensor/tensor.h"

#include <errno.h>
#include <stdbool.h>

static const struct msg_selection *selection_of(const struct worker_work *work, uint32_t tensor)
{
    for (uint32_t i = 0; i < work->n_selections; i++)
        if (work->selections[i].tensor == tensor)
            return &work->selections[i];
    return NULL;
}

static bool selected(const struct msg_selection *s, uint32_t row)
{
    return !s || (row / 8 < s->n_bytes && s->rows[row / 8] >> row % 8 & 1);
}

/* Is the tensor of `shape` with as many rows as there are items, or are as many of its rows selected? */
static int check_shape(const struct worker_work *work, const struct msg_tensor *d, const struct msg_selection *s,
                       uint32_t n_dims, const uint32_t *shape, struct err *err)
{
    uint32_t n_rows = 0;

    if (d->n_dims != n_dims)
        return err_set(err, -EINVAL, "tensor of %u dimensions, not %u", d->n_dims, n_dims);
    for (uint32_t i = 1; i < n_dims; i++)
        if (shape[i] != d->shape[i])
            return err_set(err, -EINVAL, "tensor: dimension %u is %u, not %u", i, d->shape[i], shape[i]);
    for (uint32_t i = 0; i < d->shape[0]; i++)
        n_rows += selected(s, i);
    if (n_rows != work->n_items || n_rows != shape[0])
        return err_set(err, -EINVAL, "tensor: %u rows for %u items", n_rows, work->n_items);
    return 0;
}

int worker_gather_f32(const struct worker_work *work, uint32_t tensor, uint32_t n_dims, const uint32_t *shape,
                      float *dst, struct err *err)
{
    const struct msg_selection *s = selection_of(work, tensor);
    const struct wire_tensor *t;
    const struct msg_tensor *d;
    size_t item_bytes, n = 1;
    uint32_t row = 0;
    int rc;

    if (tensor >= work->n_tensors)
        return err_set(err, -EINVAL, "%u tensors, one more is wanted", work->n_tensors);
    t = work->tensors[tensor];
    d = wire_tensor_desc(t);
    if (d->dtype != MSG_DTYPE_F32 && d->dtype != MSG_DTYPE_F16 && d->dtype != MSG_DTYPE_BF16)
        return err_set(err, -EINVAL, "tensor of %s, a float type is wanted", msg_dtype_word(d->dtype));
    rc = check_shape(work, d, s, n_dims, shape, err);
    if (rc == 0)
        rc = wire_tensor_verify(t, d->dtype, NULL, 0, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 1; i < n_dims; i++)
        n *= shape[i]; /* the tensor has this shape, so it is within MSG_MAX_TENSOR_BYTES */
    item_bytes = n * msg_dtype_bytes(d->dtype);
    for (uint32_t i = 0; i < wire_tensor_n_frames(t); i++) {
        size_t n_bytes;
        const uint8_t *at = wire_tensor_frame(t, i, &n_bytes);

        if (n_bytes % item_bytes)
            return err_set(err, -EBADMSG, "tensor: frame %u of %zu bytes is not cut between items", i, n_bytes);
        for (size_t k = 0; k < n_bytes; k += item_bytes, row++)
            if (selected(s, row)) {
                tensor_to_f32(dst, (enum dtype)d->dtype, at + k, n);
                dst += n;
            }
    }
    return 0;
}
