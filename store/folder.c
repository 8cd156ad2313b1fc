#include "store/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

int folder_name(char ret[PATH_MAX], const char *path, const char *name, struct err *err)
{
    if (snprintf(ret, PATH_MAX, "%s/%s", path, name) >= PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "%.200s...: path too long", path);
    return 0;
}

/* LMDB needs coherent shared mappings and working locks. */
static int check_filesystem(const char *path, struct err *err)
{
    static const struct {
        uint32_t type;
        const char *name;
    } networks[] = {
        {0x6969, "NFS"},      {0x517B, "SMB"},      {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB"},  {0x0BD00BD0, "Lustre"},
        {0x00C36400, "Ceph"}, {0x47504653, "GPFS"}, {0x5346414F, "AFS"},  {0x01021997, "9p"},   {0x73757245, "Coda"},
        {0x01161970, "GFS2"}, {0x7461636F, "OCFS"}, {0x19830326, "BGFS"}, {0x6B414653, "kAFS"},
    };
    struct statfs fs;

    if (statfs(path, &fs) < 0) {
        int rc = -errno;

        return err_set(err, rc, "%s: cannot tell its filesystem: %s", path, strerror(-rc));
    }
    for (size_t i = 0; i < sizeof(networks) / sizeof(networks[0]); i++)
        if ((uint32_t)fs.f_type == networks[i].type)
            return err_set(err, -EREMOTE,
                           "%s: is on a network filesystem (%s), where a job store is not safe; use a local disk", path,
                           networks[i].name);
    return 0;
}

/* The folder may only have the files of a store. */
static int check_no_other_files(const char *path, struct err *err)
{
    DIR *d = opendir(path);
    int rc = 0;

    if (!d) {
        rc = -errno;
        return err_set(err, rc, "%s: cannot read the folder: %s", path, strerror(-rc));
    }
    for (const struct dirent *e; rc == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, "owner") != 0 &&
            strcmp(e->d_name, "data.mdb") != 0 && strcmp(e->d_name, "lock.mdb") != 0)
            rc = err_set(err, -EINVAL, "%s: is a folder with other files in it (%s), not a job store", path, e->d_name);
    (void)closedir(d);
    return rc;
}

int folder_sync(const char *path, struct err *err)
{
    int rc = 0, fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        rc = -errno;
    if (fd >= 0)
        (void)close(fd);
    return rc < 0 ? err_set(err, rc, "%s: cannot sync the folder: %s", path, strerror(-rc)) : 0;
}

static int make_folder(const char *path, struct err *err)
{
    char parent[PATH_MAX], *slash;
    int rc;

    if (mkdir(path, 0777) < 0 && errno != EEXIST) {
        rc = -errno;
        return err_set(err, rc, "%s: cannot create the folder: %s", path, strerror(-rc));
    }
    if (snprintf(parent, sizeof(parent), "%s", path) >= (int)sizeof(parent))
        return err_set(err, -ENAMETOOLONG, "%.200s...: path too long", path);
    slash = parent + strlen(parent);
    while (slash > parent && slash[-1] == '/')
        *--slash = '\0';
    slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    return folder_sync(slash ? parent : ".", err);
}

/* Length of one of LMDB's files; -1: missing. Links are refused, because LMDB would follow them and write to their
 * target. */
static int file_length(const char *path, const char *name, int64_t *ret_bytes, struct err *err)
{
    char full[PATH_MAX];
    struct stat st;
    int rc = folder_name(full, path, name, err);

    if (rc < 0)
        return rc;
    if (lstat(full, &st) < 0) {
        rc = -errno;
        *ret_bytes = -1;
        return rc == -ENOENT ? 0 : err_set(err, rc, "%s: %s", full, strerror(-rc));
    }
    if (S_ISLNK(st.st_mode))
        return err_set(err, -ELOOP,
                       "%s: is a symbolic link, and a store's files must not be links; put the file itself "
                       "there, or link the whole folder",
                       full);
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s: is not a regular file; not a job store", full);
    *ret_bytes = st.st_size;
    return 0;
}

int folder_data_length(const char *path, int64_t *ret_bytes, struct err *err)
{
    return file_length(path, "data.mdb", ret_bytes, err);
}

bool folder_is_unfinished(int64_t data_bytes)
{
    return data_bytes < 2 * (int64_t)sysconf(_SC_PAGESIZE); /* LMDB's two meta pages */
}

