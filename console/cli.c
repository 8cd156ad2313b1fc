#include "console/cli.h"

#include "base/conf.h"
#include "base/nearest.h"
#include "base/page.h"
#include "console/answer.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLI_MAX_OPTIONS = 64,
    CLI_HELP_SHOWN = -1,
    CLI_WRONG = -2,
    CLI_LONG_BASE = 1000, /* value of option i without a letter, for getopt */
    CLI_HELP_VALUE = 999,
};

void cli_error(const char *fmt, ...)
{
    char text[8192];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    answer_error(text);
    (void)fflush(stdout); /* keep the order of the two streams on a terminal */
    fprintf(stderr, "blipline: %s\n", text);
}

const char *cli_s(uint64_t n)
{
    return n == 1 ? "" : "s";
}

const char *cli_are(uint64_t n)
{
    return n == 1 ? " is" : "s are";
}

int cli_exit_of(int rc)
{
    return rc == -EDOM || rc == -ENOENT || rc == -ENOTDIR ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
}

int cli_exit_code(int parsed)
{
    return parsed == CLI_HELP_SHOWN ? CLI_EXIT_OK : CLI_EXIT_USAGE;
}

/* All options of a command: those of its table and those after it. */
struct all_options {
    struct cli_option list[CLI_MAX_OPTIONS];
    size_t n;
};

bool cli_option_at(const struct cli_command *c, size_t i, struct cli_option *ret)
{
    size_t n = 0;

    while (c->options && c->options[n].name)
        n++;
    if (i >= n)
        return c->more_options && c->more_options(i - n, ret);
    *ret = c->options[i];
    return true;
}

static void gather(const struct cli_command *c, struct all_options *ret)
{
    ret->n = 0;
    while (ret->n < CLI_MAX_OPTIONS && cli_option_at(c, ret->n, &ret->list[ret->n]))
        ret->n++;
}

static int takes_value(const struct cli_option *o)
{
    if (o->type == CLI_FLAG)
        return no_argument;
    return o->type == CLI_SETTING && o->choices ? optional_argument : required_argument;
}

/* Tables for getopt_long; `letters` begins with ':' so that getopt prints no errors. */
static void getopt_tables(const struct all_options *all, struct option *longs, char *letters)
{
    *letters++ = ':';
    *letters++ = 'h';
    for (size_t i = 0; i < all->n; i++) {
        const struct cli_option *o = &all->list[i];
        int value = takes_value(o);

        longs[i] = (struct option){o->name, value, NULL, CLI_LONG_BASE + (int)i};
        if (!o->letter)
            continue;
        *letters++ = o->letter;
        for (int k = 0; k < value; k++) /* "o:" needs a value, "o::" may have one */
            *letters++ = ':';
    }
    longs[all->n] = (struct option){"help", no_argument, NULL, CLI_HELP_VALUE};
    longs[all->n + 1] = (struct option){0};
    *letters = '\0';
}

static bool choice_allowed(const char *choices, const char *value)
{
    size_t n = strlen(value);

    for (const char *p = choices; *p; p += strspn(p, " ")) {
        size_t w = strcspn(p, " ");

        if (w == n && strncmp(p, value, n) == 0)
            return true;
        p += w;
    }
    return false;
}

static int set_real(const struct cli_command *c, const struct cli_option *o, const char *value, double *ret)
{
    double number;
    char *end;

    errno = 0;
    number = strtod(value, &end);
    if (errno || end == value || *end || isspace((unsigned char)*value) || !isfinite(number)) {
        cli_error("%s: --%s %s: not a number", c->name, o->name, value);
        return CLI_WRONG;
    }
    if (number < (double)o->min || number > (double)o->max) {
        cli_error("%s: --%s %s: from %lld to %lld", c->name, o->name, value, (long long)o->min, (long long)o->max);
        return CLI_WRONG;
    }
    *ret = number;
    return 0;
}

static int add_text(const struct cli_command *c, const struct cli_option *o, const char *value, struct cli_texts *ret)
{
    if (ret->n == CLI_MAX_TEXTS) {
        cli_error("%s: --%s: given more than %d times", c->name, o->name, CLI_MAX_TEXTS);
        return CLI_WRONG;
    }
    ret->texts[ret->n++] = value;
    return 0;
}

static int add_setting(const struct cli_command *c, const struct cli_option *o, const char *value,
                       struct cli_settings *ret)
{
    if (ret->n == CLI_MAX_SETTINGS) {
        cli_error("%s: --%s: more than %d options of this kind", c->name, o->name, CLI_MAX_SETTINGS);
        return CLI_WRONG;
    }
    ret->list[ret->n++] = (struct cli_setting){.name = o->name, .value = value ? value : o->choices};
    return 0;
}

static int set_number(const struct cli_command *c, const struct cli_option *o, const char *value, int64_t *ret)
{
    int64_t number;
    char *end;

    if (o->type == CLI_SIZE) {
        if (conf_parse_size(value, &number) < 0) {
            cli_error("%s: --%s %s: not a size such as 4096, 64MiB, 8GiB", c->name, o->name, value);
            return CLI_WRONG;
        }
    } else {
        errno = 0;
        number = strtoll(value, &end, 10);
        if (errno || end == value || *end || isspace((unsigned char)*value)) {
            cli_error("%s: --%s %s: not a whole number", c->name, o->name, value);
            return CLI_WRONG;
        }
    }
    if (number < o->min && o->max == INT64_MAX) {
        cli_error("%s: --%s %s: expected %lld or more", c->name, o->name, value, (long long)o->min);
        return CLI_WRONG;
    }
    if (number < o->min || number > o->max) {
        cli_error("%s: --%s %s: from %lld to %lld", c->name, o->name, value, (long long)o->min, (long long)o->max);
        return CLI_WRONG;
    }
    *ret = number;
    return 0;
}

