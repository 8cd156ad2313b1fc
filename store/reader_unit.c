/* reader_unit.c - loads the rows of one unit, as of one transaction. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/reader_remote.h"
#include "store/reader_state.h"

int reader_keep_record(struct reader *r, uint32_t unit, uint64_t item, const void *data, size_t size_bytes,
                       struct err *err)
{
    const uint64_t i = item - r->manifest.first_item;

    if (r->records[i].size_bytes)
        return err_set(err, -EBADMSG, "%s: item %" PRIu64 " (unit %" PRIu32 "): two records", r->path, item, unit);
    r->records[i] = (struct reader_span){.offset = r->bytes.size_bytes, .size_bytes = size_bytes};
    if (size_bytes > STORED_MAX_BYTES)
        return err_set(err, -EBADMSG, "%s: item %" PRIu64 " (unit %" PRIu32 "): a record of %zu bytes", r->path, item,
                       unit, size_bytes);
    if (buf_append(&r->bytes, data, size_bytes) < 0)
        return err_set(err, -ENOMEM, "%s: out of memory", r->path);
    return 0;
}

static int copy_records(struct reader *r, uint32_t unit, MDB_cursor *c, struct err *err)
{
    uint8_t key[8];
    MDB_val k = {.mv_size = 8, .mv_data = key}, v;
    int rc;

    env_put_be64(key, r->manifest.first_item);
    for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        uint64_t i = k.mv_size == 8 ? env_get_be64(k.mv_data) - r->manifest.first_item : UINT64_MAX;
        int failed;

        if (i >= r->manifest.n_items)
            return 0;
        failed = reader_keep_record(r, unit, r->manifest.first_item + i, v.mv_data, v.mv_size, err);
        if (failed < 0)
            return failed;
    }
    return rc == MDB_NOTFOUND ? 0 : err_set(err, env_errno(rc), "%s: items: %s", r->path, mdb_strerror(rc));
}

void reader_clear_unit(struct reader *r)
{
    r->state = (struct stored_unit_state){0};
    r->state_rc = 0;
    buf_clear(&r->bytes);
    memset(r->records, 0, r->manifest.n_items * sizeof(*r->records));
}

int reader_count_units(struct reader *r, uint32_t *ret, struct err *err)
{
    enum { LEAST_ROW_BYTES = 32 };
    struct stored_job_counters c;
    MDB_envinfo info;
    MDB_stat st;
    uint64_t most;
    int rc = env_read_counters(&r->env, r->txn, &c, err);

    if (rc == 0)
        *ret = c.n_units;
    if (rc != -EBADMSG)
        return rc;
    if (mdb_stat(r->txn, r->env.manifest, &st) != 0 || mdb_env_info(r->env.mdb, &info) != 0)
        return -EIO;
    most = ((uint64_t)info.me_last_pgno + 1) * r->env.page_bytes / LEAST_ROW_BYTES;
    *ret = (uint32_t)(st.ms_entries < most ? st.ms_entries : most < UINT32_MAX ? most : UINT32_MAX);
    return 0;
}

/* A unit that is missing (-ENOENT) or unreadable: after the last unit that is the end, otherwise damage. */
static int no_unit(struct reader *r, uint32_t unit, int code, const struct err *why, struct err *err)
{
    uint32_t n_units = 0;
    int rc = reader_count_units(r, &n_units, err);

    if (rc < 0)
        return err_prefix(err, rc, "%s", r->path);
    if (unit >= n_units)
        return -ENOENT;
    if (code == -ENOENT)
        return err_set(err, -EBADMSG, "%s: unit %" PRIu32 ": its manifest row is missing", r->path, unit);
    return err_set(err, code, "%s: %s", r->path, why->text);
}

int reader_load_now(struct reader *r, uint32_t unit, struct err *err)
{
    struct err why = {""};
    MDB_cursor *c;
    int rc = env_read_unit(&r->env, r->txn, &r->unit_memory, unit, &r->manifest, &why);

    if (rc == -ENOENT || rc == -EBADMSG)
        return no_unit(r, unit, rc, &why, err);
    if (rc < 0)
        return err_set(err, rc, "%s: %s", r->path, why.text);
    reader_clear_unit(r);
    r->state_rc = env_read_state(&r->env, r->txn, unit, &r->state, &r->state_err);
    rc = mdb_cursor_open(r->txn, r->env.items, &c);
    if (rc != 0)
        return err_set(err, env_errno(rc), "%s: items: %s", r->path, mdb_strerror(rc));
    rc = copy_records(r, unit, c, err);
    mdb_cursor_close(c);
    return rc;
}

int reader_load(struct reader *r, uint32_t unit, struct err *err)
{
    int rc = r->remote ? 0 : reader_begin(r, err);

    r->loaded = false;
    if (rc < 0)
        return rc;
    rc = r->remote ? remote_load(r, unit, err) : reader_load_now(r, unit, err);
    if (!r->remote)
        reader_end(r);
    if (rc < 0)
        return rc;
    r->loaded = true;
    r->unit = unit;
    return 0;
}

int reader_record(struct reader *r, uint32_t i, struct row_record *ret, struct err *err)
{
    uint64_t item = r->manifest.first_item + i;
    const struct reader_span *span = &r->records[i];
    int rc;

    if (span->size_bytes == 0)
        return 0;
    rc = stored_record_decode(&r->record_memory, r->bytes.data + span->offset, span->size_bytes, ret, err);
    if (rc < 0)
        return err_prefix(err, rc == -ENOMEM ? rc : -EBADMSG, "%s: item %" PRIu64 " (unit %" PRIu32 "): record",
                          r->path, item, r->unit);
    if (ret->item != item)
        return err_set(err, -EBADMSG, "%s: item %" PRIu64 " (unit %" PRIu32 "): its record says it is of item %" PRIu64,
                       r->path, item, r->unit, ret->item);
    return 1;
}

/* -- which are done -- */

static int list_done(struct reader *r, MDB_cursor *c, uint32_t *from, struct err *err)
{
    uint8_t key[4];
    MDB_val k = {.mv_size = 4, .mv_data = key}, v;
    uint32_t n_seen = 0;
    int rc;

    env_put_be32(key, *from);
    for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        const uint32_t unit = k.mv_size == 4 ? env_get_be32(k.mv_data) : UINT32_MAX;
        struct stored_unit_state state;

        if (n_seen++ == READER_SLICE_ROWS || unit == UINT32_MAX)
            return 0;
        if (env_decode_state(&v, unit, &state, NULL) == 0 && state.done) {
            int failed = reader_found(r, unit, err);

            if (failed < 0)
                return failed;
        }
        *from = unit + 1;
    }
    return rc == MDB_NOTFOUND ? 0 : err_set(err, env_errno(rc), "%s: units: %s", r->path, mdb_strerror(rc));
}

static int read_done(struct reader *r, uint32_t *from, struct err *err)
{
    MDB_cursor *c;
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    rc = mdb_cursor_open(r->txn, r->env.units, &c);
    if (rc == 0) {
        rc = list_done(r, c, from, err);
        mdb_cursor_close(c);
    } else {
        rc = err_set(err, env_errno(rc), "%s: units: %s", r->path, mdb_strerror(rc));
    }
    reader_end(r);
    return rc;
}

int reader_units_done(struct reader *r, uint32_t *from, const uint64_t **ret, size_t *ret_n, struct err *err)
{
    int rc;

    r->n_found = 0;
    rc = r->remote ? remote_units_done(r, from, err) : read_done(r, from, err);
    *ret = r->found;
    *ret_n = r->n_found;
    return rc;
}
