#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *b, size_t max_bytes)
{
    *b = (struct buf){.max_bytes = max_bytes};
}

void buf_release(struct buf *b)
{
    free(b->data);
    buf_init(b, b->max_bytes);
}

void buf_clear(struct buf *b)
{
    b->size_bytes = 0;
}

int buf_reserve(struct buf *b, size_t extra)
{
    size_t need, capacity = b->capacity_bytes ? b->capacity_bytes : 256;
    uint8_t *data;

    if (extra > SIZE_MAX / 2 - b->size_bytes)
        return -EFBIG;
    need = b->size_bytes + extra;
    if (b->max_bytes && need > b->max_bytes)
        return -EFBIG;
    if (need <= b->capacity_bytes)
        return 0;
    while (capacity < need)
        capacity *= 2;
    data = realloc(b->data, capacity);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->capacity_bytes = capacity;
    return 0;
}

int buf_append(struct buf *b, const void *data, size_t n)
{
    int rc = buf_reserve(b, n);

    if (rc < 0)
        return rc;
    if (n)
        memcpy(b->data + b->size_bytes, data, n);
    b->size_bytes += n;
    return 0;
}

int buf_appendf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n, rc;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return -EINVAL;
    rc = buf_reserve(b, (size_t)n + 1);
    if (rc < 0)
        return rc;
    va_start(ap, fmt);
    (void)vsnprintf((char *)b->data + b->size_bytes, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->size_bytes += (size_t)n;
    return 0;
}
