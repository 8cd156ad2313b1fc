#include "store/job_table.h"

#include "base/file.h"
#include "store/env.h"
#include "store/folder.h"
#include "store/reader.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM_BYTES ((uint64_t)1 << 20)
#define LAST_JOB "last_job" /* in meta: the largest number of a removed job */

struct job_table {
    struct env env;
    MDB_dbi jobs, meta;
    char folder[PATH_MAX]; /* of the stores */
    bool allow_network_fs;
    uint64_t last;
    struct row_memory memory;
    struct buf row;
};

/* -- rows -- */

static int failed(const struct job_table *t, int mdb_rc, struct err *err)
{
    return err_set(err, env_errno(mdb_rc), "%s: %s", t->env.path, mdb_strerror(mdb_rc));
}

static int put_row(struct job_table *t, MDB_txn *txn, uint64_t job)
{
    uint8_t key[8];
    MDB_val k = {.mv_size = sizeof(key), .mv_data = key};
    MDB_val v = {.mv_size = t->row.size_bytes, .mv_data = t->row.data};

    env_put_be64(key, job);
    return mdb_put(txn, t->jobs, &k, &v, 0);
}

/* The row of a removed job becomes t->row: the largest number that was ever taken. */
static int remove_row(struct job_table *t, MDB_txn *txn, uint64_t job)
{
    uint8_t key[8];
    MDB_val k = {.mv_size = sizeof(key), .mv_data = key};
    MDB_val last = {.mv_size = strlen(LAST_JOB), .mv_data = LAST_JOB};
    MDB_val v = {.mv_size = t->row.size_bytes, .mv_data = t->row.data};
    int rc;

    env_put_be64(key, job);
    rc = mdb_put(txn, t->meta, &last, &v, 0);
    if (rc == 0)
        rc = mdb_del(txn, t->jobs, &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* One transaction, durable when it returns 0. */
static int change(struct job_table *t, int (*make)(struct job_table *t, MDB_txn *txn, uint64_t job), uint64_t job,
                  struct err *err)
{
    MDB_txn *txn;
    int rc = env_map_grow(&t->env, ROOM_BYTES, err);

    if (rc < 0)
        return rc;
    rc = mdb_txn_begin(t->env.mdb, NULL, 0, &txn);
    if (rc != 0)
        return failed(t, rc, err);
    rc = make(t, txn, job);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    return rc == 0 ? 0 : failed(t, rc, err);
}

int job_table_put(struct job_table *t, const struct stored_job_entry *entry, struct err *err)
{
    int rc;

    buf_clear(&t->row);
    rc = stored_job_entry_encode(entry, &t->row);
    if (rc < 0)
        return err_set(err, rc, "%s: job %" PRIu64 " cannot be written: %s", t->env.path, entry->job, strerror(-rc));
    rc = change(t, put_row, entry->job, err);
    if (rc == 0 && entry->job > t->last)
        t->last = entry->job;
    return rc;
}

/* The row at or behind `key`, which becomes its key. */
static int read_row(struct job_table *t, MDB_txn *txn, uint8_t key[8], struct stored_job_entry *ret, struct err *err)
{
    MDB_val k = {.mv_size = 8, .mv_data = key}, v;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, t->jobs, &cursor);

    if (rc != 0)
        return failed(t, rc, err);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc == 0 && k.mv_size != 8)
        rc = MDB_CORRUPTED;
    if (rc != 0) {
        mdb_cursor_close(cursor);
        return rc == MDB_NOTFOUND ? 0 : failed(t, rc, err);
    }
    ret->job = env_get_be64(k.mv_data);
    rc = stored_job_entry_decode(&t->memory, v.mv_data, v.mv_size, ret, err);
    if (rc == 0 && ret->job != env_get_be64(k.mv_data))
        rc = err_set(err, -EBADMSG, "says it is job %" PRIu64, ret->job);
    ret->job = env_get_be64(k.mv_data);
    mdb_cursor_close(cursor);
    return rc == 0 ? 1 : err_prefix(err, -EBADMSG, "%s: job %" PRIu64, t->env.path, ret->job);
}

int job_table_next(struct job_table *t, uint64_t after, struct stored_job_entry *ret, struct err *err)
{
    MDB_txn *txn = NULL;
    uint8_t key[8];
    int rc;

    if (after == UINT64_MAX)
        return 0;
    rc = env_begin_read(&t->env, &txn, err);
    if (rc < 0)
        return rc;
    env_put_be64(key, after + 1);
    rc = read_row(t, txn, key, ret, err);
    mdb_txn_abort(txn);
    return rc;
}

