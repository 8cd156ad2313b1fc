/* power_cut.c - a library to preload: $POWER_CUT_LEFT is what a power cut would leave of the folder $POWER_CUT. A file
 * there is as it was when it was last synced; what is written to it by O_DSYNC is there at once. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* The file's place in $POWER_CUT_LEFT. False: it is not in $POWER_CUT. */
static bool left_of(int fd, char path[PATH_MAX], char ret[2 * PATH_MAX])
{
    const char *folder = getenv("POWER_CUT"), *left = getenv("POWER_CUT_LEFT");
    char link[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, PATH_MAX - 1);
    if (!folder || !left || n < 0)
        return false;
    path[n] = '\0';
    if (strncmp(path, folder, strlen(folder)) != 0 || path[strlen(folder)] != '/')
        return false;
    (void)snprintf(ret, 2 * PATH_MAX, "%s%s", left, path + strlen(folder));
    return true;
}

static void make_parents(char *path)
{
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(path, 0700);
        *p = '/';
    }
}

static void fail(const char *path)
{
    perror(path);
    abort();
}

/* Into a new file, which takes the old one's place. */
static void keep(int fd)
{
    char path[PATH_MAX], left[2 * PATH_MAX], fresh[2 * PATH_MAX + 8];
    struct stat st;
    ssize_t n;
    int from, to;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !left_of(fd, path, left))
        return;
    make_parents(left);
    (void)snprintf(fresh, sizeof(fresh), "%s.fresh", left);
    from = open(path, O_RDONLY | O_CLOEXEC);
    to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (from < 0 || to < 0)
        fail(fresh);
    while ((n = copy_file_range(from, NULL, to, NULL, 1 << 24, 0)) > 0)
        ;
    if (n < 0 || rename(fresh, left) < 0)
        fail(fresh);
    (void)close(from);
    (void)close(to);
}

EXPORTED int fdatasync(int fd)
{
    static int (*real)(int);
    int rc;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    rc = real(fd);
    if (rc == 0)
        keep(fd);
    return rc;
}

EXPORTED int fsync(int fd)
{
    static int (*real)(int);
    int rc;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    rc = real(fd);
    if (rc == 0)
        keep(fd);
    return rc;
}

EXPORTED ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off_t);
    char path[PATH_MAX], left[2 * PATH_MAX];
    const int flags = fcntl(fd, F_GETFL);
    int to;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    if (flags >= 0 && (flags & O_DSYNC) && left_of(fd, path, left) && (to = open(left, O_WRONLY | O_CLOEXEC)) >= 0) {
        if (real(to, data, n, at) != (ssize_t)n)
            fail(left);
        (void)close(to);
    }
    return real(fd, data, n, at);
}

EXPORTED ssize_t pwrite64(int fd, const void *data, size_t n, off_t at)
{
    return pwrite(fd, data, n, at);
}
