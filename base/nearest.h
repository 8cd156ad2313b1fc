/* nearest.h - suggestions for mistyped words.
 *
 * Who may call: anyone.
 * Memory: the result is one of `words`.
 * Errors: none. */
#ifndef BLIPLINE_BASE_NEAREST_H
#define BLIPLINE_BASE_NEAREST_H

#include <stddef.h>

/* The word of the NULL-terminated list that is most like `typed`, or NULL if none is. A word that begins with `typed`
 * comes first. */
const char *nearest_word(const char *typed, const char *const *words);
/* Write "; did you mean BEFOREWORD?" to `ret`, or "" if no word is like `typed`. Returns `ret`. */
char *nearest_hint(const char *before, const char *typed, const char *const *words, char *ret, size_t ret_size);

#endif
