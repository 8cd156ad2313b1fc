/* lines.h - the lines of a list, of whatever kind, as a stream; nobody outside source/ includes this.
 *
 * A byte order mark at the beginning is left out. What is no text at all (archives, Parquet, pictures, UTF-16) is
 * refused by its name when the list is opened.
 * Who may call: one thread a list.
 * Units: bytes.
 * Memory: lines_close; a line is valid until the next one is read.
 * Errors: negative errno; err names the list, and the line where there is one. */
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
    char head[LINES_HEAD_BYTES]; /* what was read ahead to see what this is */
    size_t n_head, i_head;
    char *line; /* the last one with its end; NUL-terminated as well */
    size_t bytes, capacity;
    bool has_nul;        /* it holds a NUL byte */
    bool is_pipe;        /* or standard input: no name says what it is */
    uint64_t number;     /* of `line`, from 1 */
    char base[PATH_MAX]; /* the absolute folder that its names start from */
    char name[256];      /* for messages */
};

/* `path` as the user wrote it; "-" is standard input. Names in pipes and the like (<(find ...) of a shell) start from
 * the working folder, as those of standard input do. The struct need not be initialised. */
int lines_open(struct lines *l, const char *path, struct err *err) CHECK_RESULT;
void lines_close(struct lines *l); /* of a zeroed struct: nothing */
/* 1, 0 at the end of the file, negative. */
int lines_next(struct lines *l, struct err *err) CHECK_RESULT;
/* The first byte that is no blank, before any line was read; '\0': there is none among the first. */
char lines_first_byte(const struct lines *l);

/* Is this the address of something on the network? */
bool lines_is_url(const char *text);

#endif
