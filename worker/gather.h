/* gather.h - copies rows of a received tensor, converted to the type that the model needs.
 *
 * Who may call: the compute thread, for a work it has taken.
 * Units: shapes in elements, shape[0] counts items.
 * Memory: the caller owns `dst`; nothing is allocated.
 * Errors: -EINVAL for a wrong type or shape, -EBADMSG for a checksum mismatch; err says what is wrong. */
#ifndef BLIPLINE_WORKER_GATHER_H
#define BLIPLINE_WORKER_GATHER_H

#include "base/err.h"
#include "tensor/tensor.h"
#include "wire/worker_session.h"

#include <stdint.h>

/* Checks tensor number `tensor` of the work: float type, checksum, and `shape`, with one row per item of the work
 * (shape[0] = work->n_items) or per selected item. Reads every byte. */
int worker_gather_check(const struct worker_work *work, uint32_t tensor, uint32_t n_dims, const uint32_t *shape,
                        struct err *err) CHECK_RESULT;
/* Copies the rows of items first .. first + n - 1 of a checked tensor to dst, converted to F32, F16 or BF16. Items
 * that failed earlier have no row and are skipped. */
void worker_gather(const struct worker_work *work, uint32_t tensor, uint32_t first, uint32_t n, enum dtype dtype,
                   void *dst);

#endif
