/* sampling.h - from logits to tokens, for all sequences of a step: collects their options, calls the operator, keeps
 * the results.
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  logits are device f32 [., vocab]; log-probabilities are natural logarithms.
 * Memory: grows to the largest step so far; results are valid until the next sampling_clear.
 * Errors: -ENOMEM, or what the operators return. A row without a finite value is no error: see `none`. */
#ifndef BLIPLINE_LLM_WORKER_SAMPLING_H
#define BLIPLINE_LLM_WORKER_SAMPLING_H

#include "llm_worker/request.h"

#include <stdint.h>

struct sampling;
struct ops;

struct sampling *sampling_new(int vocab); /* NULL: no memory */
void sampling_free(struct sampling *s);
void sampling_clear(struct sampling *s);

/* Sample for a sequence of `q` from row `logits_row`. Returns the number of the entry, or -ENOMEM. */
int sampling_add(struct sampling *s, const struct request *q, int sequence, int logits_row);
/* Entries of neighbouring rows share one call of the operator. */
int sampling_run(struct sampling *s, struct ops *o, const float *logits) CHECK_RESULT;
struct sampling_result sampling_get(const struct sampling *s, int entry);

#endif