int folder_check_unfinished(const char *path, bool *ret, struct err *err)
{
    int64_t data_bytes;
    int rc = folder_data_length(path, &data_bytes, err);

    if (rc < 0)
        return rc;
    *ret = folder_is_unfinished(data_bytes);
    return *ret ? check_no_other_files(path, err) : 0;
}

int folder_check(const char *path, bool create, bool allow_network_fs, struct err *err)
{
    int64_t data_bytes = -1, lock_bytes;
    struct stat st;
    int rc;

    if (stat(path, &st) < 0) {
        rc = -errno;
        if (rc != -ENOENT)
            return err_set(err, rc, "%s: %s", path, strerror(-rc));
        if (!create)
            return err_set(err, rc, "%s: there is no job store here", path);
        rc = make_folder(path, err);
        if (rc < 0)
            return rc;
    } else if (!S_ISDIR(st.st_mode)) {
        return err_set(err, -ENOTDIR, "%s: is a file; a job store is a folder with data.mdb in it", path);
    }
    rc = allow_network_fs ? 0 : check_filesystem(path, err);
    if (rc == 0)
        rc = file_length(path, "lock.mdb", &lock_bytes, err);
    if (rc == 0)
        rc = folder_data_length(path, &data_bytes, err);
    if (rc < 0 || data_bytes >= 0)
        return rc;
    if (!create)
        return err_set(err, -EINVAL, "%s: is not a job store: there is no data.mdb in it", path);
    return check_no_other_files(path, err);
}

/* -- the owner -- */

long folder_owner(const char *path)
{
    char name[PATH_MAX], text[32] = "";
    int fd =
        folder_name(name, path, "owner", NULL) < 0 ? -1 : open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;

    if (fd >= 0)
        (void)close(fd);
    return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM) ? pid : 0;
}

static int in_use(const char *path, struct err *err)
{
    long pid = folder_owner(path);

    if (pid > 0)
        return err_set(err, -EBUSY, "%s: in use by process %ld", path, pid);
    return err_set(err, -EBUSY, "%s: in use by another process (it holds the lock on %s/owner)", path, path);
}

int folder_lock(const char *path, bool write, int *ret_fd, struct err *err)
{
    char name[PATH_MAX], pid[32];
    int fd, n, rc = folder_name(name, path, "owner", err);

    if (rc < 0)
        return rc;
    *ret_fd = fd = open(name, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) {
        rc = -errno;
        if (!write && rc == -ENOENT)
            return 0; /* a copy has no owner to lock out */
        return err_set(err, rc, "%s: cannot open: %s", name, strerror(-rc));
    }
    if (flock(fd, (write ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        rc = -errno;
        if (rc == -EWOULDBLOCK)
            return in_use(path, err);
        return err_set(err, rc, "%s: cannot lock: %s", name, strerror(-rc));
    }
    if (!write)
        return 0;
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* failure only loses the name in a message; a full disk must not make a store unreadable */
    bool named = ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) == n;

    (void)named;
    return 0;
}

bool folder_lock_file_usable(const char *path)
{
    char name[PATH_MAX];

    if (folder_name(name, path, "lock.mdb", NULL) < 0)
        return false;
    if (access(name, F_OK) == 0)
        return access(name, R_OK | W_OK) == 0;
    return access(path, W_OK | X_OK) == 0;
}

int folder_remove_unfinished(const char *path, bool create, struct err *err)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char name[PATH_MAX];
    int rc;

    if (!create)
        return err_set(err, -EINVAL, "%s: its creation was never finished; there is nothing in it", path);
    rc = check_no_other_files(path, err);
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = folder_name(name, path, names[i], err);
        if (rc == 0 && unlink(name) < 0 && errno != ENOENT) {
            rc = -errno;
            rc = err_set(err, rc, "%s: cannot remove: %s", name, strerror(-rc));
        }
    }
    return rc;
}

static int remove_files(DIR *folder, const char *path, struct err *err)
{
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(folder), entry->d_name, 0) < 0)
            return err_set(err, -errno, "%s/%s: cannot remove: %s", path, entry->d_name, strerror(errno));
    }
    return 0;
}

int folder_remove(const char *path, struct err *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    int rc;

    if (!folder) {
        rc = -errno;
        if (fd >= 0)
            (void)close(fd);
        return rc == -ENOENT ? 0 : err_set(err, rc, "%s: cannot remove: %s", path, strerror(-rc));
    }
    rc = remove_files(folder, path, err);
    (void)closedir(folder);
    if (rc == 0 && rmdir(path) < 0)
        rc = err_set(err, -errno, "%s: cannot remove: %s", path, strerror(errno));
    return rc;
}
