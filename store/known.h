/* known.h - the remaining items of a manifest as a multiset of hashes, with stamps of what may change.
 *
 * An item is identified by its path, or by source and key if the key is not the end of the path (rows of a list may
 * share a picture, and paths may change); without sources, by path and key. Two items with the same 128-bit hash count
 * as the same.
 * Who may call: one thread.
 * Units:  none. Memory: 56 bytes per entry, at most two thirds full; known_release. Errors: -ENOMEM. */
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

/* What has changed. Bits. */
enum known_change {
    KNOWN_FILE = 1,   /* size or time (0: unknown, not compared) */
    KNOWN_FIELDS = 2, /* names, values or their order */
    KNOWN_PATH = 4,   /* of an item identified by its key */
};

/* The state of the item's results. */
enum known_state { KNOWN_DONE, KNOWN_PENDING, KNOWN_FAILED /* to be retried */ };

struct known_found {
    uint64_t item; /* its number */
    enum known_state state;
    unsigned changed; /* bits of enum known_change; of items that share everything but their fields nothing is said of
                         those */
};

int known_add(struct known *k, const struct row_item *item, enum known_state state) CHECK_RESULT;
/* Take an item out if it is there: of several with the same hash, the one added first. */
bool known_take(struct known *k, const struct row_item *item, struct known_found *ret);
void known_release(struct known *k);

/* True if the walk's item is the manifest's item. */
bool known_same(const struct row_item *is, const struct row_item *was);
/* What has changed between two states of the same item. */
unsigned known_changes(const struct row_item *was, const struct row_item *is);

#endif
