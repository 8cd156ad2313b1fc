/* cmd_completion.c - `blipline completion`: shell completion from the tables of commands, options and topics. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "client/commands.h"
#include "client/help_texts.h"
#include "recipe/recipe.h"

enum { WORDS_SIZE = 512, HINT_SIZE = 80 };

/* Possible values of an option, separated by spaces; "": any. If files() is true, also a file. */
static const char *words_of(const struct cli_option *o, char ret[WORDS_SIZE])
{
    ret[0] = '\0';
    if (o->type == CLI_CHOICE)
        return o->choices;
    if (o->value && strchr(o->value, '|')) {
        (void)snprintf(ret, WORDS_SIZE, "%s", o->value);
        for (char *p = ret; *p; p++)
            *p = *p == '|' ? ' ' : *p;
    }
    for (const struct recipe_builtin *b = recipe_builtins; strcmp(o->name, "recipe") == 0 && b->name; b++) {
        size_t n = strlen(ret);

        (void)snprintf(ret + n, WORDS_SIZE - n, "%s%s", n ? " " : "", b->name);
    }
    return ret;
}

/* True if the help page names the value as a file or folder. */
static bool files(const struct cli_option *o)
{
    static const char *const names[] = {"DIR", "STORE", "FILE", "PATH", "TABLE", "RECIPE"};

    for (size_t i = 0; o->value && i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(o->value, names[i]) == 0)
            return true;
    return false;
}

static bool takes_value(const struct cli_option *o)
{
    return o->type != CLI_FLAG && !(o->type == CLI_SETTING && o->choices);
}

/* The beginning of the help text, without special characters of the shell. */
static const char *hint_of(const char *help, char ret[HINT_SIZE])
{
    size_t n = strcspn(help, ";:(");
    size_t at = 0;

    for (size_t i = 0; i < n && at + 1 < HINT_SIZE; i++)
        if (!strchr("'[]\\\"$`", help[i]))
            ret[at++] = help[i];
    while (at > 0 && ret[at - 1] == ' ')
        at--;
    ret[at] = '\0';
    return ret;
}

static void each_option(const struct cli_command *c,
                        void (*put)(const struct cli_command *c, const struct cli_option *o, FILE *out), FILE *out)
{
    struct cli_option o;

    for (size_t i = 0; cli_option_at(c, i, &o); i++)
        put(c, &o, out);
}

/* -- the parts of the scripts that stand in {{braces}} in client/help/completion-*.txt -- */

static void put_commands(FILE *out)
{
    for (size_t i = 0; cli_commands[i]; i++)
        fprintf(out, "%s%s", i ? " " : "", cli_commands[i]->name);
}

static void put_topics(FILE *out)
{
    for (const struct help_topic *t = help_topics; t->name; t++)
        fprintf(out, " %s", t->name);
}

static void put_recipes(FILE *out)
{
    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++)
        fprintf(out, "%s ", b->name);
}

static void bash_value(const struct cli_command *c, const struct cli_option *o, FILE *out)
{
    char words[WORDS_SIZE];

    if (!takes_value(o))
        return;
    fprintf(out, "    %s:--%s", c->name, o->name);
    if (o->letter)
        fprintf(out, " | %s:-%c", c->name, o->letter);
    fprintf(out, ") words='%s' files=%d ;;\n", words_of(o, words), files(o));
}

static void put_values(FILE *out)
{
    for (size_t i = 0; cli_commands[i]; i++)
        each_option(cli_commands[i], bash_value, out);
}

static void bash_option(const struct cli_command *c, const struct cli_option *o, FILE *out)
{
    (void)c;
    fprintf(out, " --%s", o->name);
}

static void put_options(FILE *out)
{
    for (size_t i = 0; cli_commands[i]; i++) {
        fprintf(out, "            %s) words='--help", cli_commands[i]->name);
        each_option(cli_commands[i], bash_option, out);
        fputs("' ;;\n", out);
    }
}

static void put_zsh_commands(FILE *out)
{
    char hint[HINT_SIZE];

    for (size_t i = 0; cli_commands[i]; i++)
        fprintf(out, "        '%s:%s'\n", cli_commands[i]->name, hint_of(cli_commands[i]->line, hint));
}

static void put_zsh_topics(FILE *out)
{
    char hint[HINT_SIZE];

    for (const struct help_topic *t = help_topics; t->name; t++)
        fprintf(out, "        '%s:%s'\n", t->name, hint_of(t->line, hint));
}

