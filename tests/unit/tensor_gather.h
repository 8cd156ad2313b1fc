/* tensor_gather.h - copies the verified bytes of a received tensor to one buffer. Who may call: tests. Memory: the
 * caller owns dst. Errors: as wire_tensor_verify; -EINVAL if the size is not dst_bytes. */
#ifndef BLIPLINE_TESTS_UNIT_TENSOR_GATHER_H
#define BLIPLINE_TESTS_UNIT_TENSOR_GATHER_H

#include "wire/tensor.h"

int tensor_gather(const struct wire_tensor *t, enum dtype dtype, const uint32_t *shape, uint32_t n_dims, void *dst,
                  size_t dst_bytes, struct err *err);

#endif
