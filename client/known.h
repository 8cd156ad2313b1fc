/* known.h - which paths a manifest still holds, as a multiset of hashes with a stamp of size and time.
 *
 * Two paths with the same 128-bit hash are taken for one. Who may call: one thread.
 * Units:  none. Memory: 32 bytes an entry, at most two thirds full; known_release. Errors: -ENOMEM. */
#ifndef BLIPLINE_CLIENT_KNOWN_H
#define BLIPLINE_CLIENT_KNOWN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct known_entry;

struct known {
    struct known_entry *entries; /* NULL: empty */
    size_t n_slots, n_entries;
};

int known_add(struct known *k, const void *path, size_t path_bytes, uint64_t size_bytes, int64_t mtime_ns) CHECK_RESULT;
/* Is it there? Then once less. *ret_changed: with another size or time (0 in either place says nothing). */
bool known_take(struct known *k, const void *path, size_t path_bytes, uint64_t size_bytes, int64_t mtime_ns,
                bool *ret_changed);
void known_release(struct known *k);

#endif