static void zsh_option(const struct cli_command *c, const struct cli_option *o, FILE *out)
{
    char words[WORDS_SIZE], hint[HINT_SIZE];
    const char *list = words_of(o, words), *times = o->type == CLI_TEXTS || o->type == CLI_SETTING ? "*" : "";

    (void)c;
    for (int form = o->letter ? 0 : 1; form < 2; form++) {
        fputs(" \\\n            '", out);
        if (form == 0)
            fprintf(out, "%s-%c", times, o->letter);
        else
            fprintf(out, "%s--%s", times, o->name);
        if (form == 1 && o->type != CLI_FLAG)
            fputs(takes_value(o) ? "=" : "=-", out);
        fprintf(out, "[%s]", hint_of(o->help, hint));
        if (o->type != CLI_FLAG)
            fprintf(out, "%s:%s:", takes_value(o) ? "" : ":", o->value);
        if (o->type != CLI_FLAG && *list && files(o))
            fprintf(out, " _blipline_word_or_file %s", list);
        else if (o->type != CLI_FLAG && *list)
            fprintf(out, "(%s)", list);
        else if (o->type != CLI_FLAG && files(o))
            fputs("_files", out);
        fputc('\'', out);
    }
}

/* The arguments of a command. */
static const char *zsh_arguments(const struct cli_command *c)
{
    if (strcmp(c->name, "help") == 0)
        return "1: :{_describe command commands; _describe topic topics}";
    return strcmp(c->name, "completion") == 0 ? "1:shell:(bash zsh fish)" : "*:file:_files";
}

static void put_zsh_arguments(FILE *out)
{
    for (size_t i = 0; cli_commands[i]; i++) {
        fprintf(out, "    %s)\n        _arguments -s '--help[this page]'", cli_commands[i]->name);
        each_option(cli_commands[i], zsh_option, out);
        fprintf(out, " \\\n            '%s' ;;\n", zsh_arguments(cli_commands[i]));
    }
}

static void fish_option(const struct cli_command *c, const struct cli_option *o, FILE *out)
{
    char words[WORDS_SIZE], hint[HINT_SIZE];
    const char *list = words_of(o, words);

    fprintf(out, "complete -c blipline -n '__fish_seen_subcommand_from %s' -l %s", c->name, o->name);
    if (o->letter)
        fprintf(out, " -s %c", o->letter);
    if (takes_value(o))
        fputs(files(o) ? " -r -F" : " -x", out);
    if (*list)
        fprintf(out, " -a '%s'", list);
    fprintf(out, " -d '%s'\n", hint_of(o->help, hint));
}

static void put_fish_commands(FILE *out)
{
    char hint[HINT_SIZE];

    for (size_t i = 0; cli_commands[i]; i++) {
        fprintf(out, "complete -c blipline -n __fish_use_subcommand -f -a %s -d '%s'\n", cli_commands[i]->name,
                hint_of(cli_commands[i]->line, hint));
        each_option(cli_commands[i], fish_option, out);
    }
}

static const struct {
    const char *name;
    void (*put)(FILE *out);
} parts[] = {{"commands", put_commands},
             {"topics", put_topics},
             {"recipes", put_recipes},
             {"values", put_values},
             {"options", put_options},
             {"zsh-commands", put_zsh_commands},
             {"zsh-topics", put_zsh_topics},
             {"zsh-arguments", put_zsh_arguments},
             {"fish-commands", put_fish_commands}};

static void fill_in(const char *script, FILE *out)
{
    for (const char *at; (at = strstr(script, "{{")); script = at + 2) {
        const size_t n = strcspn(at + 2, "}");

        (void)fwrite(script, 1, (size_t)(at - script), out);
        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
            if (strlen(parts[i].name) == n && memcmp(parts[i].name, at + 2, n) == 0)
                parts[i].put(out);
        at += 2 + n;
    }
    (void)fputs(script, out);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static const struct {
        const char *name, *script;
    } shells[] = {{"bash", HELP_COMPLETION_BASH}, {"zsh", HELP_COMPLETION_ZSH}, {"fish", HELP_COMPLETION_FISH}};
    int n_args = cli_parse(self, argc, argv, NULL);

    if (n_args < 0)
        return cli_exit_code(n_args);
    for (size_t i = 0; i < sizeof(shells) / sizeof(*shells); i++) {
        if (strcmp(argv[argc - 1], shells[i].name) != 0)
            continue;
        fill_in(shells[i].script, stdout);
        return CLI_EXIT_OK;
    }
    cli_error("completion: %s: not one of: bash zsh fish", argv[argc - 1]);
    return CLI_EXIT_USAGE;
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .line = "print a completion script for a shell",
    .usage = "bash|zsh|fish",
    .about = HELP_COMPLETION,
    .examples = HELP_COMPLETION_EXAMPLES,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
