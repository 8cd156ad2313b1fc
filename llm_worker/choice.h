/* choice.h - from logits to tokens: collects what each sequence of a pass wants, lets the operators choose, holds what
 * they found.
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  logits are device f32 [., vocab]; log-probabilities are natural logarithms.
 * Memory: grows to the largest step seen; results are valid until the next choice_clear.
 * Errors: -ENOMEM, or what the operators return. A row without a finite value to choose is no error: see `none`. */
#ifndef BLIPLINE_LLM_WORKER_CHOICE_H
#define BLIPLINE_LLM_WORKER_CHOICE_H

#include "llm_worker/group.h"

#include <stdint.h>

struct choice;
struct ops;

struct choice *choice_new(int vocab); /* NULL: no memory */
void choice_free(struct choice *c);
void choice_clear(struct choice *c);

/* What `strand` of `g` wants from row `logits_row`. Returns the number of the entry, or -ENOMEM. */
int choice_add(struct choice *c, const struct group *g, int strand, int logits_row);
/* Entries of neighbouring rows are chosen in one call of the operator. */
int choice_run(struct choice *c, struct ops *o, const float *logits) CHECK_RESULT;
struct group_choice choice_get(const struct choice *c, int entry);

#endif
