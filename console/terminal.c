#include "console/terminal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char erase_line[] = "\r\033[K";

static void put(const struct terminal *s, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t k = write(s->fd, text, n);

        if (k <= 0)
            return;
        text += k;
        n -= (size_t)k;
    }
}

void terminal_init(struct terminal *s, int fd)
{
    *s = (struct terminal){.fd = fd, .is_terminal = isatty(fd)};
}

unsigned terminal_columns(const struct terminal *s)
{
    struct winsize w;

    if (ioctl(s->fd, TIOCGWINSZ, &w) < 0 || w.ws_col == 0)
        return 80;
    return w.ws_col;
}

void terminal_copy(struct terminal *s, const char *text, size_t n)
{
    char line[4096];
    size_t k = 0;

    if (s->status[0])
        put(s, erase_line, sizeof(erase_line) - 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        line[k++] = (char)(c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f) ? c : '?');
        if (k == sizeof(line)) {
            put(s, line, k);
            k = 0;
        }
    }
    put(s, line, k);
    put(s, s->status, strlen(s->status));
}

void terminal_note(struct terminal *s, const char *fmt, ...)
{
    char text[4096];
    size_t n;
    va_list ap;

    (void)snprintf(text, sizeof(text), "blipline: ");
    n = strlen(text);
    va_start(ap, fmt);
    (void)vsnprintf(text + n, sizeof(text) - n - 1, fmt, ap);
    va_end(ap);
    n = strlen(text);
    text[n++] = '\n';
    terminal_copy(s, text, n);
}

void terminal_status(struct terminal *s, const char *text)
{
    if (!s->is_terminal || strcmp(text, s->status) == 0)
        return;
    put(s, erase_line, sizeof(erase_line) - 1);
    (void)snprintf(s->status, sizeof(s->status), "%s", text);
    put(s, s->status, strlen(s->status));
}
