/* main.c - the `blipline` command: runs a command or prints the list of commands. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "console/answer.h"
#include "console/cli.h"
#include "client/commands.h"
#include "console/shell.h"

/* Output that could not be written (full disk, closed pipe) is an error. */
static int finish(int code)
{
    const int flushed = fflush(stdout);

    if (flushed == 0 && !ferror(stdout))
        return code;
    cli_error("standard output: %s", flushed == 0 ? "not everything could be written" : strerror(errno));
    return code == CLI_EXIT_OK ? CLI_EXIT_ERROR : code;
}

static int run(int argc, char **argv)
{
    const struct cli_command *c = argc > 1 ? help_find_command(argv[1]) : NULL;

    if (argc < 2) {
        help_overview(stderr);
        return CLI_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_overview(stdout);
        return CLI_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return cmd_version.run(&cmd_version, 1, argv);
    return c ? c->run(c, argc - 1, argv + 1) : help_complain_unknown(argv[1]);
}

int main(int argc, char **argv)
{
    int code;

    (void)setlocale(LC_CTYPE, "");
    log_init("blipline", LOG_LEVEL_WARN);
    shell_set_program(argv[0]);
    answer_begin(argc, argv);
    code = run(argc, argv);
    answer_end(code);
    return finish(code);
}
