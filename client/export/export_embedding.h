/* export_embedding.h - the embeddings of a store as a NumPy array, and the list that says whose each row is.
 *
 * query, itc: [items, Q, width]; itc of one row and cls: [items, width]; itc_text: [texts, width], a row a caption.
 * The list, PATH without ".npy" and with ".keys.jsonl", has a line a row: {"row", "item", "key"}, for itc_text also
 * "text" (its number among the item's captions) and "caption".
 * Who may call: one thread. Units: items. Memory: nothing is kept.
 * Errors: negative errno with err; both files are complete or not there. */
#ifndef BLIPLINE_CLIENT_EXPORT_EXPORT_EMBEDDING_H
#define BLIPLINE_CLIENT_EXPORT_EXPORT_EMBEDDING_H

#include "base/err.h"
#include "client/export/export_fields.h"
#include "store/reader.h"

#include <stdint.h>

struct export_embedding_counts {
    uint64_t n_items, n_rows; /* written */
    uint64_t n_without;       /* items without it: failed or not done yet */
    uint64_t n_damaged;
};

/* "query", "itc", "itc_text", "cls". -EINVAL. */
int export_embedding_parse(const char *word, enum msg_embedding *ret) CHECK_RESULT;
int export_embedding(struct reader *r, enum msg_embedding kind, const struct export_fields *fields, const char *path,
                     struct export_embedding_counts *ret, struct err *err) CHECK_RESULT;

#endif
