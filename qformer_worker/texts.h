/* texts.h - the texts of a unit that are compared with its images: captions from an earlier node, and item fields that
 * the recipe names.
 *
 * Who may call: the compute thread.
 * Units: tokens, including special ones; rows follow the work's items.
 * Memory: texts point into the work, the struct owns the ids; freed with unit_texts_release.
 * Errors: -ENOMEM, or those of the tokenizer. An invalid text of an item is an item_error, not an error here. */
#ifndef BLIPLINE_QFORMER_WORKER_TEXTS_H
#define BLIPLINE_QFORMER_WORKER_TEXTS_H

#include "base/err.h"
#include "model/tokenizer.h"
#include "wire/worker_session.h"
#include "worker/item_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct unit_text {
    uint32_t row;
    struct row_caption caption; /* as received; for a field's text `prompt` is the field's number in the recipe */
    bool has_ids; /* false: without any token, or with more or others than the model reads: it stays unscored. An item
                     whose given texts are all like that, with nothing else to score, has a problem */
    size_t first_id, n_ids;
};

struct unit_texts {
    struct unit_text *texts; /* by row; captions first, then fields in recipe order */
    size_t n, capacity;
    struct token_ids ids;
    struct item_error *errors; /* [n_items] */
};

/* `t` NULL (device null): no ids. max_text: the model's limit of tokens, including special ones; n_words: ids with
 * an embedding, which may be fewer than the tokenizer's. */
int unit_texts_collect(struct unit_texts *u, const struct worker_work *work, const struct tokenizer *t, int max_text,
                       int n_words, struct err *err) CHECK_RESULT;
void unit_texts_release(struct unit_texts *u);

#endif
