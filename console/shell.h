/* shell.h - quoted commands that a user can paste into a shell.
 *
 * Who may call: anyone. Units: none. Memory: the caller's buffers. Errors: long text is truncated. */
#ifndef BLIPLINE_CONSOLE_SHELL_H
#define BLIPLINE_CONSOLE_SHELL_H

#include <stddef.h>

enum { SHELL_SIZE = 4096 }; /* room for a command with a path or two */

/* Set the name of the program: argv[0]. The default is "blipline". */
void shell_set_program(const char *argv0);
/* Quote a word for a shell if it has special characters. Returns `ret`. */
char *shell_word(const char *text, char *ret, size_t ret_size);
/* "blipline COMMAND WORD", with the program's name and a quoted word. Returns `ret`. */
char *shell_command(const char *command, const char *word, char *ret, size_t ret_size);

#endif
