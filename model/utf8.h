/* utf8.h - UTF-8 for tokenizers.
 *
 * Who may call: anyone.
 * Units: bytes, code points.
 * Memory: borrowed.
 * Errors: see each function. */
#ifndef BLIPLINE_MODEL_UTF8_H
#define BLIPLINE_MODEL_UTF8_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length and code point of the character at p (n >= 1 bytes left). If it is malformed: the length of the part
 * that one U+FFFD replaces (Unicode's maximal subpart, at least 1) and *ret_cp = UTF8_BROKEN. */
#define UTF8_BROKEN UINT32_MAX
size_t utf8_step(const void *p, size_t n, uint32_t *ret_cp);
bool utf8_is_valid(const void *p, size_t n);
/* 1 to 4 bytes; cp is a Unicode scalar value. */
size_t utf8_encode(uint32_t cp, char out[4]);
/* Appends the text; malformed parts become U+FFFD. */
int utf8_append_lossy(struct buf *ret, const void *p, size_t n) CHECK_RESULT;
/* Unicode's White_Space property. */
bool utf8_is_space(uint32_t cp);
/* The start of the white space that ends at `at`, not before `from`; the end of the white space that begins at `at`.
 * The text must be valid UTF-8. */
size_t utf8_spaces_before(const char *text, size_t from, size_t at);
size_t utf8_spaces_after(const char *text, size_t at, size_t n);

#endif
