/* gather.h - the numbers of a unit's tensor in the type that is wanted, whatever type they travelled in.
 *
 * Who may call: the compute side, for a work it has taken.
 * Units: shapes in elements, shape[0] counts items. Memory: the work's, and `dst`, which is the caller's.
 * Errors: -EINVAL for another type or shape than wanted, -EBADMSG for bytes that disagree with their checksum; err says
 *         which tensor. */
#ifndef BLIPLINE_WORKER_GATHER_H
#define BLIPLINE_WORKER_GATHER_H

#include "base/err.h"
#include "tensor/tensor.h"
#include "wire/worker_session.h"

#include <stdint.h>

/* Is tensor number `tensor` of the work of a float type, whole, and of `shape`, with a row for each of the work's items
 * (shape[0] = work->n_items) or a selection of as many? Reads every byte. */
int worker_gather_check(const struct worker_work *work, uint32_t tensor, uint32_t n_dims, const uint32_t *shape,
                        struct err *err) CHECK_RESULT;
/* Of a tensor that has been checked: the rows of items first .. first + n - 1 (a selection leaves those of failed ones
 * out) to dst, as F32, F16 or BF16. The same type is copied, another one converted. */
void worker_gather(const struct worker_work *work, uint32_t tensor, uint32_t first, uint32_t n, enum dtype dtype,
                   void *dst);

#endif
