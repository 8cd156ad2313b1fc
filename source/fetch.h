/* fetch.h - the bytes of one item.
 *
 * Who may call: any thread with its own buffer. Blocks on the disk, never on a pipe or a device.
 * Units:  bytes.
 * Memory: the bytes land in the caller's buffer, which is emptied first and kept between calls.
 * Errors: an image_error; `err` says why in plain ASCII without the path (paths may hold any byte). */
#ifndef BLIPLINE_SOURCE_FETCH_H
#define BLIPLINE_SOURCE_FETCH_H

#include "base/buf.h"
#include "source/image_error.h"

#include <stddef.h>

/* Read the regular file `path` (NUL-terminated), at most max_file_bytes. IMAGE_EMPTY for a file of no bytes. */
enum image_error source_fetch(const char *path, size_t max_file_bytes, struct buf *ret, struct err *err) CHECK_RESULT;

#endif
