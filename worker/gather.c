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

/* Checks the shape, and that the tensor's rows, or the selected rows, match the items. */
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

static size_t row_elements(const struct msg_tensor *d)
{
    size_t n = 1;

    for (uint32_t i = 1; i < d->n_dims; i++)
        n *= d->shape[i]; /* the caller limits tensors to MSG_MAX_TENSOR_BYTES */
    return n;
}

/* Checks that no row spans two frames. */
static int check_frames(const struct wire_tensor *t, size_t row_bytes, struct err *err)
{
    for (uint32_t i = 0; i < wire_tensor_n_frames(t); i++) {
        size_t n_bytes;

        (void)wire_tensor_frame(t, i, &n_bytes);
        if (n_bytes % row_bytes)
            return err_set(err, -EBADMSG, "tensor: frame %u of %zu bytes does not end between two items", i, n_bytes);
    }
    return 0;
}

int worker_gather_check(const struct worker_work *work, uint32_t tensor, uint32_t n_dims, const uint32_t *shape,
                        struct err *err)
{
    const struct wire_tensor *t;
    const struct msg_tensor *d;
    int rc;

    if (tensor >= work->n_tensors)
        return err_set(err, -EINVAL, "%u tensors, expected one more", work->n_tensors);
    t = work->tensors[tensor];
    d = wire_tensor_desc(t);
    if (d->dtype != DTYPE_F32 && d->dtype != DTYPE_F16 && d->dtype != DTYPE_BF16)
        return err_set(err, -EINVAL, "tensor of %s, expected a float type", dtype_word(d->dtype));
    rc = check_shape(work, d, selection_of(work, tensor), n_dims, shape, err);
    if (rc == 0)
        rc = wire_tensor_verify(t, d->dtype, NULL, 0, err);
    return rc < 0 ? rc : check_frames(t, row_elements(d) * dtype_size_bytes(d->dtype), err);
}

void worker_gather(const struct worker_work *work, uint32_t tensor, uint32_t first, uint32_t n, enum dtype dtype,
                   void *dst)
{
    const struct msg_selection *s = selection_of(work, tensor);
    const struct wire_tensor *t = work->tensors[tensor];
    const struct msg_tensor *d = wire_tensor_desc(t);
    const size_t len = row_elements(d), from_bytes = len * dtype_size_bytes(d->dtype);
    const size_t to_bytes = len * dtype_size_bytes(dtype);
    uint32_t row = 0, item = 0; /* row of the tensor; index among the selected rows */

    for (uint32_t i = 0; i < wire_tensor_n_frames(t) && item < first + n; i++) {
        size_t n_bytes;
        const uint8_t *at = wire_tensor_frame(t, i, &n_bytes);

        for (size_t k = 0; k < n_bytes; k += from_bytes, row++) {
            if (!selected(s, row) || item++ < first)
                continue;
            if (item > first + n)
                return;
            tensor_convert((char *)dst + (size_t)(item - 1 - first) * to_bytes, dtype, at + k, d->dtype, len);
        }
    }
}