static bool has_row(struct job_table *t, uint64_t job)
{
    struct stored_job_entry entry = {0};
    struct err unused;
    int rc = job_table_next(t, job - 1, &entry, &unused);

    return (rc == 1 || rc == -EBADMSG) && entry.job == job; /* a damaged one is one too */
}

uint64_t job_table_last(const struct job_table *t)
{
    return t->last;
}

int job_table_store_path(const struct job_table *t, uint64_t job, char ret[PATH_MAX], struct err *err)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "%08" PRIu64 ".lmdb", job);
    return folder_name(ret, t->folder, name, err);
}

/* Of a job whose row says REMOVED and whose store is gone. */
static int remove_row_of(struct job_table *t, uint64_t job, struct err *err)
{
    const struct stored_job_counters last = {.n_items = t->last};
    int rc = folder_sync(t->folder, err); /* else the store might come back without its row, and be adopted */

    buf_clear(&t->row);
    if (rc == 0 && (rc = stored_job_counters_encode(&last, &t->row)) < 0)
        rc = err_set(err, rc, "%s: out of memory", t->env.path);
    return rc < 0 ? rc : change(t, remove_row, job, err);
}

int job_table_remove_begin(struct job_table *t, const struct stored_job_entry *entry, char ret_path[PATH_MAX],
                           struct err *err)
{
    struct stored_job_entry e = *entry;
    int rc;

    e.wanted = STORED_WANTED_REMOVED;
    rc = job_table_put(t, &e, err);
    return rc < 0 ? rc : job_table_store_path(t, e.job, ret_path, err);
}

int job_table_remove_end(struct job_table *t, const struct stored_job_entry *entry, int rc, struct err *err)
{
    struct stored_job_entry e = *entry;
    struct err unused;

    e.wanted = STORED_WANTED_REMOVED;
    if (rc == 0)
        rc = remove_row_of(t, e.job, err);
    if (rc < 0) {
        (void)msg_text_set(e.text, sizeof(e.text), err->text);
        (void)!job_table_put(t, &e, &unused); /* the row says REMOVED already */
    }
    return rc;
}

static int remove_now(struct job_table *t, const struct stored_job_entry *entry)
{
    char path[PATH_MAX];
    struct err err;
    int rc = job_table_remove_begin(t, entry, path, &err);

    return rc < 0 ? rc : job_table_remove_end(t, entry, folder_remove(path, &err), &err);
}

/* -- what a crash, or somebody's hand, has left -- */

static int adopt(struct job_table *t, uint64_t job, const char *path, struct err *err)
{
    struct stored_job_entry entry = {.job = job};
    const struct stored_job_meta *meta;
    struct reader *r;
    int rc = reader_open(path, t->allow_network_fs, &r, err);

    if (rc < 0)
        return rc;
    meta = reader_meta(r);
    entry.created_ms = meta->created_ms;
    entry.has_token = meta->has_token;
    entry.push = meta->push;
    memcpy(entry.token, meta->token, sizeof(entry.token));
    (void)msg_text_set(entry.name, sizeof(entry.name), meta->name);
    (void)msg_text_set(entry.owner, sizeof(entry.owner), meta->owner);
    (void)msg_text_set(entry.recipe, sizeof(entry.recipe), meta->recipe.name);
    stored_job_entry_set_model(&entry, meta->n_nodes, meta->nodes);
    reader_close(r);
    return job_table_put(t, &entry, err);
}

static int set_aside(const char *path, struct err *err)
{
    char to[PATH_MAX];

    if (snprintf(to, sizeof(to), "%s.set-aside", path) >= (int)sizeof(to) || rename(path, to) < 0)
        return err_set(err, -EIO, "%s: is no readable store, and cannot be renamed: %s", path, strerror(errno));
    return 0;
}

static int look_at_store(struct job_table *t, uint64_t job, struct job_table_found *found, struct err *err)
{
    char path[PATH_MAX];
    int rc = job_table_store_path(t, job, path, err);

    if (job > t->last)
        t->last = job;
    if (rc < 0 || has_row(t, job))
        return rc;
    rc = adopt(t, job, path, err);
    found->n_adopted += rc == 0;
    if (rc != -EINVAL && rc != -EBADMSG && rc != -ENOENT && rc != -EPROTONOSUPPORT)
        return rc;
    rc = set_aside(path, err);
    found->n_set_aside += rc == 0;
    return rc;
}

