/* env_pages.c - checks the pages of an environment as one read transaction sees them, in a separate mapping. */
#include "store/env.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { META_PATIENCE_MS = 200 };

/* The meta page of the transaction that txn reads. Write transactions alternate between the two meta pages, so this one
 * stays unchanged until the next transaction has committed to the other page. If the owner died between a commit and
 * publishing it, readers stay one transaction behind, but then nobody writes. */
static int copy_meta(struct env *e, MDB_txn *txn, int fd, uint8_t ret[PAGES_META_BYTES])
{
    const int64_t until_ms = clock_mono_ms() + META_PATIENCE_MS;

    for (;;) {
        const size_t id = mdb_txn_id(txn);
        MDB_envinfo info;
        int rc;

        if (pread(fd, ret, PAGES_META_BYTES, (off_t)((id & 1) * e->page_bytes)) != PAGES_META_BYTES ||
            mdb_env_info(e->mdb, &info) != 0)
            return -EIO;
        if (info.me_last_txnid == id || clock_mono_ms() >= until_ms)
            return 0;
        mdb_txn_reset(txn);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        rc = env_map_begin_read(e, &txn);
        if (rc != 0)
            return env_errno(rc);
    }
}

int env_check_pages(struct env *e, const char *path, const struct pages_report *report, struct err *err)
{
    uint8_t meta[PAGES_META_BYTES];
    void *file = MAP_FAILED;
    mdb_filehandle_t fd;
    struct stat st = {0};
    MDB_txn *txn;
    int rc = env_begin_read(e, &txn, err);

    if (rc < 0)
        return err_prefix(err, rc, "%s", path);
    (void)mdb_env_get_fd(e->mdb, &fd);
    rc = copy_meta(e, txn, fd, meta);
    if (rc == 0 && fstat(fd, &st) < 0) /* only now, because the file grows */
        rc = -errno;
    if (rc == 0)
        file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (rc == 0 && file == MAP_FAILED)
        rc = -errno;
    if (rc < 0) {
        mdb_txn_abort(txn);
        return err_set(err, rc, "%s: cannot read data.mdb: %s", path, strerror(-rc));
    }
    rc = pages_check(file, (size_t)st.st_size, meta, report, err);
    (void)munmap(file, (size_t)st.st_size);
    mdb_txn_abort(txn);
    return rc < 0 && rc != -ECANCELED ? err_prefix(err, rc, "%s", path) : rc;
}

static bool first_problem(void *arg, const char *text)
{
    (void)snprintf(arg, sizeof(((struct err *)0)->text), "%s", text);
    return false;
}

int env_find_damage(struct env *e, const char *path, struct err *err)
{
    char what[sizeof(((struct err *)0)->text)] = "";
    const struct pages_report report = {first_problem, what};
    int rc = env_check_pages(e, path, &report, err);

    return rc == -ECANCELED ? env_damaged(path, what, err) : rc;
}

int env_damaged(const char *path, const char *what, struct err *err)
{
    return err_set(
        err, -EBADMSG,
        "%s: data.mdb is damaged (%.120s). blipline verify lists the problems, blipline export writes what can "
        "still be read. A run cannot continue in it: use another store, or a sound copy of this one",
        path, what);
}

bool env_is_closed_in_order(struct env *e)
{
    struct stored_job_counters c;
    bool closed = false;
    MDB_txn *txn;
    MDB_dbi meta;
    MDB_val v;

    if (env_begin_read(e, &txn, NULL) < 0)
        return false;
    if (mdb_dbi_open(txn, "meta", 0, &meta) == 0 && env_get(txn, meta, "closed", 6, &v, NULL) == 0 &&
        stored_job_counters_decode(v.mv_data, v.mv_size, &c, NULL) == 0)
        closed = c.n_items == mdb_txn_id(txn);
    mdb_txn_abort(txn);
    return closed;
}
