/* utf8.h - the little that tokenizers need to know about UTF-8.
 *
 * Who may call: anyone.
 * Units: bytes, code points.
 * Memory: borrowed.
 * Errors: see each; thread-safe. */
#ifndef BLIPLINE_MODEL_UTF8_H
#define BLIPLINE_MODEL_UTF8_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the character at p (n >= 1 bytes left) and its code point; where it is broken, the length of the part that
 * one U+FFFD replaces (Unicode's maximal subpart, at least 1) and *ret_cp = UTF8_BROKEN. */
#define UTF8_BROKEN UINT32_MAX
size_t utf8_step(const void *p, size_t n, uint32_t *ret_cp);
bool utf8_is_valid(const void *p, size_t n);
/* 1 to 4 bytes; cp is a Unicode scalar value. */
size_t utf8_encode(uint32_t cp, char out[4]);
/* Append with U+FFFD for what is broken. */
int utf8_append_lossy(struct buf *ret, const void *p, size_t n) CHECK_RESULT;
/* White_Space of Unicode. */
bool utf8_is_space(uint32_t cp);
/* Where the white space that ends at `at` begins, `from` at the earliest; where the one that begins at `at` ends. Valid
 * UTF-8. */
size_t utf8_spaces_before(const char *text, size_t from, size_t at);
size_t utf8_spaces_after(const char *text, size_t at, size_t n);

#endif
