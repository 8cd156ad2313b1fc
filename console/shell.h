/* shell.h - commands that a user may paste into a shell, whatever the paths in them are called.
 *
 * Who may call: anyone. Units: none. Memory: the caller's buffers. Errors: what does not fit is cut off. */
#ifndef BLIPLINE_CONSOLE_SHELL_H
#define BLIPLINE_CONSOLE_SHELL_H

#include <stddef.h>

enum { SHELL_SIZE = 4096 }; /* room for a command with a path or two */

/* How the program was called: argv[0]. Until then it is "blipline". */
void shell_set_program(const char *argv0);
/* The word as a shell reads it back: as it is where nothing in it is special, else in quotes. Returns `ret`. */
char *shell_word(const char *text, char *ret, size_t ret_size);
/* "blipline COMMAND WORD", under the name the program was called by. Returns `ret`. */
char *shell_command(const char *command, const char *word, char *ret, size_t ret_size);

#endif
