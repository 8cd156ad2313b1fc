/* main.c - the `blipline` command: finds the command that is asked for, or explains what there is. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "client/cli.h"
#include "client/commands.h"

static int run_version(const struct cli_command *self, int argc, char **argv);
static int run_help(const struct cli_command *self, int argc, char **argv);

static const struct cli_command version = {
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
    .about =
        "Explains a command or a topic; without one, lists what there is. `blipline help recipe NAME` prints a recipe.",
    .max_args = 2,
    .run = run_help,
};

static const struct cli_command *const commands[] = {
    &cmd_caption, &cmd_score,    &cmd_embed,   &cmd_export, &cmd_get, &cmd_stats,
    &cmd_verify,  &cmd_selftest, &cmd_devices, &help,       &version, NULL,
};

static void print_overview(FILE *out)
{
    fputs("Usage: blipline COMMAND [OPTIONS] ARGUMENTS\n\n"
          "Captions for piles of pictures with BLIP-2.\n\n"
          "Commands:\n",
          out);
    for (size_t i = 0; commands[i]; i++)
        fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->line);
    fputs("\nTopics:\n", out);
    for (const struct help_topic *t = help_topics; t->name; t++)
        fprintf(out, "  %-12s %s\n", t->name, t->line);
    fputs("\nblipline COMMAND --help and blipline help TOPIC say more. To begin with:\n\n"
          "  blipline caption photos/ -o photos.lmdb --model models/blip2-opt-demo\n"
          "  blipline export photos.lmdb --format jsonl\n",
          out);
}

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; commands[i]; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static int complain_unknown(const char *name)
{
    const char *words[32];
    const char *near;
    size_t n = 0;

    for (size_t i = 0; commands[i]; i++)
        words[n++] = commands[i]->name;
    for (const struct help_topic *t = help_topics; t->name && n < 31; t++)
        words[n++] = t->name;
    words[n] = NULL;
    for (const struct help_topic *t = help_topics; t->name; t++) {
        if (strcmp(t->name, name) != 0)
            continue;
        cli_error("%s is a topic, not a command: blipline help %s explains it", name, name);
        return CLI_EXIT_USAGE;
    }
    near = cli_nearest(name, words);
    if (near)
        cli_error("there is no command or topic %s; did you mean %s? (blipline --help lists them)", name, near);
    else
        cli_error("there is no command or topic %s (blipline --help lists them)", name);
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
    const struct cli_command *c = find_command(what);

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
            puts(t->text);
            return CLI_EXIT_OK;
        }
    }
    return complain_unknown(detail ? detail : what);
}

static int run_help(const struct cli_command *self, int argc, char **argv)
{
    int n_args = cli_parse(self, argc, argv, NULL);

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (n_args == 0) {
        print_overview(stdout);
        return CLI_EXIT_OK;
    }
    return explain(argv[argc - n_args], n_args > 1 ? argv[argc - 1] : NULL);
}

/* What a full disk, or a reader that went away, did not take is not done. */
static int finish(int code)
{
    const int flushed = fflush(stdout);

    if (flushed == 0 && !ferror(stdout))
        return code;
    cli_error("standard output: %s", flushed == 0 ? "it did not take everything" : strerror(errno));
    return code == CLI_EXIT_OK ? CLI_EXIT_ERROR : code;
}

int main(int argc, char **argv)
{
    const struct cli_command *c;

    (void)setlocale(LC_CTYPE, "");
    log_init("blipline", LOG_LEVEL_WARN);
    if (argc < 2) {
        print_overview(stderr);
        return CLI_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_overview(stdout);
        return finish(CLI_EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return finish(run_version(&version, 1, argv));
    c = find_command(argv[1]);
    if (!c)
        return complain_unknown(argv[1]);
    return finish(c->run(c, argc - 1, argv + 1));
}
