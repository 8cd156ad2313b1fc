/* cmd_help.c - `blipline help` and `version`, and the list of commands and topics. */
#include <stdio.h>
#include <string.h>

#include "base/nearest.h"
#include "base/options.h"
#include "base/page.h"
#include "client/commands.h"
#include "client/help_texts.h"

static int run_version(const struct cli_command *self, int argc, char **argv);
static int run_help(const struct cli_command *self, int argc, char **argv);

const struct cli_command cmd_version = {
    .name = "version",
    .line = "the version of this program",
    .usage = "",
    .about = "Prints the version of this program.",
    .run = run_version,
};

static const struct cli_command help = {
    .name = "help",
    .line = "explain a command or a topic",
    .usage = "[COMMAND|TOPIC [NAME]]",
    .about = HELP_HELP,
    .max_args = 2,
    .run = run_help,
};

const struct cli_command *const cli_commands[] = {
    &cmd_caption, &cmd_score,      &cmd_embed, &cmd_submit,  &cmd_models, &cmd_jobs,     &cmd_status,
    &cmd_watch,   &cmd_top,        &cmd_pause, &cmd_resume,  &cmd_cancel, &cmd_retry,    &cmd_priority,
    &cmd_rm,      &cmd_export,     &cmd_get,   &cmd_stats,   &cmd_verify, &cmd_selftest, &cmd_devices,
    &cmd_keygen,  &cmd_completion, &help,      &cmd_version, NULL,
};

void help_overview(FILE *out)
{
    enum { COLUMN = 15 };
    char name[32];

    fputs("Usage: blipline COMMAND [OPTIONS] ARGUMENTS\n\n"
          "Captions large sets of pictures with BLIP-2.\n\n"
          "Commands:\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++) {
        (void)snprintf(name, sizeof(name), "  %s", cli_commands[i]->name);
        page_item(name, COLUMN, cli_commands[i]->line, out);
    }
    fputs("\nTopics:\n", out);
    for (const struct help_topic *t = help_topics; t->name; t++) {
        (void)snprintf(name, sizeof(name), "  %s", t->name);
        page_item(name, COLUMN, t->line, out);
    }
    fputs("\nblipline COMMAND --help and blipline help TOPIC say more.\n\n"
          "Examples:\n"
          "  blipline caption photos/ -o photos.lmdb --model blip2-opt-demo\n"
          "  blipline export photos.lmdb --format jsonl\n",
          out);
}

const struct cli_command *help_find_command(const char *name)
{
    for (size_t i = 0; cli_commands[i]; i++) {
        if (strcmp(cli_commands[i]->name, name) == 0)
            return cli_commands[i];
    }
    return NULL;
}

int help_complain_unknown(const char *name)
{
    const char *words[32];
    char hint[96];
    size_t n = 0;

    for (size_t i = 0; cli_commands[i]; i++)
        words[n++] = cli_commands[i]->name;
    for (const struct help_topic *t = help_topics; t->name && n < 31; t++)
        words[n++] = t->name;
    words[n] = NULL;
    for (const struct help_topic *t = help_topics; t->name; t++) {
        if (strcmp(t->name, name) != 0)
            continue;
        cli_error("%s is a topic, not a command: blipline help %s explains it", name, name);
        return CLI_EXIT_USAGE;
    }
    if (name[0] == '-') {
        static const char *const options[] = {"help", "version", NULL};

        cli_error("%s: options come after a command%s (blipline --help)", name,
                  nearest_hint("--", name + strspn(name, "-"), options, hint, sizeof(hint)));
        return CLI_EXIT_USAGE;
    }
    cli_error("unknown command or topic %s%s (blipline --help lists them)", name,
              nearest_hint("", name, words, hint, sizeof(hint)));
    return CLI_EXIT_USAGE;
}

static int run_version(const struct cli_command *self, int argc, char **argv)
{
    int n_args = cli_parse(self, argc, argv, NULL);

    if (n_args < 0)
        return cli_exit_code(n_args);
    printf("blipline %s\n", BLIPLINE_VERSION);
    return CLI_EXIT_OK;
}

static int explain(const char *what, const char *detail)
{
    const struct cli_command *c = help_find_command(what);

    if (c && !detail) {
        cli_print_help(c, stdout);
        return CLI_EXIT_OK;
    }
    for (const struct help_topic *t = help_topics; t->name; t++) {
        if (strcmp(t->name, what) != 0)
            continue;
        if (t->print)
            return t->print(detail, stdout);
        if (!detail) {
            page_text(t->text, stdout);
            return CLI_EXIT_OK;
        }
    }
    return help_complain_unknown(detail ? detail : what);
}

static int run_help(const struct cli_command *self, int argc, char **argv)
{
    int n_args = cli_parse(self, argc, argv, NULL);

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (n_args == 0) {
        help_overview(stdout);
        return CLI_EXIT_OK;
    }
    return explain(argv[argc - n_args], n_args > 1 ? argv[argc - 1] : NULL);
}
