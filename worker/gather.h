/* gather.h - the numbers of a unit's tensor as f32, whatever type they travelled in.
 *
 * Who may call: the compute side, for a work it has taken.
 * Units: shapes in elements, shape[0] counts items. Memory: `dst` is the caller's.
 * Errors: -EINVAL for another type or shape than wanted, -EBADMSG for bytes that disagree with their checksum; err says
 *         which tensor. */
#ifndef BLIPLINE_WORKER_GATHER_H
#define BLIPLINE_WORKER_GATHER_H

#include "base/err.h"
#include "wire/worker_session.h"

#include <stdint.h>

/* Tensor number `tensor` of the work: verify its bytes, keep the rows of the work's items (a selection, where items have
 * failed since it was made), convert F32, F16 or BF16 to f32. `shape` is what is wanted, shape[0] =
 * work->n_items. dst: as many f32 as `shape` says; undefined on failure. */
int worker_gather_f32(const struct worker_work *work, uint32_t tensor, uint32_t n_dims, const uint32_t *shape,
                      float *dst, struct err *err) CHECK_RESULT;

#endif