static int set_option(const struct cli_command *c, const struct cli_option *o, const char *value, void *ret)
{
    void *field = (char *)ret + o->offset;

    switch (o->type) {
    case CLI_FLAG:
        *(bool *)field = true;
        return 0;
    case CLI_CHOICE:
        if (!choice_allowed(o->choices, value)) {
            cli_error("%s: --%s %s: not one of: %s", c->name, o->name, value, o->choices);
            return CLI_WRONG;
        }
        *(const char **)field = value;
        return 0;
    case CLI_TEXT:
        *(const char **)field = value;
        return 0;
    case CLI_REAL:
        return set_real(c, o, value, field);
    case CLI_TEXTS:
        return add_text(c, o, value, field);
    case CLI_SETTING:
        return add_setting(c, o, value, field);
    case CLI_NUMBER:
    case CLI_SIZE:
        break;
    }
    return set_number(c, o, value, field);
}

static int complain_unknown(const struct cli_command *c, const struct all_options *all, const char *typed)
{
    const char *words[CLI_MAX_OPTIONS + 2];
    char name[64], hint[96] = "";

    for (size_t i = 0; i < all->n; i++)
        words[i] = all->list[i].name;
    words[all->n] = "help";
    words[all->n + 1] = NULL;
    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(typed, "="), typed);
    if (strncmp(name, "--", 2) == 0)
        (void)nearest_hint("--", name + 2, words, hint, sizeof(hint));
    cli_error("%s: unknown option %s%s (blipline %s --help lists them)", c->name, name, hint, c->name);
    return CLI_WRONG;
}

/* Report an argument that getopt_long rejected; `v` is ':' or '?'. */
static int complain(const struct cli_command *c, const struct all_options *all, int v, int argc, char **argv)
{
    char letter[3] = {'-', (char)optopt, '\0'};
    const char *typed = optind > 0 && optind <= argc ? argv[optind - 1] : "";

    if (v == ':') {
        cli_error("%s: %s needs a value (blipline %s --help)", c->name, typed, c->name);
        return CLI_WRONG;
    }
    if (optopt >= CLI_LONG_BASE || optopt == CLI_HELP_VALUE) {
        cli_error("%s: %s takes no value", c->name, typed);
        return CLI_WRONG;
    }
    return complain_unknown(c, all, optopt ? letter : typed);
}

static int check_count(const struct cli_command *c, int n_args)
{
    if (n_args < c->min_args)
        cli_error("%s: an argument is missing: %.*s\nUsage: blipline %s %s", c->name, (int)strcspn(c->usage, " "),
                  c->usage, c->name, c->usage);
    else if (c->max_args >= 0 && n_args > c->max_args)
        cli_error("%s: too many arguments\nUsage: blipline %s %s", c->name, c->name, c->usage);
    else
        return n_args;
    return CLI_WRONG;
}

int cli_parse(const struct cli_command *c, int argc, char **argv, void *ret)
{
    struct option longs[CLI_MAX_OPTIONS + 2];
    char letters[3 * CLI_MAX_OPTIONS + 4];
    struct all_options all;
    int v;

    gather(c, &all);
    getopt_tables(&all, longs, letters);
    optind = 0; /* glibc: reset, including the permutation */
    opterr = 0;
    while ((v = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct cli_option *o = NULL;

        if (v == 'h' || v == CLI_HELP_VALUE) {
            cli_print_help(c, stdout);
            return CLI_HELP_SHOWN;
        }
        if (v == ':' || v == '?')
            return complain(c, &all, v, argc, argv);
        for (size_t i = 0; i < all.n; i++) {
            if (v == CLI_LONG_BASE + (int)i || (v < CLI_HELP_VALUE && all.list[i].letter == (char)v))
                o = &all.list[i];
        }
        if (!o || set_option(c, o, optarg, ret) < 0)
            return CLI_WRONG;
    }
    return check_count(c, argc - optind);
}

static void print_option(const struct cli_option *o, FILE *out)
{
    bool optional = takes_value(o) == optional_argument;
    char letter[8] = "    ", name[64];

    if (o->letter)
        (void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
    (void)snprintf(name, sizeof(name), "  %s--%s%s%s%s", letter, o->name,
                   !o->value  ? ""
                   : optional ? "[="
                              : " ",
                   o->value ? o->value : "", o->value && optional ? "]" : "");
    page_item(name, PAGE_COLUMN, o->help, out);
}

void cli_print_help(const struct cli_command *c, FILE *out)
{
    struct all_options all;
    char usage[256];

    gather(c, &all);
    (void)snprintf(usage, sizeof(usage), "blipline %s %s", c->name, c->usage);
    page_item("Usage:", 7, usage, out);
    fputc('\n', out);
    page_text(c->about, out);
    fputs("\nOptions:\n", out);
    for (size_t i = 0; i < all.n; i++)
        print_option(&all.list[i], out);
    page_item("  -h, --help", PAGE_COLUMN, "this page", out);
    if (c->examples)
        fprintf(out, "\n%s", c->examples);
}
