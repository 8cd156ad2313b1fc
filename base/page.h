/* page.h - help pages: text in lines that fit a terminal.
 *
 * Sources may break their lines anywhere; what is printed has lines of up to PAGE_WIDTH columns.
 * Who may call: anyone. Units: columns, one a byte. Memory: nothing is kept. Errors: those of the stream. */
#ifndef BLIPLINE_BASE_PAGE_H
#define BLIPLINE_BASE_PAGE_H

#include <stdio.h>

enum {
    PAGE_WIDTH = 80,
    PAGE_COLUMN = 28, /* where the texts of options begin */
};

/* Lines that begin at the left are a paragraph and are filled; an empty line ends it. A line "  WORD   text" is an item:
 * its text is filled too, with the lines below that begin at the same column. Other lines stay as they are. */
void page_text(const char *text, FILE *out);
/* "NAME   text", the text from `column` on; on the next line where the name is too long. */
void page_item(const char *name, int column, const char *text, FILE *out);
/* "# text", every line of it. */
void page_comment(const char *text, FILE *out);

#endif
