/* printable.h - bytes of any origin (file names, captions) as text that does no harm to a terminal.
 *
 * Who may call: anyone. Units: bytes. Memory: none. Errors: none. */
#ifndef BLIPLINE_CONSOLE_PRINTABLE_H
#define BLIPLINE_CONSOLE_PRINTABLE_H

#include <stddef.h>
#include <stdio.h>

/* UTF-8 as it is; control characters and what is not UTF-8 as \n, \t, \xHH. Plain ASCII and a backslash stay. */
void printable_write(FILE *out, const void *bytes, size_t n);
/* The same into a buffer, cut where it is full. Returns ret. */
char *printable_text(const void *bytes, size_t n, char *ret, size_t ret_size);

#endif
