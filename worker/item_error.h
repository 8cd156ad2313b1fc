/* item_error.h - why one item of a unit cannot be done: it becomes the item's record, and the others go on.
 *
 * Who may call: one thread. Units: none. Memory: plain values; zeroed: no problem.
 * Errors: negative errno of the buffer. */
#ifndef BLIPLINE_WORKER_ITEM_ERROR_H
#define BLIPLINE_WORKER_ITEM_ERROR_H

#include "base/err.h"
#include "proto/row.h"

struct item_error {
    const char *code; /* a word of [a-z0-9_-], for ever; NULL: the item is fine */
    char text[200];
};

/* The first problem of an item stands. */
void item_error_set(struct item_error *p, const char *code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The item's record. Borrows the problem's text. */
void item_error_record(const struct item_error *p, uint64_t item, struct row_record *ret);
/* row_record_append; where no row can hold the record (its texts are too long, or a number is not finite), that is the
 * item's problem, and an error of the others is avoided. *n_failed grows with each record that is an error. */
int item_record_append(struct buf *rows, const struct row_record *record, uint32_t *n_failed) CHECK_RESULT;

#endif
