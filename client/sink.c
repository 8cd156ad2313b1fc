#include "client/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int sink_open(struct sink *s, const char *path, struct err *err)
{
    mode_t mask = umask(0);

    (void)umask(mask);
    *s = (struct sink){.path = path, .fd = STDOUT_FILENO};
    buf_init(&s->rows, 0);
    if (!path)
        return 0;
    s->fd = -1;
    if (asprintf(&s->temporary, "%s.XXXXXX", path) < 0) {
        s->temporary = NULL;
        return -ENOMEM;
    }
    s->fd = mkostemp(s->temporary, O_CLOEXEC);
    if (s->fd < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    (void)fchmod(s->fd, 0666 & ~mask); /* as open(2) would have it */
    return 0;
}

int sink_flush(struct sink *s, size_t at_least, struct err *err)
{
    size_t done = 0;

    if (s->rows.size_bytes < at_least)
        return 0;
    while (done < s->rows.size_bytes) {
        ssize_t n = write(s->fd, s->rows.data + done, s->rows.size_bytes - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "%s: %s", s->path ? s->path : "standard output", strerror(errno));
        done += (size_t)n;
    }
    buf_clear(&s->rows);
    return 0;
}

int sink_rewrite_head(struct sink *s, const void *data, size_t n, struct err *err)
{
    if (pwrite(s->fd, data, n, 0) != (ssize_t)n)
        return err_set(err, errno ? -errno : -EIO, "%s: %s", s->path, strerror(errno ? errno : EIO));
    return 0;
}

int sink_finish(struct sink *s, struct err *err)
{
    int rc = sink_flush(s, 0, err);

    if (rc < 0 || !s->path)
        return rc;
    if (fsync(s->fd) < 0 || rename(s->temporary, s->path) < 0)
        return err_set(err, -errno, "%s: %s", s->path, strerror(errno));
    free(s->temporary);
    s->temporary = NULL;
    return 0;
}

void sink_release(struct sink *s)
{
    if (s->path && s->fd >= 0)
        (void)close(s->fd);
    if (s->temporary)
        (void)unlink(s->temporary);
    free(s->temporary);
    buf_release(&s->rows);
}
