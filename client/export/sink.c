#include "client/export/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINKS = 40 };

/* Where the links lead that `path` ends in, whether or not there is anything: rename replaces a link, not what it
 * names. NULL with errno. */
static char *follow_links(const char *path)
{
    char *at = strdup(path), to[PATH_MAX], *next;

    for (int i = 0; at && i < MAX_LINKS; i++) {
        ssize_t n = readlink(at, to, sizeof(to) - 1);
        const char *slash = strrchr(at, '/');
        int folder = slash ? (int)(slash + 1 - at) : 0;

        if (n < 0)
            return at; /* no link, or nothing there */
        to[n] = '\0';
        if (asprintf(&next, "%.*s%s", to[0] == '/' ? 0 : folder, at, to) < 0)
            next = NULL;
        free(at);
        at = next;
    }
    if (at)
        errno = ELOOP;
    free(at);
    return NULL;
}

static int open_beside(struct sink *s, mode_t mode, struct err *err)
{
    s->target = follow_links(s->path);
    if (!s->target)
        return err_set(err, -errno, "%s: %s", s->path, strerror(errno));
    if (asprintf(&s->temporary, "%s.XXXXXX", s->target) < 0) {
        s->temporary = NULL;
        return -ENOMEM;
    }
    s->fd = mkostemp(s->temporary, O_CLOEXEC);
    if (s->fd < 0) {
        int rc = err_set(err, -errno, "%s: %s", s->path, strerror(errno));

        free(s->temporary);
        s->temporary = NULL;
        return rc;
    }
    (void)fchmod(s->fd, mode);
    return 0;
}

int sink_open(struct sink *s, const char *path, bool rewritten, struct err *err)
{
    bool is_stdout = !path || strcmp(path, "-") == 0;
    mode_t mask = umask(0);
    struct stat st;

    (void)umask(mask);
    *s = (struct sink){.path = is_stdout ? NULL : path, .fd = is_stdout ? STDOUT_FILENO : -1};
    buf_init(&s->rows, 0);
    if (is_stdout)
        return rewritten ? err_set(err, -ESPIPE, "standard output cannot take an array: it is a file of its own") : 0;
    if (stat(path, &st) < 0)
        return open_beside(s, 0666 & ~mask, err); /* as open(2) would have it */
    if (S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%s: %s", path, strerror(EISDIR));
    if (S_ISREG(st.st_mode))
        return open_beside(s, st.st_mode & 0777, err);
    if (rewritten)
        return err_set(err, -ESPIPE,
                       "%s: a pipe or device cannot take an array, whose head is written when its rows are known; name "
                       "a file",
                       path);
    s->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return s->fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

int sink_open_growing(struct sink *s, const char *path, struct err *err)
{
    if (!path || strcmp(path, "-") == 0)
        return sink_open(s, path, false, err);
    *s = (struct sink){.path = path};
    buf_init(&s->rows, 0);
    s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    return s->fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
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

    if (rc < 0 || !s->temporary)
        return rc;
    if (fsync(s->fd) < 0 || rename(s->temporary, s->target) < 0)
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
    free(s->target);
    buf_release(&s->rows);
}
