/* pages.h - is each page of an LMDB data file in one table, or in the free list, and in one place only? Inside store/.
 *
 * LMDB itself trusts what it maps: a page that is in a table and in the free list too is written over by the next
 * transaction. Nothing here calls LMDB; the format is that of its data version 1 (0.9.x), of this machine's word size.
 * Looked at is every branch, leaf and overflow page that the given meta page leads to: numbers, flags, bounds, order of
 * keys, counts; then the free list; then what is in neither. Values are not read: they have their own checksums.
 *
 * Who may call: any thread. Units: bytes. Memory: one byte a page during the call; nothing is kept.
 * Errors: a file may hold anything, and that is a problem to be told, never an error: -ENOMEM, or -ECANCELED when a
 * callback stopped the walk. */
#ifndef BLIPLINE_STORE_PAGES_H
#define BLIPLINE_STORE_PAGES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGES_META_BYTES = 168 }; /* of a meta page, as far as it is used; room for those of any machine */

struct pages_report {
    bool (*problem)(void *arg, const char *text); /* returns false to stop */
    void *arg;
};

/* `meta`: the first PAGES_META_BYTES of the meta page to begin at, which a writer may be about to replace. */
int pages_check(const uint8_t *file, size_t size_bytes, const uint8_t meta[PAGES_META_BYTES],
                const struct pages_report *report, struct err *err) CHECK_RESULT;

#endif
