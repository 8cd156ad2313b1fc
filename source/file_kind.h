/* file_kind.h - names the kind of an unsupported file by its first bytes.
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

/* "a GIF picture", "an HTML page", "a text file" etc.; "of an unknown kind". */
const char *file_kind(const uint8_t *bytes, size_t n);

/* For a file that holds images or a table but is not supported: text with the cure, to follow the file's name; else
 * NULL. With `is_list` also for files that cannot be a list. */
const char *file_kind_foreign(const void *bytes, size_t n, bool is_list);

#endif
