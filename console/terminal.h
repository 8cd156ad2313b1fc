/* terminal.h - messages on standard error, and a status line below them that is redrawn.
 *
 * Without a terminal there is no status line.
 * Who may call: one thread, the only one that writes to the descriptor.
 * Units:  columns. Memory: nothing to free. Errors: none; text that cannot be written is lost. */
#ifndef BLIPLINE_CONSOLE_TERMINAL_H
#define BLIPLINE_CONSOLE_TERMINAL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct terminal {
    int fd;
    bool is_terminal;
    char status[256]; /* the current status line */
};

void terminal_init(struct terminal *s, int fd);
/* "blipline: ..." and a newline. */
void terminal_note(struct terminal *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Print `n` bytes that end in a newline, with control characters replaced. */
void terminal_copy(struct terminal *s, const char *text, size_t n);
/* Redraw the status line; "" removes it. */
void terminal_status(struct terminal *s, const char *text);
unsigned terminal_columns(const struct terminal *s);

#endif
