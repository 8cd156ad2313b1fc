/* page.h - help pages: text in lines that fit a terminal.
 *
 * Sources may break their lines anywhere; what is printed has lines of up to PAGE_WIDTH columns.
 * Who may call: anyone.
 * Units: columns, one a byte.
 * Memory: nothing is kept.
 * Errors: those of the stream. */
#ifndef BLIPLINE_BASE_PAGE_H
#define BLIPLINE_BASE_PAGE_H

#include <stdio.h>

enum {
    PAGE_WIDTH = 80,
    PAGE_COLUMN = 28, /* where the texts of options begin */
};

/* Lines that begin in the first column are a paragraph: they are filled, up to an empty line. A line "  WORD   text" is
 * an item: its text is filled too, together with the lines below that begin in the same column as the text. All other
 * lines are printed unchanged. */
void page_text(const char *text, FILE *out);
/* "NAME   text", the text from `column` on; on the next line where the name is too long. */
void page_item(const char *name, int column, const char *text, FILE *out);
/* "# text", every line of it. */
void page_comment(const char *text, FILE *out);

#endif
