/* sampling.h - from logits to tokens for all sequences of a step: collects their options, calls the operator, holds the
 * results.
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  logits are device f32 [., vocab]; log-probabilities are natural logarithms.
 * Memory: grows to the largest step so far; results are valid until the next sampling_clear.
 * Errors: -ENOMEM, or those of the operators. A row without a finite value is not an error: see
 * sampling_result.none. */
#ifndef BLIPLINE_LLM_WORKER_SAMPLING_H
#define BLIPLINE_LLM_WORKER_SAMPLING_H

#include "llm_worker/request.h"

#include <stdint.h>

struct sampling;
struct ops;

struct sampling *sampling_new(int vocab); /* NULL if out of memory */
void sampling_free(struct sampling *s);
void sampling_clear(struct sampling *s);

/* Adds an entry for a sequence of `q` with row `logits_row`. Returns its number, or -ENOMEM. */
int sampling_add(struct sampling *s, const struct request *q, int sequence, int logits_row);
/* Runs all entries; those of adjacent rows share one call of the operator. */
int sampling_run(struct sampling *s, struct ops *o, const float *logits) CHECK_RESULT;
struct sampling_result sampling_get(const struct sampling *s, int entry);

#endif
