/* options.h - the command line that all four daemons share, and nothing else: -f FILE -n -t DIR -v -V -h, each with a
 * long name too. Exits on -h, -V and on anything it does not know (EXIT_USAGE).
 * Memory: strings point into argv. */
#ifndef BLIPLINE_BASE_OPTIONS_H
#define BLIPLINE_BASE_OPTIONS_H

#include "base/conf.h"

#include <stdbool.h>

#define BLIPLINE_VERSION "0.1.0"

struct options {
    const char *file;       /* -f: configuration file, NULL: defaults */
    const char *golden_dir; /* -t: self-test on this directory, JSON on standard output, then exit */
    bool check_only;        /* -n: check the configuration (and open its GPU), then exit */
    bool verbose;           /* -v: log level debug */
};

/* `what` is one line for -h; `table` prints the configuration keys there. */
struct options options_parse(int argc, char **argv, const char *program, const char *what,
                             const struct conf_key *table);

#endif
