/* commands.h - the commands of `blipline`, one file each (client/cmd_*.c), and the topics of `blipline help`.
 *
 * Who may call: main. Memory: all static. Errors: a command returns the program's exit code (enum cli_exit, or
 * 128 + signal). */
#ifndef BLIPLINE_CLIENT_COMMANDS_H
#define BLIPLINE_CLIENT_COMMANDS_H

#include "console/cli.h"

extern const struct cli_command cmd_caption;
extern const struct cli_command cmd_score;
extern const struct cli_command cmd_embed;
extern const struct cli_command cmd_submit;
extern const struct cli_command cmd_models;
extern const struct cli_command cmd_jobs;
extern const struct cli_command cmd_status;
extern const struct cli_command cmd_watch;
extern const struct cli_command cmd_pause;
extern const struct cli_command cmd_resume;
extern const struct cli_command cmd_cancel;
extern const struct cli_command cmd_retry;
extern const struct cli_command cmd_priority;
extern const struct cli_command cmd_rm;
extern const struct cli_command cmd_top;
extern const struct cli_command cmd_export;
extern const struct cli_command cmd_get;
extern const struct cli_command cmd_stats;
extern const struct cli_command cmd_verify;
extern const struct cli_command cmd_selftest;
extern const struct cli_command cmd_devices;
extern const struct cli_command cmd_keygen;
extern const struct cli_command cmd_completion;
extern const struct cli_command cmd_version;

/* All commands, in the order of `blipline help`; NULL ends the list. */
extern const struct cli_command *const cli_commands[];

/* client/cmd_help.c */
const struct cli_command *help_find_command(const char *name); /* NULL: unknown */
void help_overview(FILE *out);
/* Report an unknown command, with a suggestion. Returns the exit code. */
int help_complain_unknown(const char *name);

struct help_topic {
    const char *name; /* NULL ends the table */
    const char *line;
    const char *text;                            /* NULL: use `print` */
    int (*print)(const char *detail, FILE *out); /* detail: the word after the topic, or NULL. Returns the exit code */
};
extern const struct help_topic help_topics[];

#endif
