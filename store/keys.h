/* keys.h - hashes item keys for the table `keys`. Inside store/ only. Any thread, no memory, no errors. */
#ifndef BLIPLINE_STORE_KEYS_H
#define BLIPLINE_STORE_KEYS_H

#include <stddef.h>
#include <stdint.h>

enum { KEYS_HASH_BYTES = 16 };

/* XXH3-128, canonical (big endian), so that byte order is number order. */
void keys_hash(const void *key, size_t n_bytes, uint8_t ret[KEYS_HASH_BYTES]);

#endif
