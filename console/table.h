/* table.h - rows of text in columns that fit a terminal.
 *
 * Every row is shown to table_measure first, then table_fit chooses the widths, then every row is printed. So the rows
 * need not be kept: they can be made twice.
 * Who may call: one thread. Units: columns of the terminal. Memory: titles and cells are borrowed. Errors: none; cells
 * that are too long end in "..". */
#ifndef BLIPLINE_CONSOLE_TABLE_H
#define BLIPLINE_CONSOLE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { TABLE_MAX_COLUMNS = 12 };

struct table_column {
    const char *title; /* NULL ends the list */
    bool is_number;    /* flush right */
    bool shrinks;      /* where the table does not fit */
};

struct table {
    const struct table_column *columns;
    size_t n;
    unsigned widths[TABLE_MAX_COLUMNS];
};

void table_init(struct table *t, const struct table_column *columns);
/* Cells may be any bytes; they are printed as console/printable.h says. */
void table_measure(struct table *t, const char *const *cells);
/* 0: any width. */
void table_fit(struct table *t, unsigned terminal_columns);
void table_print_titles(const struct table *t, FILE *out);
void table_print(const struct table *t, const char *const *cells, FILE *out);

#endif
