/* tensor_gather.h - the bytes of a tensor of the wire, verified, in one piece. Who may call: tests. Memory: dst is the
 * caller's. Errors: as wire_tensor_verify; -EINVAL: not dst_bytes. */
#ifndef BLIPLINE_TESTS_UNIT_TENSOR_GATHER_H
#define BLIPLINE_TESTS_UNIT_TENSOR_GATHER_H

#include "wire/tensor.h"

int tensor_gather(const struct wire_tensor *t, enum dtype dtype, const uint32_t *shape, uint32_t n_dims, void *dst,
                  size_t dst_bytes, struct err *err);

#endif
