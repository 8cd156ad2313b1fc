/* file.h - whole files: read with a limit, map read-only, write atomically.
 *
 * Units: bytes.
 * Memory: see each function.
 * Errors: negative errno; `err` names the file and the cure. Every descriptor is opened O_CLOEXEC. Thread-safe. */
#ifndef BLIPLINE_BASE_FILE_H
#define BLIPLINE_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <limits.h>
#include <stddef.h>

struct file_map {
    const unsigned char *data; /* read-only; NULL when the file is empty */
    size_t size_bytes;
};

/* Read the whole regular file into `ret` (initialised by the caller, appended to). -EFBIG past max_bytes;
 * -EISDIR/-EINVAL for what is not a regular file (fifos and devices are never opened blocking). */
int file_read(const char *path, size_t max_bytes, struct buf *ret, struct err *err) CHECK_RESULT;

/* Map a regular file read-only. Caller releases with file_unmap. A later truncation by others means SIGBUS. */
int file_map(const char *path, struct file_map *ret, struct err *err) CHECK_RESULT;
void file_unmap(struct file_map *m);

/* Write temp file, fsync, rename over `path`, fsync the folder. */
int file_write_atomic(const char *path, const void *data, size_t n, struct err *err) CHECK_RESULT;

/* The last part of a path, trailing slashes aside ("models/demo/" gives "demo"), cut to fit. */
void file_base_name(const char *path, char *ret, size_t size);

/* The folder of the running program, without a slash at its end; "" and negative errno where /proc cannot say it. */
int file_program_folder(char ret[PATH_MAX], struct err *err) CHECK_RESULT;

#endif
