/* file_kind.h - what a file is that is no picture or list that we read, by its first bytes.
 *
 * Who may call: any thread.
 * Units: bytes.
 * Memory: static.
 * Errors: none. */
#ifndef BLIPLINE_SOURCE_FILE_KIND_H
#define BLIPLINE_SOURCE_FILE_KIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "a GIF picture", "an HTML page", "a text file", ...; "of no kind that is known here". */
const char *file_kind(const uint8_t *bytes, size_t n);

/* What holds pictures or a table, but is not read here: words with the cure, to stand behind a name; NULL: nothing of
 * that kind. `is_list` asks for what cannot be a list either. */
const char *file_kind_foreign(const void *bytes, size_t n, bool is_list);

#endif
