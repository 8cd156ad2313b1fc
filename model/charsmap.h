/* charsmap.h - SentencePiece's precompiled_charsmap: a normalisation table in tokenizer.json.
 *
 * Format: base64 of the trie's size in bytes (u32), a darts double array (u32 units), then NUL-terminated UTF-8 strings
 * that the trie's values point to; all little-endian.
 * Who may call: model/ only; immutable, any thread.
 * Units: bytes of valid UTF-8.
 * Memory: freed with charsmap_free.
 * Errors: -EINVAL (malformed map), -ENOMEM, -EFBIG (the caller's buffer is full). */
#ifndef BLIPLINE_MODEL_CHARSMAP_H
#define BLIPLINE_MODEL_CHARSMAP_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

struct charsmap;

/* `where` is used in messages. */
int charsmap_parse(const char *base64, size_t n, const char *where, struct charsmap **ret,
                   struct err *err) CHECK_RESULT;
void charsmap_free(struct charsmap *m);
/* Appends the mapped text. If a grapheme under 6 bytes begins with a key, the value of the shortest such key
 * replaces the whole grapheme; otherwise each character is mapped by itself. Text without a key stays. */
int charsmap_apply(const struct charsmap *m, const char *text, size_t n, struct buf *ret) CHECK_RESULT;

#endif
