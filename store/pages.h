/* pages.h - checks that each page of an LMDB data file is in exactly one table or free. Inside store/ only.
 *
 * LMDB trusts its file: the next transaction overwrites a page that is both in a table and free. This code does not
 * call LMDB; it reads data version 1 (0.9.x) in this machine's word size. It checks every branch, leaf and overflow
 * page below the given meta page (numbers, flags, bounds, order of keys, counts), then the free list, then the
 * remaining pages. Values are not read: they have checksums.
 *
 * Who may call: any thread. Units: bytes. Memory: one byte per page during the call; nothing is kept.
 * Errors: damage is reported as problems. -ENOMEM; -ECANCELED if a callback stopped the check. */
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

/* `meta`: a copy of the first PAGES_META_BYTES of the meta page to start from; a writer may replace the page. */
int pages_check(const uint8_t *file, size_t size_bytes, const uint8_t meta[PAGES_META_BYTES],
                const struct pages_report *report, struct err *err) CHECK_RESULT;

#endif