/* "00000042.lmdb" -> 42; 0: another name. */
static uint64_t job_of(const char *name)
{
    const size_t n = strspn(name, "0123456789");

    return n >= 8 && n < 20 && strcmp(name + n, ".lmdb") == 0 ? strtoull(name, NULL, 10) : 0;
}

static int look_at_stores(struct job_table *t, struct job_table_found *found, struct err *err)
{
    DIR *folder = opendir(t->folder);
    int rc = 0;

    if (!folder)
        return err_set(err, -errno, "%s: %s", t->folder, strerror(errno));
    for (struct dirent *entry; rc == 0 && (entry = readdir(folder));) {
        const uint64_t job = job_of(entry->d_name);

        if (job)
            rc = look_at_store(t, job, found, err);
    }
    (void)closedir(folder);
    return rc;
}

static int look_at_rows(struct job_table *t, struct job_table_found *found, struct err *err)
{
    struct stored_job_entry entry = {0};
    char path[PATH_MAX];
    int rc;

    while ((rc = job_table_next(t, entry.job, &entry, err)) != 0) {
        if (rc < 0 && rc != -EBADMSG)
            return rc;
        if (entry.job > t->last)
            t->last = entry.job;
        if (rc == 1 && entry.wanted == STORED_WANTED_REMOVED && remove_now(t, &entry) == 0)
            continue;
        found->n_rows += rc == 1;
        if (rc < 0 || entry.wanted == STORED_WANTED_REMOVED)
            continue; /* the store stays; whoever lists the jobs says that the row is damaged */
        rc = job_table_store_path(t, entry.job, path, err);
        if (rc < 0)
            return rc;
        if (access(path, F_OK) == 0 || errno != ENOENT)
            continue;
        found->n_missing++;
        (void)snprintf(entry.text, sizeof(entry.text), "its store %.900s is missing", path);
        rc = job_table_put(t, &entry, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* -- open, close -- */

static int open_tables(struct job_table *t, MDB_txn *txn, uint64_t unused)
{
    int rc = mdb_dbi_open(txn, "jobs", MDB_CREATE, &t->jobs);

    (void)unused;
    return rc == 0 ? mdb_dbi_open(txn, "meta", MDB_CREATE, &t->meta) : rc;
}

static int read_last(struct job_table *t, struct err *err)
{
    struct stored_job_counters last = {0};
    MDB_txn *txn = NULL;
    MDB_val v;
    int rc = env_begin_read(&t->env, &txn, err);

    if (rc < 0)
        return rc;
    rc = env_get(txn, t->meta, LAST_JOB, strlen(LAST_JOB), &v, err);
    if (rc == 0)
        rc = stored_job_counters_decode(v.mv_data, v.mv_size, &last, err);
    mdb_txn_abort(txn);
    t->last = last.n_items;
    return rc < 0 && rc != -ENOENT ? err_prefix(err, rc, "%s: %s", t->env.path, LAST_JOB) : 0;
}

int job_table_open(const char *state_dir, bool allow_network_fs, struct job_table **ret, struct job_table_found *found,
                   struct err *err)
{
    const struct env_options options = {
        .write = true, .create = true, .allow_network_fs = allow_network_fs, .pages = ENV_PAGES_CHECK};
    struct job_table *t = calloc(1, sizeof(*t));
    char path[PATH_MAX];
    bool fresh;
    int rc;

    if (!t)
        return err_set(err, -ENOMEM, "%s: out of memory", state_dir);
    *found = (struct job_table_found){0};
    t->env.owner_fd = -1;
    t->allow_network_fs = allow_network_fs;
    buf_init(&t->row, STORED_MAX_BYTES);
    rc = folder_name(t->folder, state_dir, "jobs", err);
    if (rc == 0)
        rc = folder_name(path, state_dir, "jobs.lmdb", err);
    if (rc == 0)
        rc = file_make_folder(state_dir, err);
    if (rc == 0)
        rc = file_make_folder(t->folder, err);
    if (rc == 0)
        rc = env_open(path, &options, &t->env, &fresh, err);
    if (rc == 0)
        rc = change(t, open_tables, 0, err);
    if (rc == 0)
        rc = read_last(t, err);
    if (rc == 0)
        rc = look_at_stores(t, found, err);
    if (rc == 0)
        rc = look_at_rows(t, found, err);
    if (rc == 0)
        rc = folder_sync(state_dir, err);
    if (rc < 0) {
        job_table_close(t);
        return rc;
    }
    *ret = t;
    return 0;
}

void job_table_close(struct job_table *t)
{
    if (!t)
        return;
    env_close(&t->env);
    row_memory_release(&t->memory);
    buf_release(&t->row);
    free(t);
}
