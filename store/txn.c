/* txn.c - write transactions of a store, and the disk space they need. */
#include "store/store_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/conf.h"

#define RESERVE_STEP_MIN ((uint64_t)1 << 20)
#define RESERVE_STEP_MAX ((uint64_t)64 << 20)
/* Pages that a transaction writes besides its payload: branch pages, free lists. */
#define RESERVE_EXTRA_BYTES ((uint64_t)256 << 10)
enum { PUT_OVERHEAD_BYTES = 32 };

/* -- puts -- */

static int put_failed(struct store *s, int mdb_rc, struct err *err)
{
    if (mdb_rc == MDB_MAP_FULL)
        s->room_bytes = 2 * env_map_room(&s->env);
    else
        s->damaged = true;
    return err_set(err, env_errno(mdb_rc), "%s: cannot write: %s", s->path, mdb_strerror(mdb_rc));
}

int store_put(struct store *s, MDB_dbi table, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
              unsigned flags, struct err *err)
{
    MDB_val k = {.mv_size = key_bytes, .mv_data = (void *)(uintptr_t)key};
    MDB_val v = {.mv_size = value_bytes, .mv_data = (void *)(uintptr_t)value};
    int rc = mdb_put(s->txn, table, &k, &v, flags);

    if (rc != 0)
        return put_failed(s, rc, err);
    s->txn_bytes += key_bytes + value_bytes + PUT_OVERHEAD_BYTES;
    return 0;
}

int store_put_counters(struct store *s, const char *name, const struct stored_job_counters *c, struct err *err)
{
    int rc;

    buf_clear(&s->row);
    rc = stored_job_counters_encode(c, &s->row);
    if (rc < 0)
        return err_set(err, -EIO, "%s: cannot encode meta \"%s\"", s->path, name);
    return store_put(s, s->env.meta, name, strlen(name), s->row.data, s->row.size_bytes, 0, err);
}

/* -- transactions -- */

int store_begin_read(struct store *s, MDB_txn **ret, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&s->map_lock);
    rc = env_begin_read(&s->env, ret, err);
    if (rc < 0)
        (void)pthread_mutex_unlock(&s->map_lock);
    return rc;
}

void store_end_read(struct store *s, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    (void)pthread_mutex_unlock(&s->map_lock);
}

static int make_room(struct store *s, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&s->map_lock);
    rc = env_map_grow(&s->env, s->room_bytes, err);
    (void)pthread_mutex_unlock(&s->map_lock);
    return rc;
}

int store_begin(struct store *s, struct err *err)
{
    int rc = make_room(s, err);

    if (rc < 0)
        return rc;
    rc = mdb_txn_begin(s->env.mdb, NULL, 0, &s->txn);
    if (rc != 0) {
        s->txn = NULL;
        return err_set(err, env_errno(rc), "%s: cannot begin a transaction: %s%s", s->path, mdb_strerror(rc),
                       rc == MDB_PANIC ? "; an earlier write of a meta page failed, the store must be opened again"
                                       : "");
    }
    s->txn_bytes = 0;
    s->committed = s->counters;
    s->saved_end_item = s->end_item;
    return 0;
}

static void undo(struct store *s)
{
    s->txn = NULL;
    s->counters = s->committed;
    s->end_item = s->saved_end_item;
    store_tail_restore(s);
    store_push_undo(s);
}

void store_abort(struct store *s)
{
    if (!s->txn)
        return;
    mdb_txn_abort(s->txn);
    undo(s);
}

bool store_in_txn(const struct store *s)
{
    return s->txn != NULL;
}

size_t store_txn_bytes(const struct store *s)
{
    return s->txn_bytes;
}

static int free_bytes_at(const struct store *s, const char *path, uint64_t *ret_bytes)
{
    struct statvfs fs;

    if (s->seam && s->seam->free_bytes)
        return s->seam->free_bytes(s->seam->arg, ret_bytes);
    if (statvfs(path, &fs) < 0)
        return -errno;
    *ret_bytes = fs.f_blocks ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX; /* some filesystems report none */
    return 0;
}

