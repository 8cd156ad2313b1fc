/* fetch.h - reads the bytes of one item.
 *
 * Who may call: any thread with its own buffer. May block on the disk, never on a pipe or a device.
 * Units:  bytes.
 * Memory: the caller's buffer is emptied first and can be reused.
 * Errors: an image_error; `err` says why in plain ASCII without the path (paths may hold any byte). */
#ifndef BLIPLINE_SOURCE_FETCH_H
#define BLIPLINE_SOURCE_FETCH_H

#include "base/buf.h"
#include "source/image_error.h"

#include <stddef.h>

/* Reads the regular file `path` (NUL-terminated), at most max_file_bytes. IMAGE_EMPTY for an empty file. */
enum image_error source_fetch(const char *path, size_t max_file_bytes, struct buf *ret, struct err *err) CHECK_RESULT;

/* What is wrong with a file of this size, if anything. */
enum image_error source_fetched(size_t n_bytes, size_t max_file_bytes, struct err *err) CHECK_RESULT;

#endif
