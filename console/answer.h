/* answer.h - the output of --json: a JSON object with its schema and version, or an object with the error.
 *
 *     {"schema": "stats", "version": 1, ...}
 *     {"schema": "error", "version": 1, "command": "stats", "error": {"exit_code": 2, "message": "..."}}
 *
 * `blipline help json` documents them. Raise the version when a field is removed or changes its meaning, not when one
 * is added.
 * Who may call: main and the commands. Units: none. Memory: keeps one text.
 * Errors: none; main checks standard output at the end. */
#ifndef BLIPLINE_CONSOLE_ANSWER_H
#define BLIPLINE_CONSOLE_ANSWER_H

#include <stddef.h>

struct json_t;

/* Look for --json in the command line, which may be invalid. If it is there, answer_end will print errors as JSON. */
void answer_begin(int argc, char **argv);
/* Print `object`, with schema and version in front, on a line of its own, and free it. NULL: out of memory. `flags` as
 * for json_dumpf. */
void answer_print(const char *schema, struct json_t *object, size_t flags);
/* JSON is UTF-8: other bytes become \xNN. NULL: no memory. */
struct json_t *answer_text(const char *text);
/* The same; null for "". */
struct json_t *answer_text_or_null(const char *text);
/* Remember an error message, without "blipline: "; the last one is printed. */
void answer_error(const char *text);
/* For a signal handler that ends the command: the error as a line of JSON; "" without --json. */
const char *answer_of_crash(void);
/* Call at the end of the command: prints the error if --json was given and no object was printed after it. */
void answer_end(int exit_code);

#endif