int store_free_bytes(const struct store *s, uint64_t *ret_bytes)
{
    return free_bytes_at(s, s->path, ret_bytes);
}

static int disk_full(const struct store *s, uint64_t free_bytes, struct err *err)
{
    char least[CONF_SIZE_TEXT];

    return err_set(err, -ENOSPC, "disk full: %.1f MiB free on %s, and %s must stay free",
                   (double)free_bytes / (1 << 20), s->path, conf_size_text(s->min_free_bytes, least));
}

int store_check_free(const struct store *s, uint64_t n_bytes, struct err *err)
{
    uint64_t free_bytes = 0;
    int rc = store_free_bytes(s, &free_bytes);

    if (rc < 0)
        return err_set(err, rc, "%s: cannot ask for free space: %s", s->path, strerror(-rc));
    return free_bytes < s->min_free_bytes + n_bytes ? disk_full(s, free_bytes, err) : 0;
}

int store_check_whole(const struct store *s, uint64_t whole_bytes, struct err *err)
{
    const uint64_t used = store_used_bytes(s), more = whole_bytes > used ? whole_bytes - used : 0;
    char least[CONF_SIZE_TEXT];
    uint64_t free_bytes = 0;
    int rc = more ? store_free_bytes(s, &free_bytes) : 0;

    if (rc < 0)
        return err_set(err, rc, "%s: cannot ask for free space: %s", s->path, strerror(-rc));
    if (more == 0 || (free_bytes >= s->min_free_bytes && free_bytes - s->min_free_bytes >= more))
        return 0;
    return err_set(
        err, -EDQUOT,
        "the results of %" PRIu64 " items will take about %.1f MiB more in %s, and the disk has room for "
        "%.1f MiB (%s must stay free): make room there and run the same command again, or submit fewer items",
        store_next_item(s), (double)more / (1 << 20), s->path,
        free_bytes > s->min_free_bytes ? (double)(free_bytes - s->min_free_bytes) / (1 << 20) : 0.0,
        conf_size_text(s->min_free_bytes, least));
}

int store_check_room(const struct store *s, struct err *err)
{
    char at[PATH_MAX], least[CONF_SIZE_TEXT];
    uint64_t free_bytes = 0;
    char *slash;
    int rc;

    if ((size_t)snprintf(at, sizeof(at), "%s/data.mdb", s->path) >= sizeof(at) || access(at, F_OK) == 0)
        return 0; /* errors of the path are reported when it is opened */
    while ((slash = strrchr(at, '/')) && slash > at) {
        *slash = '\0';
        if (access(at, F_OK) == 0)
            break;
    }
    rc = free_bytes_at(s, !slash ? "." : slash == at ? "/" : at, &free_bytes);
    if (rc < 0 || free_bytes >= s->min_free_bytes)
        return 0;
    return err_set(err, -ENOSPC,
                   "disk full: %.1f MiB free where %s is to be, %s are always left free; make room there, or put the "
                   "store elsewhere",
                   (double)free_bytes / (1 << 20), s->path, conf_size_text(s->min_free_bytes, least));
}

uint64_t store_used_bytes(const struct store *s)
{
    MDB_envinfo info;

    (void)mdb_env_info(s->env.mdb, &info); /* fails only without an environment */
    return ((uint64_t)info.me_last_pgno + 1) * s->env.page_bytes;
}

static int grow_file(struct store *s, int fd, uint64_t to_bytes)
{
    int rc;

    do
        rc = fallocate(fd, 0, (off_t)s->file_bytes, (off_t)(to_bytes - s->file_bytes)) < 0 ? -errno : 0;
    while (rc == -EINTR);
    if (rc == -EOPNOTSUPP || rc == -ENOSYS)
        rc = ftruncate(fd, (off_t)to_bytes) < 0 ? -errno : 0;
    if (rc == 0)
        s->file_bytes = to_bytes;
    return rc;
}

