#include "base/options.h"

#include "base/log.h"

#include <stdlib.h>
#include <unistd.h>

static void print_help(const char *program, const char *what, const struct conf_key *table)
{
    printf("%s - %s\n\n"
           "usage: %s [-f FILE] [-n] [-t DIR] [-v] [-V] [-h]\n"
           "  -f FILE  configuration file (INI, keys below)\n"
           "  -n       check the configuration, the model and GPU that it names, and exit\n"
           "  -t DIR   self-test on a golden directory, JSON on standard output\n"
           "  -v       log at level debug\n"
           "  -V       version\n"
           "  -h       this help\n\n"
           "The daemon runs in the foreground, logs to standard error and drains on SIGTERM.\n"
           "Exit codes: %d stopped as it was told to, %d ended by an error, %d wrong command line, %d wrong "
           "configuration\n"
           "(starting again would not help; also whatever -n finds), %d could not start (model, device, socket).\n\n"
           "Configuration keys with their defaults:\n\n",
           program, what, program, EXIT_SUCCESS, EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG, EXIT_INIT);
    conf_print_help(table, stdout);
}

struct options options_parse(int argc, char **argv, const char *program, const char *what, const struct conf_key *table)
{
    struct options o = {0};
    int c;

    while ((c = getopt(argc, argv, "f:nt:vVh")) != -1) {
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
            exit(EXIT_USAGE);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument \"%s\" (see -h)\n", program, argv[optind]);
        exit(EXIT_USAGE);
    }
    return o;
}
