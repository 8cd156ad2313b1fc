/* problem.h - why one item of a unit cannot be done: it becomes the item's record, and the others go on.
 *
 * Who may call: one thread. Units: none. Memory: plain values; zeroed: no problem.
 * Errors: negative errno of the buffer. */
#ifndef BLIPLINE_WORKER_PROBLEM_H
#define BLIPLINE_WORKER_PROBLEM_H

#include "base/err.h"
#include "proto/row.h"

struct item_problem {
    const char *code; /* a word of [a-z0-9_-], for ever; NULL: the item is fine */
    char text[200];
};

/* The first problem of an item stands. */
void item_problem_set(struct item_problem *p, const char *code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The item's record. Borrows the problem's text. */
void item_problem_record(const struct item_problem *p, uint64_t item, struct row_record *ret);
/* row_record_append; where no row can hold the record (its texts are too long, or a number is not finite), that is the
 * item's problem, and an error of the others is avoided. *n_failed grows with each record that is an error. */
int item_record_append(struct buf *rows, const struct row_record *record, uint32_t *n_failed) CHECK_RESULT;

#endif
