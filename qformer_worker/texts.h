/* texts.h - the texts of a unit that are compared with its images: captions that an earlier node wrote, and fields of
 * the items that the recipe names.
 *
 * Who may call: the compute thread.
 * Units: tokens with the special ones; rows are the work's items in order.
 * Memory: texts point into the work, ids belong to the struct; unit_texts_release.
 * Errors: -ENOMEM, or what the tokenizer gives. What is wrong with an item's own texts is a problem of that item, and
 *         no error here. */
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
    struct row_caption caption; /* as it came; a field's text: given, `prompt` is the field's number in the recipe */
    bool has_ids; /* false: without any token, or with more or others than the model reads: it stays unscored. An item
                     whose given texts are all like that, with nothing else to score, has a problem */
    size_t first_id, n_ids;
};

struct unit_texts {
    struct unit_text *texts; /* by row; captions first, then fields in the order of the recipe */
    size_t n, capacity;
    struct token_ids ids;
    struct item_error *errors; /* [n_items] */
};

/* `t` NULL (device null): no ids. max_text: tokens that the model reads, special ones included; n_words: ids that it
 * knows, which may be fewer than its tokenizer has. */
int unit_texts_collect(struct unit_texts *u, const struct worker_work *work, const struct tokenizer *t, int max_text,
                       int n_words, struct err *err) CHECK_RESULT;
void unit_texts_release(struct unit_texts *u);

#endif
