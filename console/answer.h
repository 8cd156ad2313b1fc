/* answer.h - what --json prints: one JSON object with its schema and version, or an object with the error.
 *
 *     {"schema": "stats", "version": 1, ...}
 *     {"schema": "error", "version": 1, "command": "stats", "error": {"exit_code": 2, "message": "..."}}
 *
 * `blipline help json` documents them. A new field leaves the version as it is; a field that is removed or changes its
 * meaning raises it.
 * Who may call: main, and the commands. Units: none. Memory: one text is kept.
 * Errors: none here; main checks standard output at the end. */
#ifndef BLIPLINE_CONSOLE_ANSWER_H
#define BLIPLINE_CONSOLE_ANSWER_H

#include <stddef.h>

struct json_t;

/* Is there a --json in this command line, right or wrong as it may be? From here on errors are remembered then. */
void answer_begin(int argc, char **argv);
/* Print `object` (taken; NULL: there was no memory) with schema and version in front, on a line of its own. `flags` are
 * those of json_dumpf. */
void answer_print(const char *schema, struct json_t *object, size_t flags);
/* What went wrong, without "blipline: "; the last one counts. */
void answer_error(const char *text);
/* For a signal handler that ends the command: the error as a line of JSON; "" without --json. */
const char *answer_of_crash(void);
/* The command ends with this code: print the error, if --json asked for it and nothing has been printed since. */
void answer_end(int exit_code);

#endif
