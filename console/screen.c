#include "console/screen.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char enter[] = "\033[?1049h\033[?25l", leave[] = "\033[?25h\033[?1049l";

/* Only ends poll(). */
static void on_resize(int number)
{
    (void)number;
}

bool screen_open(struct screen *s)
{
    const struct sigaction resized = {.sa_handler = on_resize};
    struct termios raw;

    s->is_open = false;
    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &s->before) < 0)
        return false;
    raw = s->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* a stopped process would leave the terminal like this */
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
        return false;
    (void)sigaction(SIGWINCH, &resized, NULL);
    fputs(enter, stdout);
    (void)fflush(stdout);
    s->is_open = true;
    return true;
}

void screen_close(struct screen *s)
{
    if (!s->is_open)
        return;
    s->is_open = false;
    fputs(leave, stdout);
    (void)fflush(stdout);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
    (void)signal(SIGWINCH, SIG_DFL);
}

void screen_size(unsigned *ret_columns, unsigned *ret_rows)
{
    struct winsize w;

    *ret_columns = 80;
    *ret_rows = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_col == 0 || w.ws_row == 0)
        return;
    *ret_columns = w.ws_col;
    *ret_rows = w.ws_row;
}

void screen_show(const struct screen *s, const char *text, size_t n)
{
    if (!s->is_open)
        return;
    fputs("\033[H", stdout);
    while (n > 0) {
        const char *end = memchr(text, '\n', n);
        const size_t line = end ? (size_t)(end - text) : n;

        (void)fwrite(text, 1, line, stdout);
        fputs("\033[K", stdout);
        n -= line;
        text += line;
        if (n > 1) /* the last line ends the page: no more, or the terminal would scroll */
            fputs("\r\n", stdout);
        if (n > 0) {
            n--;
            text++;
        }
    }
    fputs("\033[J", stdout);
    (void)fflush(stdout);
}

bool screen_wait(const struct screen *s, int fd, int wait_ms)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = s->is_open ? STDIN_FILENO : -1, .events = POLLIN}};
    char keys[64];
    ssize_t n;

    if (poll(fds, sizeof(fds) / sizeof(fds[0]), wait_ms) <= 0 || !fds[1].revents)
        return false;
    n = read(STDIN_FILENO, keys, sizeof(keys));
    return n <= 0 || memchr(keys, 'q', (size_t)n) || memchr(keys, 'Q', (size_t)n);
}
