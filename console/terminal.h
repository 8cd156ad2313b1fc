/* terminal.h - standard error as the user sees it: lines that stay, and one status line that is redrawn below them.
 *
 * Without a terminal there is no status line. Who may call: one thread; nobody else writes to the descriptor meanwhile.
 * Units:  columns. Memory: nothing to free. Errors: none; what cannot be written is lost. */
#ifndef BLIPLINE_CONSOLE_TERMINAL_H
#define BLIPLINE_CONSOLE_TERMINAL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct terminal {
    int fd;
    bool is_terminal;
    char status[256]; /* what is on the status line now */
};

void terminal_init(struct terminal *s, int fd);
/* "blipline: ..." and a newline. */
void terminal_note(struct terminal *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* `n` bytes that end in a newline, as they are but for control characters. */
void terminal_copy(struct terminal *s, const char *text, size_t n);
/* Redraw the status line; "" takes it away. */
void terminal_status(struct terminal *s, const char *text);
unsigned terminal_columns(const struct terminal *s);

#endif
