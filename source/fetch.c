#include "source/fetch.h"

#include "base/conf.h"
#include "base/file.h"

#include <errno.h>
#include <string.h>

enum image_error source_fetched(size_t n_bytes, size_t max_file_bytes, struct err *err)
{
    char limit[CONF_SIZE_TEXT];

    if (n_bytes == 0) {
        (void)err_set(err, -ENODATA, "the file is empty");
        return IMAGE_EMPTY;
    }
    if (n_bytes <= max_file_bytes)
        return IMAGE_OK;
    (void)err_set(err, -EFBIG, "the file is larger than --max-file-size, which is %s",
                  conf_size_text(max_file_bytes, limit));
    return IMAGE_TOO_LARGE;
}

enum image_error source_fetch(const char *path, size_t max_file_bytes, struct buf *ret, struct err *err)
{
    int rc;

    buf_clear(ret);
    rc = file_read(path, max_file_bytes, ret, NULL);
    switch (rc) {
    case 0:
        return source_fetched(ret->size_bytes, max_file_bytes, err);
    case -ENOENT:
    case -ENOTDIR:
        (void)err_set(err, rc, "no such file");
        return IMAGE_MISSING;
    case -EFBIG:
        return source_fetched(max_file_bytes + 1, max_file_bytes, err);
    case -ENOMEM:
        (void)err_set(err, rc, "no memory to read the file");
        return IMAGE_NO_MEMORY;
    case -EISDIR:
        (void)err_set(err, rc, "it is a folder, not a file");
        return IMAGE_UNREADABLE;
    case -EINVAL:
    case -ENXIO:
        (void)err_set(err, rc, "it is a device, socket or pipe, not a file");
        return IMAGE_UNREADABLE;
    default:
        (void)err_set(err, rc, "cannot read the file: %s", strerror(-rc));
        return IMAGE_UNREADABLE;
    }
}