/* Reserve the space that the transaction may need, so that a full disk is found before anything is written, and the
 * file is never shorter than LMDB's last page (LMDB does not write pages that a transaction both takes and frees). */
static int reserve(struct store *s, struct err *err)
{
    uint64_t need = store_used_bytes(s) + 2 * (uint64_t)s->txn_bytes + RESERVE_EXTRA_BYTES, step = s->file_bytes / 8,
             free_bytes = 0;
    mdb_filehandle_t fd;
    int rc = store_free_bytes(s, &free_bytes);

    if (rc < 0)
        return err_set(err, rc, "%s: cannot ask for free space: %s", s->path, strerror(-rc));
    if (free_bytes < s->min_free_bytes)
        return disk_full(s, free_bytes, err);
    if (need <= s->file_bytes)
        return 0;
    (void)mdb_env_get_fd(s->env.mdb, &fd);
    step = step < RESERVE_STEP_MIN ? RESERVE_STEP_MIN : step > RESERVE_STEP_MAX ? RESERVE_STEP_MAX : step;
    rc = step < free_bytes / 4 ? grow_file(s, fd, need + step) : -ENOSPC;
    if (rc < 0)
        rc = grow_file(s, fd, need);
    if (rc == -ENOSPC || rc == -EDQUOT)
        return disk_full(s, free_bytes, err);
    return rc < 0 ? err_set(err, rc, "%s: cannot grow data.mdb: %s", s->path, strerror(-rc)) : 0;
}

/* LMDB reports EIO for a short write: find out whether the disk is full. */
static int commit_failed(struct store *s, int rc, struct err *err)
{
    uint64_t free_bytes = 0;

    if (rc == -ENOBUFS)
        return put_failed(s, MDB_MAP_FULL, err);
    if ((rc == -EIO || rc == -ENOSPC || rc == -EDQUOT) && store_free_bytes(s, &free_bytes) == 0 &&
        (rc != -EIO || free_bytes < 2 * s->txn_bytes + STORE_MIN_FREE_BYTES))
        return disk_full(s, free_bytes, err);
    s->damaged = true;
    return err_set(err, rc == -ENOSPC ? rc : -EIO, "%s: cannot commit: %s", s->path, strerror(-rc));
}

static bool same_counters(const struct stored_job_counters *a, const struct stored_job_counters *b)
{
    return a->n_items == b->n_items && a->n_units == b->n_units && a->sealed == b->sealed && a->n_done == b->n_done &&
           a->n_failed == b->n_failed && a->n_units_done == b->n_units_done && a->n_again == b->n_again &&
           a->n_redone == b->n_redone;
}

/* A reader that was killed pins the pages of its time, and every page that changes would take new space. */
static void free_dead_readers(struct store *s)
{
    enum { EVERY = 64 };
    int dead;

    if (s->n_commits++ % EVERY == 0)
        (void)mdb_reader_check(s->env.mdb, &dead);
}

int store_commit(struct store *s, struct err *err)
{
    int rc = 0;

    if (!same_counters(&s->counters, &s->committed))
        rc = store_put_counters(s, "counters", &s->counters, err);
    if (rc == 0)
        rc = store_push_commit(s, err);
    if (rc == 0)
        rc = reserve(s, err);
    if (rc == 0 && s->seam && s->seam->before_commit) {
        rc = s->seam->before_commit(s->seam->arg);
        if (rc < 0)
            rc = commit_failed(s, rc, err);
    }
    if (rc < 0) {
        store_abort(s);
        return rc;
    }
    rc = mdb_txn_commit(s->txn); /* the transaction is freed in any case */
    if (rc != 0) {
        undo(s);
        return commit_failed(s, env_errno(rc), err);
    }
    s->txn = NULL;
    store_push_committed(s);
    s->tail_saved = false;
    s->committed = s->counters;
    s->written = true;
    free_dead_readers(s);
    return 0;
}
