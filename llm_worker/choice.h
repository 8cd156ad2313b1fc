/* choice.h - from logits to the next token. Greedy: the largest logit, the lowest id on ties.
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  logits are device f32 [n, vocab]; log-probabilities are natural logarithms of the unprocessed softmax.
 * Memory: results go to the caller's host arrays. Errors: what the operators return. */
#ifndef BLIPLINE_LLM_WORKER_CHOICE_H
#define BLIPLINE_LLM_WORKER_CHOICE_H

#include "base/err.h"

#include <stdint.h>

struct ops;

int choice_greedy(struct ops *o, int n, int vocab, const float *logits, int32_t *ret_ids,
                  float *ret_logprob) CHECK_RESULT;

#endif
