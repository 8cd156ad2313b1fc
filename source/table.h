/* table.h - what the tables (JSONL, CSV, TSV) of source/table*.c share; nobody else includes this.
 *
 * Who may call: they.
 * Units: bytes.
 * Memory: a row's values lie in `row_bytes`, valid until the next row.
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
    int (*begin)(struct table *t, struct err *err); /* read what comes before the first row */
    /* 1: a row is loaded; 0: the end; -EILSEQ: a row by itself that is of no use (table_bad_row) */
    int (*next)(struct table *t, struct err *err);
    /* Up to `max` values of the row's column; *ret_n 0: it has none. -EILSEQ: what it has is of no use. */
    int (*get)(struct table *t, const char *column, uint32_t max, struct table_value *ret, uint32_t *ret_n);
    /* Column i of the loaded row, by its name; NULL: there are no more. */
    const char *(*name)(const struct table *t, uint32_t i);
    void (*end)(struct table *t);
};
extern const struct table_format table_jsonl, table_csv, table_tsv;

struct table {
    struct source source; /* first */
    const struct table_format *format;
    void *state; /* the format's */
    struct lines lines;
    bool examine;
    uint64_t row_line; /* where the row begins: lines of errors */
    struct arena row_bytes;
    struct source_columns wanted;
    struct source_field fields[SOURCE_MAX_FIELDS];
    bool had_picture; /* some row had a column of pictures */
    char path[PATH_MAX];
    char key[32];                  /* of a row that has none */
    enum image_error problem_code; /* of the row */
    struct err problem;            /* in words */
};

/* What stands for a character of JSON that no text may hold (source/table_jsonl.c): U+FDD0, which is none by
 * definition. */
#define TABLE_NO_CHARACTER "\xef\xb7\x90"

/* "FILE, line N: ..." */
int table_error(const struct table *t, int code, struct err *err, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* The row becomes an item that fails with "FILE, line N: ..."; returns -EILSEQ. */
int table_bad_row(struct table *t, enum image_error code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Is it a column of pictures, keys, or one that the caller wants? */
bool table_uses(const struct table *t, const char *column);
/* A copy in t->row_bytes; NULL: no memory. */
char *table_keep(struct table *t, const char *text, size_t bytes);

#endif
