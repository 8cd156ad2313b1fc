/* sink.h - where an export goes: standard output, a file that is complete or not there, or a pipe or device.
 *
 * A regular file, and one that does not exist yet, is written beside its path and put there in one piece by rename; a
 * link to it stays a link. Anything else that is there (a FIFO, /dev/stdout, /dev/full) is written to as it is.
 * Who may call: one thread. Units: bytes.
 * Memory: sink_release closes and, unless sink_finish succeeded, removes the temporary file; it may follow any call.
 * Errors: negative errno, err names the file. */
#ifndef BLIPLINE_CLIENT_EXPORT_SINK_H
#define BLIPLINE_CLIENT_EXPORT_SINK_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct sink {
    const char *path; /* as given; NULL: standard output */
    char *target;     /* where the links of `path` lead; NULL: nothing is put there at the end */
    char *temporary;  /* becomes `target` at the end */
    int fd;
    struct buf rows; /* append here */
};

/* `path` must outlive the sink; NULL and "-" are standard output. `rewritten`: sink_rewrite_head will be called, which
 * needs a regular file: -ESPIPE for others. */
int sink_open(struct sink *s, const char *path, bool rewritten, struct err *err) CHECK_RESULT;
/* For rows that are read while they are written: a regular file is written where it is, from its beginning. */
int sink_open_growing(struct sink *s, const char *path, struct err *err) CHECK_RESULT;
/* Write out what has been appended, once it is at least so much. */
int sink_flush(struct sink *s, size_t at_least, struct err *err) CHECK_RESULT;
/* Put bytes at the very beginning of a file, over what is there: everything has been flushed before. */
int sink_rewrite_head(struct sink *s, const void *data, size_t n, struct err *err) CHECK_RESULT;
int sink_finish(struct sink *s, struct err *err) CHECK_RESULT;
void sink_release(struct sink *s);

#endif
