/* printable.h - prints untrusted bytes (file names, captions) safely on a terminal.
 *
 * Who may call: anyone. Units: bytes. Memory: none. Errors: none. */
#ifndef BLIPLINE_CONSOLE_PRINTABLE_H
#define BLIPLINE_CONSOLE_PRINTABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Write UTF-8 unchanged, including backslashes; control characters and invalid bytes as \n, \t, \xHH. */
void printable_write(FILE *out, const void *bytes, size_t n);
/* The same into a buffer, truncated. Returns ret. */
char *printable_text(const void *bytes, size_t n, char *ret, size_t ret_size);
/* "1.5 GiB", "300 bytes". Returns `ret`. */
char *printable_size(uint64_t bytes, char ret[32]);

#endif
