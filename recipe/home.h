/* home.h - where what comes with the program lies: the source tree that it was built in, or PREFIX/share/blipline.
 *
 * Who may call: one thread. Units: none. Memory: plain values. Errors: negative errno with `err` where there is one. */
#ifndef BLIPLINE_RECIPE_HOME_H
#define BLIPLINE_RECIPE_HOME_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>

struct home {
    char path[PATH_MAX]; /* its models are in models/ */
    bool installed;      /* else it is a source tree, of the program or of the working folder */
};

/* -ENOENT: it is nowhere. */
int home_find(struct home *ret, struct err *err) CHECK_RESULT;

/* The folder of the checkpoint `name`, which is the value of `option` (--model): a path, or the name of a folder in the
 * working folder, in models/ there, or in the models/ that came with the program. -EDOM: there is none; `err` says
 * where it was looked for and how to get one. */
int home_model(const char *option, const char *name, char ret[PATH_MAX], struct err *err) CHECK_RESULT;

#endif
