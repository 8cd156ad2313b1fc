#include "store/env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAP_BYTES_MAX ((uint64_t)1 << 40)
#define MAP_BYTES_MIN ((uint64_t)16 << 20)
enum { N_TABLES = 5 + MSG_EMBEDDING_CLS };

int env_errno(int mdb_rc)
{
    if (mdb_rc >= 0)
        return -mdb_rc;
    switch (mdb_rc) {
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_KEYEXIST:
        return -EEXIST;
    case MDB_MAP_FULL:
        return -ENOSPC;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
        return -EBADMSG;
    case MDB_VERSION_MISMATCH:
        return -EPROTONOSUPPORT;
    case MDB_READERS_FULL:
        return -EUSERS;
    case MDB_BAD_VALSIZE:
        return -EINVAL;
    default: /* MDB_PANIC, MDB_TXN_FULL, MDB_BAD_TXN, MDB_MAP_RESIZED ... */
        return -EIO;
    }
}

void env_put_be32(uint8_t ret[4], uint32_t v)
{
    for (int i = 3; i >= 0; i--, v >>= 8)
        ret[i] = (uint8_t)v;
}

void env_put_be64(uint8_t ret[8], uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        ret[i] = (uint8_t)v;
}

uint32_t env_get_be32(const void *p)
{
    const uint8_t *b = p;

    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

uint64_t env_get_be64(const void *p)
{
    return (uint64_t)env_get_be32(p) << 32 | env_get_be32((const uint8_t *)p + 4);
}

/* -- the directory -- */

static int name_in(char ret[PATH_MAX], const char *path, const char *name, struct err *err)
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

/* Nothing in it but what a store, or the beginning of one, has. */
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

static int sync_folder(const char *path, struct err *err)
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
    return sync_folder(slash ? parent : ".", err);
}

/* *ret_bytes: length of data.mdb, -1 where there is none. */
static int data_length(const char *path, int64_t *ret_bytes, struct err *err)
{
    char name[PATH_MAX];
    struct stat st;
    int rc = name_in(name, path, "data.mdb", err);

    if (rc < 0)
        return rc;
    if (stat(name, &st) < 0) {
        rc = -errno;
        *ret_bytes = -1;
        return rc == -ENOENT ? 0 : err_set(err, rc, "%s: %s", name, strerror(-rc));
    }
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s: is not a regular file; not a job store", name);
    *ret_bytes = st.st_size;
    return 0;
}

static int check_folder(const char *path, const struct env_options *o, struct err *err)
{
    int64_t data_bytes = -1;
    struct stat st;
    int rc;

    if (stat(path, &st) < 0) {
        rc = -errno;
        if (rc != -ENOENT)
            return err_set(err, rc, "%s: %s", path, strerror(-rc));
        if (!o->create)
            return err_set(err, rc, "%s: there is no job store here", path);
        rc = make_folder(path, err);
        if (rc < 0)
            return rc;
    } else if (!S_ISDIR(st.st_mode)) {
        return err_set(err, -ENOTDIR, "%s: is a file; a job store is a folder with data.mdb in it", path);
    }
    rc = o->allow_network_fs ? 0 : check_filesystem(path, err);
    if (rc == 0)
        rc = data_length(path, &data_bytes, err);
    if (rc < 0 || data_bytes >= 0)
        return rc;
    if (!o->create)
        return err_set(err, -EINVAL, "%s: is not a job store: there is no data.mdb in it", path);
    return check_no_other_files(path, err);
}

/* -- who owns it -- */

static int in_use(const char *path, int fd, struct err *err)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;

    if (pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM))
        return err_set(err, -EBUSY, "%s: in use by process %ld", path, pid);
    return err_set(err, -EBUSY, "%s: in use by another process (it holds the lock on %s/owner)", path, path);
}

