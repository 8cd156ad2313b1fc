/* screen.h - standard error as the user sees it: lines that stay, and one status line that is redrawn below them.
 *
 * Without a terminal there is no status line. Who may call: one thread; nobody else writes to the descriptor meanwhile.
 * Units:  columns. Memory: nothing to free. Errors: none; what cannot be written is lost. */
#ifndef BLIPLINE_CLIENT_SCREEN_H
#define BLIPLINE_CLIENT_SCREEN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct screen {
    int fd;
    bool is_terminal;
    char status[256]; /* what is on the status line now */
};

void screen_init(struct screen *s, int fd);
/* "blipline: ..." and a newline. */
void screen_note(struct screen *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* `n` bytes that end in a newline, as they are but for control characters. */
void screen_copy(struct screen *s, const char *text, size_t n);
/* Redraw the status line; "" takes it away. */
void screen_status(struct screen *s, const char *text);
unsigned screen_columns(const struct screen *s);

#endif
