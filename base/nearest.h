/* nearest.h - what a mistyped word was probably meant to be.
 *
 * Who may call: anyone.
 * Memory: the result is one of `words`.
 * Errors: none. */
#ifndef BLIPLINE_BASE_NEAREST_H
#define BLIPLINE_BASE_NEAREST_H

#include <stddef.h>

/* The word of the NULL-ended list that is nearest to `typed` (one that begins with it is nearest of all); NULL when
 * none is near. */
const char *nearest_word(const char *typed, const char *const *words);
/* The same as part of a sentence: "; did you mean WORD?" (with what stands before words of this kind), or "" when none
 * is near. Returns `ret`. */
char *nearest_hint(const char *before, const char *typed, const char *const *words, char *ret, size_t ret_size);

#endif
