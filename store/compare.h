/* compare.h - compares the items of a walk with the manifest of a store: which are new, and which to redo.
 *
 * An item that the manifest has n times is known n times. While walk and manifest are in the same order nothing is
 * remembered; from the first difference on, the rest of the manifest takes 56 bytes per item (store/known.h).
 * Who may call: one thread; with compare_attach the thread of the store.
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

/* True if an item that failed with this code is redone. */
bool compare_retries(const struct msg_comparison *o, const char *code);

/* Compare with a store as it is now; another process may have it open for writing. */
int compare_open(const char *path, const struct msg_comparison *o, struct compare **ret, struct err *err) CHECK_RESULT;
/* Compare with a store that is open here, within a write transaction: sources as in the transaction, items as
 * committed. Close it before the store. */
int compare_attach(struct store *s, const struct msg_comparison *o, struct compare **ret, struct err *err) CHECK_RESULT;
void compare_close(struct compare *c); /* NULL is allowed */
/* Set the root of a source, overriding the store. Call for numbers 1, 2, ... in order, before any rows. */
int compare_source(struct compare *c, uint32_t number, const char *root, struct err *err) CHECK_RESULT;

/* Row frames of the items to add or redo. */
struct compared_rows {
    struct buf fresh, again; /* new items; items of the manifest to redo, with their numbers */
    uint32_t n_fresh, n_again;
};
/* The next items of the walk: `rows` is a row frame of Item rows. Appends to *ret. -EINVAL, -EBADMSG: an invalid row;
 * the comparison cannot be continued. */
int compare_rows(struct compare *c, const void *rows, size_t size_bytes, uint32_t n_rows, struct compared_rows *ret,
                 struct err *err) CHECK_RESULT;
const struct msg_compared *compare_counts(const struct compare *c);

#endif
