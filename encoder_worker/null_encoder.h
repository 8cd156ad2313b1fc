/* null_encoder.h - device = null: features of the right shape without a picture being read.
 *
 * Who may call: the compute thread.
 * Units: items, numbers of a picture's features.
 * Memory: none stays.
 * Errors: negative errno of worker_session_take. */
#ifndef BLIPLINE_ENCODER_WORKER_ENCODER_NULL_H
#define BLIPLINE_ENCODER_WORKER_ENCODER_NULL_H

#include "worker/worker.h"

#include <stdint.h>

/* Take a unit, wait for it if need be, and answer it. 1: done; 0: there was none for a while. */
int null_run(struct worker *w, uint32_t n_tokens, uint32_t width) CHECK_RESULT;

#endif
