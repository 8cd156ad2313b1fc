/* options.h - the command line of all four daemons: -f FILE -n -t DIR -v -V -h, each also with a long name.
 *
 * Exits on -h and -V, and with EXIT_USAGE on an unknown argument.
 * Memory: strings point into argv. */
#ifndef BLIPLINE_BASE_OPTIONS_H
#define BLIPLINE_BASE_OPTIONS_H

#include "base/conf.h"

#include <stdbool.h>

#define BLIPLINE_VERSION "0.1.0"

struct options {
    const char *file;       /* -f: configuration file, NULL: defaults */
    const char *golden_dir; /* -t: compare with the reference data here, print JSON, exit */
    bool check_only;        /* -n: check the configuration, the model and the GPU, exit */
    bool verbose;           /* -v: log level debug */
};

/* For -h: `what` describes the program in one line, `table` has its configuration keys. */
struct options options_parse(int argc, char **argv, const char *program, const char *what,
                             const struct conf_key *table);

#endif
