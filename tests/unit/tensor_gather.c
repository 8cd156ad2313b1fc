#include "tests/unit/tensor_gather.h"

#include <errno.h>
#include <string.h>

int tensor_gather(const struct wire_tensor *t, enum dtype dtype, const uint32_t *shape, uint32_t n_dims, void *dst,
                  size_t dst_bytes, struct err *err)
{
    uint8_t *to = dst;
    int rc;

    if (dst_bytes != wire_tensor_size_bytes(t))
        return err_set(err, -EINVAL, "%zu bytes wanted", dst_bytes);
    rc = wire_tensor_verify(t, dtype, shape, n_dims, err);
    for (uint32_t i = 0; rc == 0 && i < wire_tensor_n_frames(t); i++) {
        size_t n;
        const uint8_t *frame = wire_tensor_frame(t, i, &n);

        memcpy(to, frame, n);
        to += n;
    }
    return rc;
}
