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
 * -EISDIR or -EINVAL if it is not a regular file (opening a FIFO or device does not block). */
int file_read(const char *path, size_t max_bytes, struct buf *ret, struct err *err) CHECK_RESULT;

/* Map a regular file read-only; the caller releases it with file_unmap. If the file is truncated later, reading the map
 * raises SIGBUS. */
int file_map(const char *path, struct file_map *ret, struct err *err) CHECK_RESULT;
void file_unmap(struct file_map *m);

/* Write a temporary file, fsync it, rename it to `path`, fsync the folder. */
int file_write_atomic(const char *path, const void *data, size_t n, struct err *err) CHECK_RESULT;

/* Make a new name in the folder of `path` durable. */
int file_sync_folder_of(const char *path, struct err *err) CHECK_RESULT;

/* Make the folder, for its owner only; one that exists is left as it is. */
int file_make_folder(const char *path, struct err *err) CHECK_RESULT;
/* The folders above `path`, from its byte `from` on; `path` is as before when it returns. */
int file_make_folders_above(char *path, size_t from, struct err *err) CHECK_RESULT;

/* The last component of a path ("models/demo/" gives "demo"), truncated to `size`. */
void file_base_name(const char *path, char *ret, size_t size);

/* The folder of the running program, without a trailing slash. On error `ret` is "". */
int file_program_folder(char ret[PATH_MAX], struct err *err) CHECK_RESULT;

#endif
