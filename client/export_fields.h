/* export_fields.h - what a row of an export says beside the results: where the picture is, and columns of its list.
 *
 * Who may call: one thread. Units: bytes; times as text in UTC. Memory: the reader must outlive the fields.
 * Errors: negative errno and `err`; -EINVAL names a field that is not there. */
#ifndef BLIPLINE_CLIENT_EXPORT_FIELDS_H
#define BLIPLINE_CLIENT_EXPORT_FIELDS_H

#include "base/err.h"
#include "proto/row.h"

#include <stdint.h>

struct json_t;
struct reader;

enum { EXPORT_MAX_FIELDS = 40 };

enum export_field_kind { EXPORT_COLUMN, EXPORT_SOURCE, EXPORT_PATH, EXPORT_SIZE, EXPORT_MTIME };

struct export_fields {
    const struct reader *reader;
    uint32_t n;
    struct export_field {
        enum export_field_kind kind;
        char name[MSG_NAME_SIZE];
    } list[EXPORT_MAX_FIELDS];
};

/* "path,size,url": names with commas between them. NULL: the source, where the store has several. */
int export_fields_parse(const char *names, struct reader *r, struct export_fields *ret, struct err *err) CHECK_RESULT;
/* The value that the item has: text, a number, a list of texts, null. NULL: no memory. */
struct json_t *export_field_value(const struct export_fields *fields, uint32_t i, const struct row_item *item);

/* The names that an option has, one after the other: 1: *ret_at and *ret_n are the next; 0: there are no more. */
int export_fields_next(const char **names, const char **ret_at, uint32_t *ret_n);
/* Is it one that every item has, whatever its list? */
int export_fields_is_own(const char *name, uint32_t n);

/* Bytes of any kind as a JSON string: U+FFFD for what is no UTF-8. NULL: no memory. */
struct json_t *export_text(const void *bytes, size_t n);

#endif
