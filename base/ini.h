/* ini.h - INI text, on top of inih: "[section]" and "key = value"; comments behind # and ;.
 *
 * A value in quotes keeps blanks at its ends, and semicolons. inih cuts lines at the length that it was built with, so
 * a longer one is refused, unless it is a comment.
 * Who may call: anyone; the file stays the caller's, who has opened it. Memory: none is kept.
 * Errors: negative errno; err begins with `where` and the number of the line. */
#ifndef BLIPLINE_BASE_INI_H
#define BLIPLINE_BASE_INI_H

#include "base/err.h"

#include <stdbool.h>
#include <stdio.h>

enum { INI_SECTION_SIZE = 32, INI_KEY_SIZE = 40, INI_VALUE_SIZE = 2056 };

struct ini_reader {
    bool continues; /* a line that begins with blanks goes on with the value above; else those blanks mean nothing */
    /* A section begins, also one without keys. NULL: there are none. `at` is "FILE, line N", for err. */
    int (*section)(void *arg, const char *name, const char *at, struct err *err);
    /* section "": above the first one. */
    int (*value)(void *arg, const char *section, const char *key, const char *value, unsigned line, const char *at,
                 struct err *err);
    void *arg;
};

/* `where`: the file's name, for err. */
int ini_read(FILE *file, const char *where, const struct ini_reader *how, struct err *err) CHECK_RESULT;

#endif
