#include "store/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/folder.h"
#include "store/reader_remote.h"
#include "store/reader_state.h"

int reader_begin(struct reader *r, struct err *err)
{
    int rc = r->shared && !r->shared->mdb ? MDB_PANIC : env_map_begin_read(&r->env, &r->txn);

    return rc == 0 ? 0 : err_set(err, env_errno(rc), "%s: cannot read: %s", r->path, mdb_strerror(rc));
}

void reader_end(struct reader *r)
{
    mdb_txn_reset(r->txn);
}

static int open_tables(struct reader *r, struct err *err)
{
    MDB_stat st;
    MDB_txn *txn;
    int rc;

    if (mdb_env_stat(r->env.mdb, &st) != 0 || st.ms_entries == 0)
        return err_set(err, -EINVAL, "%s: its creation was never finished; there is nothing in it", r->path);
    rc = env_begin_read(&r->env, &txn, err);
    if (rc < 0)
        return rc;
    rc = env_open_tables(&r->env, txn, false, r->path, err);
    if (rc == 0)
        rc = env_read_meta(&r->env, txn, r->path, &r->meta, err);
    if (rc == 0)
        rc = env_open_embeddings(&r->env, txn, false, &r->meta.recipe, r->path, err);
    if (rc < 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn); /* commit keeps the tables open */
    return rc == 0 ? 0 : err_set(err, env_errno(rc), "%s: %s", r->path, mdb_strerror(rc));
}

int reader_new(const char *path, struct reader **ret, struct err *err)
{
    struct reader *r = calloc(1, sizeof(*r));

    if (!r)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    r->env.owner_fd = -1;
    buf_init(&r->bytes, 0);
    buf_init(&r->path_bytes, 0);
    r->path = strdup(path);
    r->records = calloc(MSG_MAX_UNIT_ITEMS, sizeof(*r->records));
    if (!r->path || !r->records) {
        reader_close(r);
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    }
    *ret = r;
    return 0;
}

int reader_attach(const struct env *env, const struct stored_job_meta *meta, const char *path, struct reader **ret,
                  struct err *err)
{
    int rc = reader_new(path, ret, err);

    if (rc < 0)
        return rc;
    (*ret)->env = *env;
    (*ret)->shared = env;
    (*ret)->meta = *meta;
    return 0;
}

static int open_reader(const char *path, const struct env_options *eo, struct reader **ret, struct err *err)
{
    struct reader *r;
    bool empty;
    int rc = reader_new(path, &r, err);

    if (rc < 0)
        return rc;
    rc = env_open(path, eo, &r->env, &empty, err);
    if (rc == 0)
        rc = open_tables(r, err);
    if (rc < 0) {
        reader_close(r);
        return rc;
    }
    *ret = r;
    return 0;
}

int reader_open(const char *path, bool allow_network_fs, struct reader **ret, struct err *err)
{
    const struct env_options eo = {.allow_network_fs = allow_network_fs};

    return open_reader(path, &eo, ret, err);
}

int reader_open_to_go_on(const char *path, bool check_all, struct reader **ret, struct err *err)
{
    const struct env_options eo = {.pages = check_all ? ENV_PAGES_CHECK_ALL : ENV_PAGES_CHECK};

    return open_reader(path, &eo, ret, err);
}

void reader_close(struct reader *r)
{
    if (!r)
        return;
    if (r->txn && (!r->shared || r->shared->mdb)) /* otherwise LMDB has closed the map and the transaction */
        mdb_txn_abort(r->txn);
    if (!r->shared)
        env_close(&r->env);
    remote_free(r->remote);
    row_memory_release(&r->unit_memory);
    row_memory_release(&r->record_memory);
    row_memory_release(&r->embedding_memory);
    buf_release(&r->bytes);
    buf_release(&r->path_bytes);
    free(r->sources);
    free(r->records);
    free(r->found);
    free(r->path);
    free(r);
}

const struct stored_job_meta *reader_meta(const struct reader *r)
{
    return &r->meta;
}

int reader_counters(struct reader *r, struct stored_job_counters *ret, struct err *err)
{
    int rc = r->remote ? 0 : reader_begin(r, err);

    if (rc < 0)
        return rc;
    rc = r->remote ? remote_counters(r, ret, err) : env_read_counters(&r->env, r->txn, ret, err);
    if (!r->remote)
        reader_end(r);
    return rc < 0 ? err_prefix(err, rc, "%s", r->path) : 0;
}

int reader_disk_bytes(struct reader *r, uint64_t *ret, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;

    if (r->remote)
        return remote_disk_bytes(r, ret, err);
    *ret = folder_name(path, r->path, "data.mdb", NULL) == 0 && stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    return 0;
}

int reader_in_progress(struct reader *r, bool *ret, struct err *err)
{
    if (r->remote)
        return remote_in_progress(r, ret, err);
    *ret = folder_owner(r->path) > 0;
    return 0;
}

/* An item without a record is not done yet, unless its unit is done or its state unreadable. */
static int check_pending(const struct reader *r, uint64_t item, struct err *err)
{
    if (r->state_rc < 0)
        return err_set(err, r->state_rc, "%s: item %" PRIu64 ": %s", r->path, item, r->state_err.text);
    if (r->state.done)
        return err_set(err, -EBADMSG,
                       "%s: item %" PRIu64 " (unit %" PRIu32 "): the unit is done, its record is missing", r->path,
                       item, r->unit);
    return 0;
}

/* -- in order -- */

void reader_seek(struct reader *r, uint64_t item)
{
    r->position = item;
    r->seek = true;
    r->loaded = r->begun = r->whole = false;
}

