/* charsmap.h - SentencePiece's precompiled character map: a normalisation as a table in the tokenizer's file.
 *
 * base64 of: u32 size of the trie in bytes, a darts double array (u32 units), then NUL-ended UTF-8 strings that the
 * trie's values point into; all little endian.
 * Who may call: model/ only; immutable, any thread.
 * Units: bytes of valid UTF-8.
 * Memory: charsmap_free.
 * Errors: -EINVAL (a map that leads outside of itself), -ENOMEM, -EFBIG of the caller's buffer. */
#ifndef BLIPLINE_MODEL_CHARSMAP_H
#define BLIPLINE_MODEL_CHARSMAP_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

struct charsmap;

/* `where` is named in messages. */
int charsmap_parse(const char *base64, size_t n, const char *where, struct charsmap **ret,
                   struct err *err) CHECK_RESULT;
void charsmap_free(struct charsmap *m);
/* Append the text as the map has it. A grapheme under 6 bytes that begins with keys of the map becomes the value of the
 * shortest of them, all of it; otherwise each of its characters for itself. What has no key stays. */
int charsmap_apply(const struct charsmap *m, const char *text, size_t n, struct buf *ret) CHECK_RESULT;

#endif
