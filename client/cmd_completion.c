/* cmd_completion.c - `blipline completion`: what a shell completes, from the tables of commands, options and topics. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "client/commands.h"
#include "client/help_texts.h"
#include "recipe/recipe.h"

enum { WORDS_SIZE = 512, HINT_SIZE = 80 };

/* Words that the value of an option may be, with spaces between them; "": any. Where files() is true too, or a file. */
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

/* Is its value a file or a folder? The help page names it so. */
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

/* The beginning of the help text, without what a shell would take for its own. */
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

/* -- bash -- */

static void bash_values(const struct cli_command *c, FILE *out)
{
    struct cli_option o;
    char words[WORDS_SIZE];

    for (size_t i = 0; cli_option_at(c, i, &o); i++) {
        if (!takes_value(&o))
            continue;
        fprintf(out, "    %s:--%s", c->name, o.name);
        if (o.letter)
            fprintf(out, " | %s:-%c", c->name, o.letter);
        fprintf(out, ") words='%s' files=%d ;;\n", words_of(&o, words), files(&o));
    }
}

static void bash(FILE *out)
{
    struct cli_option o;

    fputs("# bash completion of blipline; made by `blipline completion bash`\n"
          "_blipline() {\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words='' files=1\n"
          "    COMPREPLY=()\n"
          "    case ${COMP_WORDS[1]}:$before in\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++)
        bash_values(cli_commands[i], out);
    fputs("    help:help) words='", out);
    put_commands(out);
    put_topics(out);
    fputs("' files=0 ;;\n"
          "    help:recipe) words='",
          out);
    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++)
        fprintf(out, "%s ", b->name);
    fputs("' files=0 ;;\n"
          "    completion:completion) words='bash zsh fish' files=0 ;;\n"
          "    *:blipline | *:*/blipline)\n"
          "        if [ \"$COMP_CWORD\" = 1 ]; then words='--help --version ",
          out);
    put_commands(out);
    fputs("' files=0; fi ;;\n"
          "    *)\n"
          "        case $current in\n"
          "        -*)\n"
          "            files=0\n"
          "            case ${COMP_WORDS[1]} in\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++) {
        fprintf(out, "            %s) words='--help", cli_commands[i]->name);
        for (size_t k = 0; cli_option_at(cli_commands[i], k, &o); k++)
            fprintf(out, " --%s", o.name);
        fputs("' ;;\n", out);
    }
    fputs("            esac ;;\n"
          "        esac ;;\n"
          "    esac\n"
          "    if [ -n \"$words\" ]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
          "    fi\n"
          "    if [ $files = 1 ]; then\n"
          "        compopt -o filenames\n"
          "        case $current in\n"
          "        @*) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -P @ -- \"${current#@}\") ;;\n"
          "        *) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$current\") ;;\n"
          "        esac\n"
          "    fi\n"
          "}\n"
          "complete -F _blipline blipline\n",
          out);
}

/* -- zsh -- */

static void zsh_option(const struct cli_option *o, FILE *out)
{
    char words[WORDS_SIZE], hint[HINT_SIZE];
    const char *list = words_of(o, words), *times = o->type == CLI_TEXTS || o->type == CLI_SETTING ? "*" : "";

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

/* What its arguments are. */
static const char *zsh_arguments(const struct cli_command *c)
{
    if (strcmp(c->name, "help") == 0)
        return "1: :{_describe command commands; _describe topic topics}";
    return strcmp(c->name, "completion") == 0 ? "1:shell:(bash zsh fish)" : "*:file:_files";
}

static void zsh(FILE *out)
{
    struct cli_option o;
    char hint[HINT_SIZE];

    fputs("#compdef blipline\n"
          "# zsh completion of blipline; made by `blipline completion zsh`\n"
          "_blipline_word_or_file() {\n"
          "    _alternative \"words:word:($*)\" 'files:file:_files'\n"
          "}\n"
          "_blipline() {\n"
          "    local -a commands topics\n"
          "    commands=(\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++)
        fprintf(out, "        '%s:%s'\n", cli_commands[i]->name, hint_of(cli_commands[i]->line, hint));
    fputs("    )\n"
          "    topics=(\n",
          out);
    for (const struct help_topic *t = help_topics; t->name; t++)
        fprintf(out, "        '%s:%s'\n", t->name, hint_of(t->line, hint));
    fputs("    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        _describe command commands\n"
          "        return\n"
          "    fi\n"
          "    shift words\n"
          "    (( CURRENT-- ))\n"
          "    case $words[1] in\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++) {
        fprintf(out, "    %s)\n        _arguments -s '--help[this page]'", cli_commands[i]->name);
        for (size_t k = 0; cli_option_at(cli_commands[i], k, &o); k++)
            zsh_option(&o, out);
        fprintf(out, " \\\n            '%s' ;;\n", zsh_arguments(cli_commands[i]));
    }
    fputs("    esac\n"
          "}\n"
          "_blipline \"$@\"\n",
          out);
}

/* -- fish -- */

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

static void fish(FILE *out)
{
    struct cli_option o;
    char hint[HINT_SIZE];

    fputs("# fish completion of blipline; made by `blipline completion fish`\n"
          "complete -c blipline -n __fish_use_subcommand -f -l version -s V -d 'the version'\n"
          "complete -c blipline -l help -s h -d 'explain it'\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++) {
        const struct cli_command *c = cli_commands[i];

        fprintf(out, "complete -c blipline -n __fish_use_subcommand -f -a %s -d '%s'\n", c->name,
                hint_of(c->line, hint));
        for (size_t k = 0; cli_option_at(c, k, &o); k++)
            fish_option(c, &o, out);
    }
    fputs("complete -c blipline -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n"
          "complete -c blipline -n '__fish_seen_subcommand_from help' -f -a '",
          out);
    put_commands(out);
    put_topics(out);
    fputs("'\n", out);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*print)(FILE *out);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    int n_args = cli_parse(self, argc, argv, NULL);

    if (n_args < 0)
        return cli_exit_code(n_args);
    for (size_t i = 0; i < sizeof(shells) / sizeof(*shells); i++) {
        if (strcmp(argv[argc - 1], shells[i].name) != 0)
            continue;
        shells[i].print(stdout);
        return CLI_EXIT_OK;
    }
    cli_error("completion: %s: not one of: bash zsh fish", argv[argc - 1]);
    return CLI_EXIT_USAGE;
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .line = "print what a shell needs to complete commands and options",
    .usage = "bash|zsh|fish",
    .about = HELP_COMPLETION,
    .examples = HELP_COMPLETION_EXAMPLES,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
