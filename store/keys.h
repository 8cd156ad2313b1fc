/* keys.h - the table `keys`: hashes of item keys, and a check of all entries.
 *
 * Who may call: store/ only, any thread. Memory: the caller's. Errors: negative errno; err names the store. */
#ifndef BLIPLINE_STORE_KEYS_H
#define BLIPLINE_STORE_KEYS_H

#include "store/env.h"

#include <stddef.h>
#include <stdint.h>

enum { KEYS_HASH_BYTES = 16 };

/* XXH3-128, canonical (big endian), so that byte order is number order. */
void keys_hash(const void *key, size_t n_bytes, uint8_t ret[KEYS_HASH_BYTES]);
/* Compare the entries for the first `covered` items with their sum in meta. -EBADMSG: they differ. 0 if a store of an
 * older version has no sum. */
int keys_check(const struct env *e, MDB_txn *txn, uint64_t covered, const char *path, struct err *err) CHECK_RESULT;

#endif
