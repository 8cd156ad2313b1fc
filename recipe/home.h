/* home.h - the folder of the files that come with the program: PREFIX/share/blipline, or the source tree.
 *
 * Who may call: one thread. Units: none. Memory: plain values. Errors: negative errno and `err`. */
#ifndef BLIPLINE_RECIPE_HOME_H
#define BLIPLINE_RECIPE_HOME_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>

struct home {
    char path[PATH_MAX]; /* its models are in models/ */
    bool installed;      /* false: a source tree, above the program or the working folder */
};

/* -ENOENT: not found. */
int home_find(struct home *ret, struct err *err) CHECK_RESULT;

/* Find the folder of the checkpoint `name`, the value of `option` (--model): a path, or the name of a folder in the
 * working folder, in its models/, or in the models/ that come with the program. -EDOM: not found; `err` says where it
 * was searched and how to get one. */
int home_model(const char *option, const char *name, char ret[PATH_MAX], struct err *err) CHECK_RESULT;

#endif
