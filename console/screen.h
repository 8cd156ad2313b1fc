/* screen.h - a page of text that fills the terminal and is drawn again and again, until the user presses q.
 *
 * The page is on the alternate screen, so what was on the terminal before is there again at the end.
 * Who may call: one thread, the only one that writes to the terminal. Units: columns and rows.
 * Memory: nothing to free; screen_close gives the terminal back.
 * Errors: none; a page that cannot be written is lost. */
#ifndef BLIPLINE_CONSOLE_SCREEN_H
#define BLIPLINE_CONSOLE_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

struct screen {
    bool is_open;
    struct termios before;
};

/* Take standard input and output. False, and nothing has changed: one of them is no terminal. */
bool screen_open(struct screen *s);
void screen_size(unsigned *ret_columns, unsigned *ret_rows);
/* `text`: lines that fit the screen. Control characters must have been replaced. */
void screen_show(const struct screen *s, const char *text, size_t n);
/* Wait until `wait_ms` have passed, a key was pressed, the size has changed, or `fd` can be read. True: q was pressed,
 * or there is no input any more. */
bool screen_wait(const struct screen *s, int fd, int wait_ms);
void screen_close(struct screen *s);

#endif
