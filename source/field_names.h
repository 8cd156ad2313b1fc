/* field_names.h - parses --fields: comma-separated names.
 *
 * Who may call: anyone.
 * Units: bytes.
 * Memory: names point into the option string.
 * Errors: none. */
#ifndef BLIPLINE_SOURCE_FIELD_NAMES_H
#define BLIPLINE_SOURCE_FIELD_NAMES_H

#include <stdint.h>

/* A column of a table, or a property that every item has. */
enum field_kind { FIELD_COLUMN, FIELD_SOURCE, FIELD_PATH, FIELD_SIZE, FIELD_MTIME };

/* Advances *names. Returns 1 and the next name in *ret_at and *ret_n, or 0 at the end. */
int field_names_next(const char **names, const char **ret_at, uint32_t *ret_n);
enum field_kind field_names_kind(const char *name, uint32_t n);

#endif
