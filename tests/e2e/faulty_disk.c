/* faulty_disk.c - a library to preload: while there is a file "faulty" in the folder $FAULTY_DISK, what was written to
 * files below that folder cannot be synced (EIO). */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    static int (*real)(int);
    const char *folder = getenv("FAULTY_DISK");
    char link[64], path[PATH_MAX] = "", flag[PATH_MAX];

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    (void)snprintf(flag, sizeof(flag), "%s/faulty", folder ? folder : "");
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (!folder || access(flag, F_OK) < 0 || readlink(link, path, sizeof(path) - 1) < 0 ||
        strncmp(path, folder, strlen(folder)) != 0)
        return real(fd);
    errno = EIO;
    return -1;
}
