#include "console/shell.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *program = "blipline";

void shell_set_program(const char *argv0)
{
    if (argv0 && *argv0)
        program = argv0;
}

static bool has_control(const char *text)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return true;
    return false;
}

/* $'...', with line ends and other control characters escaped. */
static void quote_control(const char *text, char *ret, size_t size)
{
    size_t at = (size_t)snprintf(ret, size, "$'");

    for (const char *p = text; *p && at + 8 < size; p++) {
        unsigned char c = (unsigned char)*p;
        const char *form = c < 0x20 || c == 0x7f ? "\\%03o" : c == '\'' || c == '\\' ? "\\%c" : "%c";

        at += (size_t)snprintf(ret + at, size - at, form, c);
    }
    (void)snprintf(ret + at, size - at, "'");
}

char *shell_word(const char *text, char *ret, size_t ret_size)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,=-"; /* no ~: a home folder */
    size_t at;

    if (*text && !text[strspn(text, plain)]) {
        (void)snprintf(ret, ret_size, "%s", text);
        return ret;
    }
    if (has_control(text)) {
        quote_control(text, ret, ret_size);
        return ret;
    }
    at = (size_t)snprintf(ret, ret_size, "'");
    for (const char *p = text; *p && at + 8 < ret_size; p++)
        at += (size_t)snprintf(ret + at, ret_size - at, *p == '\'' ? "'\\''" : "%c", *p);
    (void)snprintf(ret + at, ret_size - at, "'");
    return ret;
}

char *shell_command(const char *command, const char *word, char *ret, size_t ret_size)
{
    size_t at;

    (void)shell_word(program, ret, ret_size);
    at = strlen(ret);
    at += (size_t)snprintf(ret + at, ret_size - at, " %s %s", command, word[0] == '-' ? "./" : ""); /* not an option */
    if (at < ret_size)
        (void)shell_word(word, ret + at, ret_size - at);
    return ret;
}
