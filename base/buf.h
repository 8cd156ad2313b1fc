/* buf.h - a growable byte buffer with a size limit.
 *
 * Memory: the buffer owns `data`; buf_release frees it and makes the buffer empty (and usable again).
 * Errors: -ENOMEM, or -EFBIG past `max_bytes`; a call that fails has changed nothing. Not thread-safe. */
#ifndef BLIPLINE_BASE_BUF_H
#define BLIPLINE_BASE_BUF_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data;
    size_t size_bytes;
    size_t capacity_bytes;
    size_t max_bytes; /* 0: no limit */
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory */
/* Make room for `extra` more bytes after size_bytes. */
int buf_reserve(struct buf *b, size_t extra) CHECK_RESULT;
int buf_append(struct buf *b, const void *data, size_t n) CHECK_RESULT;
int buf_appendf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3) CHECK_RESULT;

#endif
