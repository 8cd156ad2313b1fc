/* page.h - help pages, wrapped to PAGE_WIDTH columns.
 *
 * Who may call: anyone.
 * Units: columns; each byte counts as one.
 * Memory: nothing is kept.
 * Errors: none are returned; the caller checks the stream. */
#ifndef BLIPLINE_BASE_PAGE_H
#define BLIPLINE_BASE_PAGE_H

#include <stdio.h>

enum {
    PAGE_WIDTH = 80,
    PAGE_COLUMN = 28, /* where the texts of options begin */
};

/* Lines that begin in the first column form a paragraph and are wrapped together. A line "  WORD   text" is an item:
 * its text is wrapped together with the following lines that begin in the same column as the text. All other lines
 * are printed unchanged. */
void page_text(const char *text, FILE *out);
/* Print "NAME   text" with the text at `column`, or on the next line if the name is too long. */
void page_item(const char *name, int column, const char *text, FILE *out);
/* Print the text with "# " before each line. */
void page_comment(const char *text, FILE *out);

#endif
