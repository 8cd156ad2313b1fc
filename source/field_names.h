/* field_names.h - the value of --fields: names with commas between them.
 *
 * Who may call: anyone.
 * Units: bytes.
 * Memory: names point into the option's value.
 * Errors: none. */
#ifndef BLIPLINE_SOURCE_FIELD_NAMES_H
#define BLIPLINE_SOURCE_FIELD_NAMES_H

#include <stdint.h>

/* What a name stands for: a column of a list, or what every item has. */
enum field_kind { FIELD_COLUMN, FIELD_SOURCE, FIELD_PATH, FIELD_SIZE, FIELD_MTIME };

/* One name after the other. 1: *ret_at and *ret_n are the next name; 0: there are no more. */
int field_names_next(const char **names, const char **ret_at, uint32_t *ret_n);
enum field_kind field_names_kind(const char *name, uint32_t n);

#endif
