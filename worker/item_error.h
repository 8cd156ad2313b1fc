/* item_error.h - the reason why one item of a unit failed. It becomes the item's record; other items are not affected.
 *
 * Who may call: one thread.
 * Units: none.
 * Memory: plain values; a zeroed one is "no error".
 * Errors: negative errno of the buffer. */
#ifndef BLIPLINE_WORKER_ITEM_ERROR_H
#define BLIPLINE_WORKER_ITEM_ERROR_H

#include "base/err.h"
#include "proto/row.h"

struct item_error {
    const char *code; /* a word of [a-z0-9_-] that never changes; NULL: no error */
    char text[200];
};

/* Sets the error unless the item already has one. */
void item_error_set(struct item_error *p, const char *code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Makes the item's record, which borrows the error's text. */
void item_error_record(const struct item_error *p, uint64_t item, struct row_record *ret);
/* Appends the record with row_record_append. An invalid record (text too long, a number not finite) is replaced by
 * an error of this item, so that the other items are not lost. *n_failed counts records that are errors. */
int item_record_append(struct buf *rows, const struct row_record *record, uint32_t *n_failed) CHECK_RESULT;

#endif
