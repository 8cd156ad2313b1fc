/* compare.h - the items of a walk against the manifest of a store: which are new, and which are to be done again.
 *
 * An item is known as often as the manifest has it. While walk and manifest are in the same order nothing is
 * remembered; from the first difference on, 56 bytes an item of the rest of the manifest (store/known.h).
 * Who may call: one thread; that of the store, with compare_attach.
 * Units:  items. Memory: compare_close. Errors: as store.h. */
#ifndef BLIPLINE_STORE_COMPARE_H
#define BLIPLINE_STORE_COMPARE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>

struct compare;
struct store;

/* Is an item that failed with this code done again? */
bool compare_retries(const struct msg_comparison *o, const char *code);

/* With a store as it is now, which may be open for writing in another process. */
int compare_open(const char *path, const struct msg_comparison *o, struct compare **ret, struct err *err) CHECK_RESULT;
/* With one that is open here, within a write transaction: its sources are those that the transaction sees, its items
 * those that are committed. Close it before the store. */
int compare_attach(struct store *s, const struct msg_comparison *o, struct compare **ret, struct err *err) CHECK_RESULT;
void compare_close(struct compare *c); /* NULL is fine */
/* The source of this number lies at `root`, whatever the store says. Numbers from 1 on, in order, before any rows. */
int compare_source(struct compare *c, uint32_t number, const char *root, struct err *err) CHECK_RESULT;

/* Rows of items, by what becomes of them. */
struct compared_rows {
    struct buf fresh, again; /* row frames: new items; items of the manifest that are done again, with their numbers */
    uint32_t n_fresh, n_again;
};
/* The next items of the walk: `rows` is a row frame of Item rows. Appends to *ret. -EINVAL, -EBADMSG: a row makes no
 * sense, and the comparison is of no more use. */
int compare_rows(struct compare *c, const void *rows, size_t size_bytes, uint32_t n_rows, struct compared_rows *ret,
                 struct err *err) CHECK_RESULT;
const struct msg_compared *compare_counts(const struct compare *c);

#endif
