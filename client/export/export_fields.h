/* export_fields.h - what a row of an export says beside the results: where the picture is, and columns of its list.
 *
 * Who may call: one thread. Units: bytes; times as text in UTC. Memory: the reader must outlive the fields.
 * Errors: negative errno and `err`; -EINVAL names a field that is not there. */
#ifndef BLIPLINE_CLIENT_EXPORT_EXPORT_FIELDS_H
#define BLIPLINE_CLIENT_EXPORT_EXPORT_FIELDS_H

#include "base/err.h"
#include "proto/row.h"
#include "source/field_names.h"

#include <stdint.h>

struct json_t;
struct reader;

enum { EXPORT_MAX_FIELDS = 40 };

struct export_fields {
    const struct reader *reader;
    uint32_t n;
    struct export_field {
        enum field_kind kind;
        char name[MSG_NAME_SIZE];
    } list[EXPORT_MAX_FIELDS];
};

/* "path,size,url": names with commas between them. NULL: the source, where the store has several. */
int export_fields_parse(const char *names, struct reader *r, struct export_fields *ret, struct err *err) CHECK_RESULT;
/* The value that the item has: text, a number, a list of texts, null. NULL: no memory. */
struct json_t *export_field_value(const struct export_fields *fields, uint32_t i, const struct row_item *item);

/* Bytes of any kind as a JSON string: U+FFFD for what is no UTF-8. NULL: no memory. */
struct json_t *export_text(const void *bytes, size_t n);

#endif
