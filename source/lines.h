/* lines.h - reads the lines of a list of any kind as a stream; private to source/.
 *
 * Skips a byte order mark. Opening a file that is not text (archives, Parquet, images, UTF-16) is an error that names
 * its kind.
 * Who may call: one thread per list.
 * Units: bytes.
 * Memory: freed with lines_close; a line is valid until the next one is read.
 * Errors: negative errno; err names the list and, if there is one, the line. */
#ifndef BLIPLINE_SOURCE_LINES_H
#define BLIPLINE_SOURCE_LINES_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { LINES_HEAD_BYTES = 512 };

struct lines {
    FILE *file;
    char head[LINES_HEAD_BYTES]; /* the first bytes, read ahead to detect the kind */
    size_t n_head, i_head;
    char *line; /* the current line with its line end, NUL-terminated */
    size_t bytes, capacity;
    bool has_nul;        /* the line contains a NUL byte */
    bool is_pipe;        /* a pipe or standard input: the name does not tell the kind */
    uint64_t number;     /* of `line`, from 1 */
    char base[PATH_MAX]; /* the absolute folder for relative names */
    char name[256];      /* for messages */
};

/* `path` as the user wrote it; "-" is standard input. Names from standard input and pipes (a shell's <(find)) are
 * relative to the working folder. The struct need not be initialised. */
int lines_open(struct lines *l, const char *path, struct err *err) CHECK_RESULT;
void lines_close(struct lines *l); /* a zeroed struct is allowed */
/* Returns 1, 0 at the end of the file, or a negative errno. */
int lines_next(struct lines *l, struct err *err) CHECK_RESULT;
/* The first non-blank byte of the list, or '\0' if the first bytes are all blank. Call before lines_next. */
char lines_first_byte(const struct lines *l);

/* True if the text is a URL. */
bool lines_is_url(const char *text);

#endif
