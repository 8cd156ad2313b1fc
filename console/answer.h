/* answer.h - what --json prints: one JSON object, which says what it is and in which version, or an object with the error.
 *
 *     {"schema": "stats", "version": 1, ...}
 *     {"schema": "error", "version": 1, "command": "stats", "error": {"exit_code": 2, "message": "..."}}
 *
 * `blipline help json` documents them. A field that is added leaves the version as it is; one that goes, or means something else,
 * raises it.
 * Who may call: main, and the commands. Units: none. Memory: one text is kept. Errors: those of standard output, by main. */
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
/* What is left to say in a signal handler that ends the command: the error as a line of JSON, "" where --json is not asked for. */
const char *answer_of_crash(void);
/* The command ends with this code: print the error, if --json asked for it and nothing has been printed since. */
void answer_end(int exit_code);

#endif
