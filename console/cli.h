/* cli.h - the command line of one `blipline` command: a table of options, its parser, and its help page.
 *
 * The table drives the parser, the checks and the page. Options and arguments may be mixed; "--" ends the options.
 * Who may call: the commands, once each.
 * Units:  none. Memory: texts point into argv.
 * Errors: printed on standard error, with the cure; the caller returns the exit code. */
#ifndef BLIPLINE_CONSOLE_CLI_H
#define BLIPLINE_CONSOLE_CLI_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes of all commands; documented in `blipline help exit-codes`. */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_ERROR = 1,
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_FAILED_ITEMS = 3, /* all done, but some items failed */
};

enum cli_type {
    CLI_FLAG,    /* bool; takes no value */
    CLI_TEXT,    /* const char * */
    CLI_NUMBER,  /* int64_t within min..max */
    CLI_SIZE,    /* int64_t bytes, with an optional unit: 64MiB */
    CLI_REAL,    /* double within min..max; the initial value means "not given" */
    CLI_CHOICE,  /* const char *, one of the words in `choices` */
    CLI_TEXTS,   /* struct cli_texts; may be given several times */
    CLI_SETTING, /* struct cli_settings: names and values in the order given; `choices`, if not NULL, is the value of an
                    option without "=value" */
};

enum { CLI_MAX_TEXTS = 32 };
struct cli_texts {
    const char *texts[CLI_MAX_TEXTS];
    int n;
};

enum { CLI_MAX_SETTINGS = 64 };
struct cli_setting {
    const char *name, *value;
};
struct cli_settings {
    struct cli_setting list[CLI_MAX_SETTINGS];
    int n;
};

struct cli_option {
    const char *name; /* without the dashes; NULL ends the table */
    char letter;      /* 0: none */
    enum cli_type type;
    size_t offset;     /* of the field in the command's struct */
    const char *value; /* placeholder on the help page */
    const char *help;
    int64_t min, max;    /* CLI_NUMBER, CLI_SIZE, CLI_REAL */
    const char *choices; /* CLI_CHOICE: "jsonl csv txt" */
};

struct cli_command {
    const char *name;
    const char *line;     /* what it does, in the list of commands */
    const char *usage;    /* printed after "blipline NAME" */
    const char *about;    /* paragraphs above the options on the help page */
    const char *examples; /* below them; may be NULL */
    const struct cli_option *options;
    /* may be NULL; fills in option i of those that follow the table; false after the last */
    bool (*more_options)(size_t i, struct cli_option *ret);
    int min_args, max_args;                                            /* max -1: any number */
    int (*run)(const struct cli_command *self, int argc, char **argv); /* argv[0] is the command's name */
};

/* Fill `ret`, the command's struct, which already has its defaults. Returns the number of arguments, which are moved to
 * the end of argv, or a negative value; then return cli_exit_code of it. */
int cli_parse(const struct cli_command *c, int argc, char **argv, void *ret) CHECK_RESULT;
int cli_exit_code(int parsed);
/* The exit code after a reported failure: CLI_EXIT_USAGE if the command line names something that does not exist
 * (-ENOENT, -ENOTDIR) or is impossible (-EDOM), otherwise CLI_EXIT_ERROR. */
int cli_exit_of(int rc);

/* Option i of the command, including those after the table but not -h, --help; false after the last. */
bool cli_option_at(const struct cli_command *c, size_t i, struct cli_option *ret);
void cli_print_help(const struct cli_command *c, FILE *out);
/* "blipline: ..." on standard error. */
void cli_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Plural endings: "" for one, otherwise "s"; " is" or "s are". */
const char *cli_s(uint64_t n);
const char *cli_are(uint64_t n);

#endif
