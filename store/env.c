#include "store/env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/folder.h"

/* Checking the pages of a store of this size takes less time than reading its manifest. */
#define CHEAP_BYTES ((uint64_t)1 << 30)

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
        return -ENOBUFS;
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

/* -- the environment -- */

/* Touching a page beyond the end of the file raises SIGBUS. */
static int check_length(struct env *e, const char *path, uint64_t *ret_bytes, struct err *err)
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
    *ret_bytes = want = ((uint64_t)info.me_last_pgno + 1) * stat_.ms_psize;
    if ((uint64_t)st.st_size < want)
        return err_set(err, -EBADMSG, "%s: data.mdb is truncated: %lld bytes, %llu are in use", path,
                       (long long)st.st_size, (unsigned long long)want);
    return 0;
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
    int64_t data_bytes;
    int dead, rc = folder_data_length(path, &data_bytes, err);
    uint64_t used_bytes = 0;
    bool fresh;

    if (rc < 0)
        return rc;
    fresh = data_bytes < 0;
    if (data_bytes == 0 && !o->write)
        return err_set(err, -EINVAL, "%s: data.mdb is empty: the store's creation was never finished", path);
    if (!fresh && folder_is_unfinished(data_bytes) && o->write) {
        rc = folder_remove_unfinished(path, o->create, err);
        if (rc < 0)
            return rc;
        fresh = true;
    }
    rc = env_map_open(e, flags, data_bytes > 0 ? (uint64_t)data_bytes : 0);
    if (rc == MDB_INVALID && folder_is_unfinished(data_bytes - 1) && o->create) { /* torn first pages */
        rc = folder_remove_unfinished(path, o->create, err);
        if (rc < 0)
            return rc;
        fresh = true;
        rc = env_map_open(e, flags, 0);
    }
    if (rc != 0)
        return open_failed(path, rc, err);
    rc = check_length(e, path, &used_bytes, err);
    if (rc < 0)
        return rc;
    if (o->pages == ENV_PAGES_CHECK_ALL ||
        (o->pages == ENV_PAGES_CHECK && (used_bytes <= CHEAP_BYTES || !env_is_closed_in_order(e)))) {
        rc = env_find_damage(e, path, err);
        if (rc < 0)
            return rc;
        e->pages_checked = true;
    }
    (void)mdb_reader_check(e->mdb, &dead); /* slots of killed readers pin old pages; a failure costs only space */
    *ret_empty = fresh;
    return fresh ? folder_sync(path, err) : 0;
}

int env_open(const char *path, const struct env_options *o, struct env *ret, bool *ret_empty, struct err *err)
{
    struct env e = {.owner_fd = -1};
    unsigned flags = MDB_NOTLS;
    bool empty = false;
    int rc = folder_check(path, o->create, o->allow_network_fs, err);

    if (rc < 0)
        return rc;
    e.path = strdup(path);
    if (!e.path)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    if (o->write) {
        rc = folder_lock(path, true, &e.owner_fd, err);
    } else {
        flags |= MDB_RDONLY;
        if (!folder_lock_file_usable(path)) {
            flags |= MDB_NOLOCK;
            rc = folder_lock(path, false, &e.owner_fd, err);
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
    free(e->path);
    *e = (struct env){.owner_fd = -1};
}
