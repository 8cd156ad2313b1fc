/* prompts.h - the prompts of a unit: the recipe's templates with the fields of each item, as token ids.
 *
 * Who may call: the compute thread.
 * Units: rows are the work's items in order; ids with special tokens.
 * Memory: everything belongs to the struct; unit_prompts_release. Templates point into the work's recipe.
 * Errors: -ENOMEM; -EINVAL for a recipe that no item can be done with, err says why. What is wrong with an item's own
 *         fields is a problem of that item, and no error here. */
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
    uint32_t prompt; /* number of the template in the recipe; 0 where it has none */
    uint32_t number; /* among the item's prompts: what seeds sampling */
    size_t first_id, n_ids;
    size_t first_byte, n_bytes; /* of the rendered text; n_bytes 0 where it is the same for every item */
};

struct unit_prompts {
    struct unit_prompt *prompts; /* by row, then in the recipe's order */
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
