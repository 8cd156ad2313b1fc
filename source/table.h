/* table.h - shared by source/table*.c, which read tables (JSONL, CSV, TSV).
 *
 * Who may call: source/ only.
 * Units: bytes.
 * Memory: a row's values are in `row_bytes`, valid until the next row.
 * Errors: negative errno; err names file and line. */
#ifndef BLIPLINE_SOURCE_TABLE_H
#define BLIPLINE_SOURCE_TABLE_H

#include "base/arena.h"
#include "source/lines.h"
#include "source/source_kinds.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct table;

struct table_value {
    const char *text; /* NUL-terminated as well */
    size_t bytes;
};

struct table_format {
    int (*begin)(struct table *t, struct err *err); /* reads what precedes the first row */
    /* Returns 1 if a row is loaded, 0 at the end, -EILSEQ for an invalid row (table_bad_row). */
    int (*next)(struct table *t, struct err *err);
    /* Up to `max` values of the row's column; *ret_n 0: none. -EILSEQ: the value is invalid. */
    int (*get)(struct table *t, const char *column, uint32_t max, struct table_value *ret, uint32_t *ret_n);
    /* The name of column i of the loaded row; NULL after the last. */
    const char *(*name)(const struct table *t, uint32_t i);
    void (*end)(struct table *t);
};
extern const struct table_format table_jsonl, table_csv, table_tsv;

struct table {
    struct source source; /* first */
    const struct table_format *format;
    void *state; /* of the format */
    struct lines lines;
    bool examine;
    uint64_t row_line; /* where the row begins, for messages */
    struct arena row_bytes;
    struct source_columns wanted;
    struct source_field fields[SOURCE_MAX_FIELDS];
    bool had_picture; /* some row had an image column */
    char path[PATH_MAX];
    char key[32];                  /* the key of a row without one */
    enum image_error problem_code; /* of the row */
    struct err problem;            /* in words */
};

/* Replaces a JSON escape that is not a valid character (source/table_jsonl.c): U+FDD0, a Unicode noncharacter. */
#define TABLE_NO_CHARACTER "\xef\xb7\x90"

/* "FILE, line N: ..." */
int table_error(const struct table *t, int code, struct err *err, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Makes the row an item that fails with "FILE, line N: ..."; returns -EILSEQ. */
int table_bad_row(struct table *t, enum image_error code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* True if it is an image or key column, or one that the caller wants. */
bool table_uses(const struct table *t, const char *column);
/* A copy in t->row_bytes; NULL if out of memory. */
char *table_keep(struct table *t, const char *text, size_t bytes);

#endif