void reader_seek_unit(struct reader *r, uint32_t unit)
{
    reader_seek(r, 0);
    r->seek = false;
    r->begun = true;
    r->next_unit = unit;
}

bool reader_is_inside_unit(const struct reader *r)
{
    return r->loaded && r->i_item < r->manifest.n_items;
}

int reader_find_unit(struct reader *r, uint64_t item, uint32_t *ret, struct err *err)
{
    struct stored_job_counters c;
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    rc = env_read_counters(&r->env, r->txn, &c, err);
    if (rc == 0)
        rc = env_find_unit(&r->env, r->txn, &r->unit_memory, item, c.n_units, ret, err);
    reader_end(r);
    if (rc == -ENOENT && item < c.n_items)
        rc = err_set(err, -EBADMSG, "the manifest has no unit of item %" PRIu64, item);
    return rc < 0 && rc != -ENOENT ? err_prefix(err, rc, "%s", r->path) : rc;
}

/* Find and load the unit of r->position. 0: there is none. */
int reader_find_position(struct reader *r, struct err *err)
{
    uint32_t unit = 0;
    int rc = r->remote ? remote_find_unit(r, r->position, &unit, err) : reader_find_unit(r, r->position, &unit, err);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = reader_load(r, unit, err);
    if (rc < 0)
        return rc;
    r->i_item = (uint32_t)(r->position - r->manifest.first_item);
    r->next_unit = unit + 1;
    r->seek = false;
    return 1;
}

/* Bisection met a damaged row: search every unit, and skip damaged ones. */
static int seek_slowly(struct reader *r, struct err *err)
{
    int damage = 0; /* a damaged unit may have had the item */

    r->seek = false;
    for (r->next_unit = 0;;) {
        int rc = reader_load(r, r->next_unit, err);

        if (rc == -ENOENT)
            return damage;
        if (rc < 0 && rc != -EBADMSG)
            return rc;
        damage = rc < 0 ? rc : damage;
        r->next_unit++;
        if (rc == 0 && r->position < r->manifest.first_item + r->manifest.n_items) {
            r->i_item = r->position > r->manifest.first_item ? (uint32_t)(r->position - r->manifest.first_item) : 0;
            return 1;
        }
    }
}

/* 1: an item is there, 0: the end. */
static int advance(struct reader *r, struct reader_row *ret, struct err *err)
{
    int rc;

    if (r->seek && r->position > 0) {
        rc = reader_find_position(r, err);
        return rc == -EBADMSG ? seek_slowly(r, err) : rc;
    }
    if (r->seek) {
        r->seek = false;
        r->next_unit = 0;
    } else if (reader_is_inside_unit(r)) {
        return 1;
    }
    ret->unit = r->next_unit;
    ret->item = r->position;
    rc = reader_load(r, r->next_unit, err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 || rc == -EBADMSG) /* continue after a damaged manifest row, but do not loop when out of memory */
        r->next_unit++;
    if (rc < 0)
        return rc;
    r->i_item = 0;
    return 1;
}

/* At the first row since a seek. A walk from item 0 finds at least as many records as the counters say now. */
static void begin_whole(struct reader *r)
{
    struct stored_job_counters c;

    r->begun = true;
    r->whole = r->position == 0 && reader_counters(r, &c, NULL) == 0;
    r->n_expected = r->whole ? c.n_done : 0;
    r->n_records = 0;
}

/* At the end: missing records would otherwise look like items that are not done yet. */
static int end_whole(struct reader *r, struct err *err)
{
    const uint64_t n_lost = r->whole && r->n_records < r->n_expected ? r->n_expected - r->n_records : 0;

    r->whole = false;
    return n_lost ? err_set(err, -EBADMSG, "%s: %" PRIu64 " of %" PRIu64 " items that are done have lost their records",
                            r->path, n_lost, r->n_expected)
                  : 0;
}

int reader_next(struct reader *r, struct reader_row *ret, struct err *err)
{
    struct reader_row row = {.item = r->position};
    int rc;

    if (!r->begun)
        begin_whole(r);
    rc = advance(r, &row, err);
    if (rc == 0)
        rc = end_whole(r, err);
    if (rc <= 0) {
        r->whole = false;
        if (rc < 0)
            *ret = row;
        return rc;
    }
    row.unit = r->unit;
    row.n_attempts = r->i_item == 0 && r->state_rc == 0 ? r->state.attempts : 0;
    row.listed = r->manifest.items[r->i_item];
    row.item = r->manifest.first_item + r->i_item;
    rc = reader_resolve(r, &row.listed, err);
    if (rc == 0)
        rc = reader_record(r, r->i_item, &row.record, err);
    row.has_record = rc > 0;
    if (rc == 0)
        rc = check_pending(r, row.item, err);
    r->i_item++;
    r->position = row.item + 1;
    r->n_records += row.has_record;
    r->whole &= rc >= 0;
    *ret = row;
    return rc < 0 ? rc : 1;
}

int reader_get(struct reader *r, uint64_t item, struct reader_row *ret, struct err *err)
{
    struct stored_job_counters c;
    int rc;

    reader_seek(r, item);
    rc = reader_next(r, ret, err);
    if (rc == 0)
        return err_set(err, -ENOENT, "%s: there is no item %" PRIu64, r->path, item);
    if (rc > 0 && ret->item != item)
        return err_set(err, -EBADMSG, "%s: the manifest row of item %" PRIu64 " is damaged", r->path, item);
    if (rc > 0 && !ret->has_record && reader_counters(r, &c, NULL) == 0 && c.n_done == c.n_items)
        return err_set(err, -EBADMSG, "%s: item %" PRIu64 " has lost its record: all items are done", r->path, item);
    return rc < 0 ? rc : 0;
}
