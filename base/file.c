#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(const char *path, size_t *ret_size, struct err *err)
{
    struct stat st;
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        rc = -errno;
        return err_set(err, rc, "%s: cannot open: %s", path, strerror(-rc));
    }
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        (void)close(fd);
        return err_set(err, rc, "%s: cannot stat: %s", path, strerror(-rc));
    }
    if (!S_ISREG(st.st_mode)) {
        (void)close(fd);
        rc = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
        return err_set(err, rc, "%s: is %s, not a regular file", path,
                       rc == -EISDIR ? "a directory" : "a device, socket or pipe");
    }
    *ret_size = (size_t)st.st_size;
    return fd;
}

int file_read(const char *path, size_t max_bytes, struct buf *ret, struct err *err)
{
    size_t size = 0, before = ret->size_bytes, total = 0;
    int rc = 0, fd = open_regular(path, &size, err);

    if (fd < 0)
        return fd;
    if (size > max_bytes) {
        rc = err_set(err, -EFBIG, "%s: %zu bytes, the limit is %zu", path, size, max_bytes);
        goto out;
    }
    for (;;) { /* the file may grow or shrink while it is read */
        ssize_t n;

        rc = buf_reserve(ret, (size > total ? size - total : 0) + 1);
        if (rc < 0) {
            rc = err_set(err, rc, "%s: cannot read %zu bytes: %s", path, size, strerror(-rc));
            goto out;
        }
        n = read(fd, ret->data + ret->size_bytes, ret->capacity_bytes - ret->size_bytes);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            rc = -errno;
            rc = err_set(err, rc, "%s: cannot read: %s", path, strerror(-rc));
            goto out;
        }
        if (n == 0)
            break;
        ret->size_bytes += (size_t)n;
        total += (size_t)n;
        if (total > max_bytes) {
            rc = err_set(err, -EFBIG, "%s: more than %zu bytes, the limit", path, max_bytes);
            goto out;
        }
    }
    rc = 0;
out:
    if (rc < 0)
        ret->size_bytes = before;
    (void)close(fd);
    return rc;
}

int file_map(const char *path, struct file_map *ret, struct err *err)
{
    struct file_map m = {0};
    int rc, fd = open_regular(path, &m.size_bytes, err);

    if (fd < 0)
        return fd;
    if (m.size_bytes) {
        void *p = mmap(NULL, m.size_bytes, PROT_READ, MAP_SHARED, fd, 0);

        if (p == MAP_FAILED) {
            rc = -errno;
            (void)close(fd);
            return err_set(err, rc, "%s: cannot map %zu bytes: %s", path, m.size_bytes, strerror(-rc));
        }
        m.data = p;
    }
    (void)close(fd);
    *ret = m;
    return 0;
}

void file_unmap(struct file_map *m)
{
    if (m->data)
        (void)munmap((void *)(uintptr_t)m->data, m->size_bytes);
    *m = (struct file_map){0};
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

int file_sync_folder_of(const char *path, struct err *err)
{
    char folder[PATH_MAX];
    char *slash;
    int fd, rc = 0;

    (void)snprintf(folder, sizeof(folder), "%s", path);
    slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        rc = -errno;
    if (fd >= 0)
        (void)close(fd);
    return rc < 0 ? err_set(err, rc, "%s: cannot sync its folder: %s", path, strerror(-rc)) : 0;
}

int file_write_atomic(const char *path, const void *data, size_t n, struct err *err)
{
    char temp[PATH_MAX];
    int fd, rc;

    if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
        return err_set(err, -ENAMETOOLONG, "%s: path too long", path);
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        return err_set(err, rc, "%s: cannot create: %s", temp, strerror(-rc));
    }
    rc = fchmod(fd, 0644) < 0 ? -errno : 0;
    if (rc == 0)
        rc = write_all(fd, data, n);
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(temp, path) < 0)
        rc = -errno;
    if (rc < 0) {
        (void)unlink(temp);
        return err_set(err, rc, "%s: cannot write: %s", path, strerror(-rc));
    }
    return file_sync_folder_of(path, err);
}

int file_make_folder(const char *path, struct err *err)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return 0;
    return err_set(err, -errno, "%s: cannot make the folder: %s", path, strerror(errno));
}

int file_make_folders_above(char *path, size_t from, struct err *err)
{
    int rc = 0;

    for (char *at = path + from; rc == 0 && (at = strchr(at + 1, '/')) != NULL; *at = '/') {
        *at = '\0';
        rc = file_make_folder(path, err);
    }
    return rc;
}

void file_base_name(const char *path, char *ret, size_t size)
{
    size_t end = strlen(path), start;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/'; start--)
        ;
    (void)snprintf(ret, size, "%.*s", (int)(end - start), path + start);
}

int file_program_folder(char ret[PATH_MAX], struct err *err)
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);
    char *slash;

    ret[n > 0 ? n : 0] = '\0';
    if (n < 0)
        return err_set(err, -errno, "/proc/self/exe: %s", strerror(errno));
    slash = strrchr(ret, '/');
    *(slash ? slash : ret) = '\0';
    return 0;
}