static int lock_owner(const char *path, bool write, struct env *e, struct err *err)
{
    char name[PATH_MAX], pid[32];
    int n, rc = name_in(name, path, "owner", err);

    if (rc < 0)
        return rc;
    e->owner_fd = open(name, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (e->owner_fd < 0) {
        rc = -errno;
        if (!write && rc == -ENOENT)
            return 0; /* a copy: nobody to lock out */
        return err_set(err, rc, "%s: cannot open: %s", name, strerror(-rc));
    }
    if (flock(e->owner_fd, (write ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        rc = -errno;
        if (rc == -EWOULDBLOCK)
            return in_use(path, e->owner_fd, err);
        return err_set(err, rc, "%s: cannot lock: %s", name, strerror(-rc));
    }
    if (!write)
        return 0;
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* if it fails, only the name in a message is lost; a full disk must not keep a store from being read back */
    bool named = ftruncate(e->owner_fd, 0) == 0 && pwrite(e->owner_fd, pid, (size_t)n, 0) == n;

    (void)named;
    return 0;
}

/* -- the environment -- */

static uint64_t map_that_may_fit(uint64_t wanted)
{
    uint64_t map = wanted ? wanted : MAP_BYTES_MAX;
    struct rlimit limit;

    if (sizeof(size_t) < 8 && map > (uint64_t)1 << 30)
        map = (uint64_t)1 << 30;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        while (map > limit.rlim_cur / 2 && map > MAP_BYTES_MIN) /* leave room for everything else */
            map /= 2;
    return map;
}

/* LMDB asserts about what it reads from a file: as where it would have crashed, and unlike an assertion of ours. */
static void on_assertion(MDB_env *mdb, const char *what)
{
    (void)mdb;
    (void)what;
    (void)raise(SIGSEGV);
}

/* Halve the map until the process may have it. */
static int map_environment(const char *path, unsigned flags, uint64_t map_bytes, MDB_env **ret)
{
    uint64_t map = map_that_may_fit(map_bytes);
    int rc;

    for (;; map /= 2) {
        MDB_env *mdb;

        rc = mdb_env_create(&mdb);
        if (rc != 0)
            return rc;
        rc = mdb_env_set_assert(mdb, on_assertion);
        if (rc == 0)
            rc = mdb_env_set_maxdbs(mdb, N_TABLES + 3);
        if (rc == 0)
            rc = mdb_env_set_mapsize(mdb, (size_t)map);
        if (rc == 0)
            rc = mdb_env_open(mdb, path, flags, 0666);
        if (rc == 0) {
            *ret = mdb;
            return 0;
        }
        mdb_env_close(mdb);
        if ((rc != ENOMEM && rc != EINVAL && rc != EOVERFLOW && rc != EFBIG) || map <= MAP_BYTES_MIN)
            return rc;
    }
}

static bool lock_file_usable(const char *path)
{
    char name[PATH_MAX];

    if (name_in(name, path, "lock.mdb", NULL) < 0)
        return false;
    if (access(name, F_OK) == 0)
        return access(name, R_OK | W_OK) == 0;
    return access(path, W_OK | X_OK) == 0;
}

/* A page past the end of the file is SIGBUS for whoever touches it. */
static int check_length(struct env *e, const char *path, struct err *err)
{
    MDB_envinfo info;
    MDB_stat stat_;
    struct stat st;
    mdb_filehandle_t fd;
    uint64_t want;

    if (mdb_env_info(e->mdb, &info) != 0 || mdb_env_stat(e->mdb, &stat_) != 0 || mdb_env_get_fd(e->mdb, &fd) != 0 ||
        fstat(fd, &st) < 0)
        return err_set(err, -EIO, "%s: cannot ask for the length of data.mdb", path);
    e->page_bytes = stat_.ms_psize;
    want = ((uint64_t)info.me_last_pgno + 1) * stat_.ms_psize;
    if ((uint64_t)st.st_size < want)
        return err_set(err, -EBADMSG, "%s: data.mdb is truncated: %lld bytes, %llu are in use", path,
                       (long long)st.st_size, (unsigned long long)want);
    return 0;
}

/* data.mdb is there but a first commit never was: what a crash during creation leaves. */
static int remove_unfinished(const char *path, const struct env_options *o, struct err *err)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char name[PATH_MAX];
    int rc;

    if (!o->create)
        return err_set(err, -EINVAL, "%s: its creation was never finished; there is nothing in it", path);
    rc = check_no_other_files(path, err);
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = name_in(name, path, names[i], err);
        if (rc == 0 && unlink(name) < 0 && errno != ENOENT) {
            rc = -errno;
            rc = err_set(err, rc, "%s: cannot remove: %s", name, strerror(-rc));
        }
    }
    return rc;
}

static int open_failed(const char *path, int rc, struct err *err)
{
    if (rc == MDB_INVALID || rc == MDB_CORRUPTED)
        return err_set(err, -EBADMSG, "%s: data.mdb is damaged or not an LMDB file", path);
    if (rc == MDB_VERSION_MISMATCH)
        return err_set(err, -EPROTONOSUPPORT, "%s: data.mdb was written by another version of LMDB", path);
    return err_set(err, env_errno(rc), "%s: cannot open the job store: %s", path, mdb_strerror(rc));
}

static int open_locked(const char *path, const struct env_options *o, unsigned flags, struct env *e, bool *ret_empty,
                       struct err *err)
{
    int64_t two_pages = 2 * (int64_t)sysconf(_SC_PAGESIZE), data_bytes;
    int dead, rc = data_length(path, &data_bytes, err);
    bool fresh;

    if (rc < 0)
        return rc;
    fresh = data_bytes < 0;
    if (data_bytes == 0 && !o->write)
        return err_set(err, -EINVAL, "%s: data.mdb is empty: the store's creation was never finished", path);
    if (!fresh && data_bytes < two_pages && o->write) {
        rc = remove_unfinished(path, o, err);
        if (rc < 0)
            return rc;
        fresh = true;
    }
    rc = map_environment(path, flags, o->map_bytes, &e->mdb);
    if (rc == MDB_INVALID && data_bytes == two_pages && o->create) { /* torn first pages */
        rc = remove_unfinished(path, o, err);
        if (rc < 0)
            return rc;
        fresh = true;
        rc = map_environment(path, flags, o->map_bytes, &e->mdb);
    }
    if (rc != 0)
        return open_failed(path, rc, err);
    rc = check_length(e, path, err);
    if (rc < 0)
        return rc;
    (void)mdb_reader_check(e->mdb, &dead); /* slots of killed readers pin old pages; a failure costs only space */
    *ret_empty = fresh;
    return fresh ? sync_folder(path, err) : 0;
}

int env_open(const char *path, const struct env_options *o, struct env *ret, bool *ret_empty, struct err *err)
{
    struct env e = {.owner_fd = -1};
    unsigned flags = MDB_NOTLS;
    bool empty = false;
    int rc = check_folder(path, o, err);

    if (rc < 0)
        return rc;
    if (o->write) {
        rc = lock_owner(path, true, &e, err);
    } else {
        flags |= MDB_RDONLY;
        if (!lock_file_usable(path)) {
            flags |= MDB_NOLOCK;
            rc = lock_owner(path, false, &e, err);
        }
    }
    if (rc == 0)
        rc = open_locked(path, o, flags, &e, &empty, err);
    if (rc < 0) {
        env_close(&e);
        return rc;
    }
    *ret = e;
    *ret_empty = empty;
    return 0;
}

void env_close(struct env *e)
{
    if (e->mdb)
        mdb_env_close(e->mdb);
    if (e->owner_fd >= 0)
        (void)close(e->owner_fd);
    *e = (struct env){.owner_fd = -1};
}
