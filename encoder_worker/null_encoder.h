/* null_encoder.h - device = null: features of the right shape without reading any image.
 *
 * Who may call: the compute thread.
 * Units: items; n_tokens x width numbers per image.
 * Memory: keeps none.
 * Errors: negative errno of worker_session_take. */
#ifndef BLIPLINE_ENCODER_WORKER_ENCODER_NULL_H
#define BLIPLINE_ENCODER_WORKER_ENCODER_NULL_H

#include "worker/worker.h"

#include <stdint.h>

/* Takes a unit, waiting if necessary, and answers it. 1: done; 0: none came in time. */
int null_run(struct worker *w, uint32_t n_tokens, uint32_t width) CHECK_RESULT;

#endif
