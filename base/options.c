#include "base/options.h"

#include "base/log.h"
#include "base/nearest.h"
#include "base/page.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For the parser and the help page. */
static const struct {
    char letter;
    const char *name, *value, *help;
} rows[] = {
    {'f', "config", "FILE", "configuration file (INI, keys below)"},
    {'n', "check", NULL, "check the configuration and the model and GPU it names, then exit"},
    {'t', "selftest", "DIR", "compare with the reference data in DIR and print JSON (workers only)"},
    {'v', "verbose", NULL, "log at level debug"},
    {'V', "version", NULL, "print the version and exit"},
    {'h', "help", NULL, "print this page and exit"},
};

enum { N_ROWS = sizeof(rows) / sizeof(*rows) };

static void print_help(const char *program, const char *what, const struct conf_key *table)
{
    char name[64];

    printf("Usage: %s [-f FILE] [OPTIONS]\n\n", program);
    printf("%s - %s.\n\n", program, what);
    page_text("The daemon runs in the foreground, logs to standard error and drains on SIGTERM.\n\n"
              "Options:\n",
              stdout);
    for (int i = 0; i < N_ROWS; i++) {
        (void)snprintf(name, sizeof(name), "  -%c, --%s%s%s", rows[i].letter, rows[i].name, rows[i].value ? " " : "",
                       rows[i].value ? rows[i].value : "");
        page_item(name, PAGE_COLUMN, rows[i].help, stdout);
    }
    printf("\nExit codes:\n"
           "  %-2d  stopped on request\n"
           "  %-2d  stopped by an error\n"
           "  %-2d  wrong command line\n"
           "  %-2d  could not start (model, device, socket)\n"
           "  %-2d  wrong configuration, or another error that -n reports; a restart does\n"
           "      not help\n\n"
           "Configuration keys with their defaults:\n\n",
           EXIT_SUCCESS, EXIT_FAILURE, EXIT_USAGE, EXIT_INIT, EXIT_CONFIG);
    conf_print_help(table, stdout);
}

/* Report an argument that getopt_long rejected, and exit. */
static void complain(const char *program, int c, char **argv)
{
    const char *typed = argv[optind - 1], *words[N_ROWS + 1] = {NULL};
    char letter[3] = {'-', (char)optopt, '\0'}, hint[64] = "", name[64];

    for (int i = 0; i < N_ROWS; i++)
        words[i] = rows[i].name;
    (void)snprintf(name, sizeof(name), "%s", typed);
    name[strcspn(name, "=")] = '\0';
    if (c == ':')
        fprintf(stderr, "%s: %s needs a value (%s --help)\n", program, typed, program);
    else if (strncmp(typed, "--", 2) == 0 && optopt)
        fprintf(stderr, "%s: %s takes no value (%s --help)\n", program, name, program);
    else if (strncmp(typed, "--", 2) == 0)
        fprintf(stderr, "%s: unknown option %s%s (%s --help lists them)\n", program, name,
                nearest_hint("--", name + 2, words, hint, sizeof(hint)), program);
    else
        fprintf(stderr, "%s: unknown option %s (%s --help lists them)\n", program, letter, program);
    exit(EXIT_USAGE);
}

struct options options_parse(int argc, char **argv, const char *program, const char *what, const struct conf_key *table)
{
    struct option longs[N_ROWS + 1] = {0};
    char letters[2 * N_ROWS + 2] = ":";
    struct options o = {0};
    int c;

    for (int i = 0; i < N_ROWS; i++) {
        size_t n = strlen(letters);

        longs[i] = (struct option){rows[i].name, rows[i].value ? required_argument : no_argument, NULL, rows[i].letter};
        (void)snprintf(letters + n, sizeof(letters) - n, "%c%s", rows[i].letter, rows[i].value ? ":" : "");
    }
    opterr = 0;
    while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        switch (c) {
        case 'f':
            o.file = optarg;
            break;
        case 'n':
            o.check_only = true;
            break;
        case 't':
            o.golden_dir = optarg;
            break;
        case 'v':
            o.verbose = true;
            break;
        case 'V':
            printf("%s %s\n", program, BLIPLINE_VERSION);
            exit(EXIT_SUCCESS);
        case 'h':
            print_help(program, what, table);
            exit(EXIT_SUCCESS);
        default:
            complain(program, c, argv);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument \"%s\" (%s --help)\n", program, argv[optind], program);
        exit(EXIT_USAGE);
    }
    return o;
}
