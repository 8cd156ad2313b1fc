/* prompts.h - the prompts of a unit: the recipe's templates filled with each item's fields, as token ids.
 *
 * Who may call: the compute thread.
 * Units: rows follow the work's items; ids include special tokens.
 * Memory: the struct owns everything; freed with unit_prompts_release. Templates point into the work's recipe.
 * Errors: -ENOMEM; -EINVAL for a recipe that fails for every item; err says why. An invalid field of an item is an
 * item_error, not an error here. */
#ifndef BLIPLINE_LLM_WORKER_PROMPTS_H
#define BLIPLINE_LLM_WORKER_PROMPTS_H

#include "base/buf.h"
#include "base/err.h"
#include "model/config.h"
#include "model/tokenizer.h"
#include "wire/worker_session.h"
#include "worker/item_error.h"

#include <stddef.h>
#include <stdint.h>

struct unit_prompt {
    uint32_t row;
    uint32_t prompt; /* number of the template in the recipe; 0 if it has none */
    uint32_t number; /* index among the item's prompts; seeds sampling */
    size_t first_id, n_ids;
    size_t first_byte, n_bytes; /* of the rendered text; n_bytes 0 if it is the same for every item */
};

struct unit_prompts {
    struct unit_prompt *prompts; /* by row, then in recipe order */
    size_t n, capacity;
    struct token_ids ids;
    struct buf texts;
    struct item_error *errors; /* [n_items] */
};

/* `t` NULL (device null): no ids. */
int unit_prompts_collect(struct unit_prompts *u, const struct worker_work *work, const struct tokenizer *t,
                         const struct config *config, struct err *err) CHECK_RESULT;
void unit_prompts_release(struct unit_prompts *u);
#endif
