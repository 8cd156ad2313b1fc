#include "local/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char prefix[] = "blipline-";

static const char *parent_folder(void)
{
    const char *dir = getenv("TMPDIR");

    if (dir && dir[0] == '/' && strlen(dir) + sizeof("/blipline-XXXXXX") <= RUNDIR_MAX && access(dir, W_OK | X_OK) == 0)
        return dir;
    return "/tmp";
}

/* Removes the contents, then the folder; follows no links. */
static void remove_folder(int parent_fd, const char *name)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (!d) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) < 0 && errno == EISDIR)
            remove_folder(dirfd(d), e->d_name);
    }
    (void)closedir(d);
    (void)unlinkat(parent_fd, name, AT_REMOVEDIR);
}

/* True for a folder of this user's earlier run whose lock is free. */
static void sweep_one(int parent_fd, const char *name)
{
    char lock[NAME_MAX + 8];
    struct stat st;
    int fd;

    if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return;
    (void)snprintf(lock, sizeof(lock), "%s/lock", name);
    fd = openat(parent_fd, lock, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        remove_folder(parent_fd, name);
    (void)close(fd);
}

static void sweep(const char *parent)
{
    DIR *d = opendir(parent);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)) != NULL) {
        if (strncmp(e->d_name, prefix, sizeof(prefix) - 1) == 0 && strlen(e->d_name) == sizeof(prefix) - 1 + 6)
            sweep_one(dirfd(d), e->d_name);
    }
    (void)closedir(d);
}

int rundir_create(struct rundir *r, struct err *err)
{
    const char *parent = parent_folder();
    char lock[RUNDIR_MAX + 8];
    struct stat st;

    *r = (struct rundir){.lock_fd = -1};
    sweep(parent);
    for (int attempt = 0; attempt < 8; attempt++) {
        (void)snprintf(r->path, sizeof(r->path), "%s/%sXXXXXX", parent, prefix);
        if (!mkdtemp(r->path)) {
            r->path[0] = '\0';
            return err_set(err, -errno, "cannot make a private folder in %s: %s", parent, strerror(errno));
        }
        r->lock_fd = open(rundir_file(r, "lock", lock, sizeof(lock)), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (r->lock_fd < 0 || flock(r->lock_fd, LOCK_EX) < 0) {
            int code = errno;

            rundir_remove(r);
            return err_set(err, -code, "cannot write in %s: %s", parent, strerror(code));
        }
        /* another run may have removed it between open and flock */
        if (fstat(r->lock_fd, &st) == 0 && st.st_nlink > 0)
            return 0;
        rundir_remove(r);
    }
    return err_set(err, -EBUSY, "cannot make a private folder in %s: another program keeps removing it", parent);
}

void rundir_remove(struct rundir *r)
{
    if (!r || !r->path[0])
        return;
    remove_folder(AT_FDCWD, r->path);
    rundir_keep(r);
}

void rundir_keep(struct rundir *r)
{
    if (r->lock_fd >= 0)
        (void)close(r->lock_fd);
    *r = (struct rundir){.lock_fd = -1};
}

char *rundir_file(const struct rundir *r, const char *name, char *ret, size_t ret_size)
{
    (void)snprintf(ret, ret_size, "%s/%s", r->path, name);
    return ret;
}

int rundir_plain_path(const struct rundir *r, const char *path, const char *link, char *ret, size_t ret_size,
                      struct err *err)
{
    bool plain = strlen(path) < 200;

    for (const char *p = path; *p; p++)
        plain = plain && (unsigned char)*p > ' ' && *p != ';' && *p != '#' && *p != '"' && *p != 0x7f;
    if (plain) {
        (void)snprintf(ret, ret_size, "%s", path);
        return 0;
    }
    (void)rundir_file(r, link, ret, ret_size);
    if (symlink(path, ret) < 0 && errno != EEXIST)
        return err_set(err, -errno, "%s: %s", ret, strerror(errno));
    return 0;
}
