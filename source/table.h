/* table.h - what the tables (JSONL, CSV, TSV) of source/table*.c share; nobody else includes this.
 *
 * Who may call: they. Units: bytes. Memory: a row's values lie in `row_bytes`, valid until the next row.
 * Errors: negative errno; err names file and line. */
#ifndef BLIPLINE_SOURCE_TABLE_H
#define BLIPLINE_SOURCE_TABLE_H

#include "base/arena.h"
#include "source/source_kinds.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>

struct table;

struct table_value {
    const char *text; /* NUL-terminated as well */
    size_t bytes;
};

struct table_format {
    int (*begin)(struct table *t, struct err *err); /* read what comes before the first row */
    /* 1: a row is loaded; 0: the end */
    int (*next)(struct table *t, struct err *err);
    /* Up to `max` values of the row's column; *ret_n 0: it has none. */
    int (*get)(struct table *t, const char *column, uint32_t max, struct table_value *ret, uint32_t *ret_n,
               struct err *err);
    /* Column i of the loaded row, by its name; NULL: there are no more. */
    const char *(*name)(const struct table *t, uint32_t i);
    void (*end)(struct table *t);
};
extern const struct table_format table_jsonl, table_csv, table_tsv;

struct table {
    struct source source; /* first */
    const struct table_format *format;
    void *state; /* the format's */
    FILE *file;
    bool examine;
    char *line; /* [SOURCE_MAX_ROW_BYTES + 2]; NUL-terminated */
    size_t line_bytes;
    uint64_t line_number; /* of `line` */
    uint64_t row_line;    /* where the row begins: lines of errors */
    struct arena row_bytes;
    struct source_columns wanted;
    struct source_field fields[SOURCE_MAX_FIELDS];
    char base[PATH_MAX]; /* folder that relative names start from */
    char name[256];      /* for messages */
    char path[PATH_MAX];
};

/* The next line of the file into t->line, with its end; a byte order mark at the very beginning is left out. 1, 0 at the
 * end of the file, negative. */
int table_read_line(struct table *t, struct err *err) CHECK_RESULT;
/* "FILE, line N: ..." */
int table_error(const struct table *t, int code, struct err *err, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* A copy in t->row_bytes; NULL: no memory. */
char *table_keep(struct table *t, const char *text, size_t bytes);

#endif
