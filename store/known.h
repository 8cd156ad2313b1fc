/* known.h - which items a manifest still holds, as a multiset of hashes with stamps of what may change.
 *
 * An item is its path, or its key within its source where that is a name of its own and no part of the path: rows of a
 * list may share a picture, and paths may change. Items of stores that know no sources are path and key then. Two items
 * with the same 128-bit hash are taken for one.
 * Who may call: one thread.
 * Units:  none. Memory: 56 bytes an entry, at most two thirds full; known_release. Errors: -ENOMEM. */
#ifndef BLIPLINE_STORE_KNOWN_H
#define BLIPLINE_STORE_KNOWN_H

#include "base/err.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct known_entry;

struct known {
    struct known_entry *entries; /* NULL: empty */
    size_t n_slots, n_entries;
};

/* What is not as it was. Bits. */
enum known_change {
    KNOWN_FILE = 1,   /* size or time (0 in either place says nothing) */
    KNOWN_FIELDS = 2, /* names, values or their order */
    KNOWN_PATH = 4,   /* of an item that is known by a key of its own */
};

/* What the store says of the item's results. */
enum known_state { KNOWN_DONE, KNOWN_PENDING, KNOWN_FAILED /* for a reason that is tried again */ };

struct known_found {
    uint64_t item; /* its number */
    enum known_state state;
    unsigned changed; /* bits of enum known_change; of items that share everything but their fields nothing is said of
                         those */
};

int known_add(struct known *k, const struct row_item *item, enum known_state state) CHECK_RESULT;
/* Is it there? Then once less: of several of one hash the one that was added first. */
bool known_take(struct known *k, const struct row_item *item, struct known_found *ret);
void known_release(struct known *k);

/* Is what a walk found the item of the manifest? */
bool known_same(const struct row_item *is, const struct row_item *was);
/* Of the same item. */
unsigned known_changes(const struct row_item *was, const struct row_item *is);

#endif
