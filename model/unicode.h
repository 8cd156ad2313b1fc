/* unicode.h - Unicode tables for tokenizers; only this file uses utf8proc.
 *
 * Who may call: model/ only; any thread.
 * Units: code points; bytes of valid UTF-8.
 * Memory: results are appended to the caller's buffer.
 * Errors: -ENOMEM, -EFBIG of that buffer. */
#ifndef BLIPLINE_MODEL_UNICODE_H
#define BLIPLINE_MODEL_UNICODE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Normal form D. Linear in the size of the text, also for a long run of combining marks. */
int unicode_decompose(const char *text, size_t n, struct buf *ret) CHECK_RESULT;
/* Size of the extended grapheme cluster that the text (n >= 1) begins with. */
size_t unicode_grapheme(const char *text, size_t n);
/* Lower case of one character by itself (no final sigma): 1 or 2 code points. */
size_t unicode_lower(uint32_t cp, uint32_t ret[2]);
bool unicode_is_control(uint32_t cp);     /* Cc, Cf, Co */
bool unicode_is_nonspacing(uint32_t cp);  /* Mn */
bool unicode_is_punctuation(uint32_t cp); /* P* */

#endif
