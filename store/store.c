#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/guard.h"
#include "store/keys.h"
#include "store/store_state.h"

/* -- results -- */

static bool records_fit(const struct store_records *r)
{
    uint32_t at = 0;

    if (r->n_failed > r->n)
        return false;
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->ends[i] <= at || stored_check(r->data + at, r->ends[i] - at, NULL) < 0)
            return false;
        at = r->ends[i];
    }
    return true;
}

int store_put_state(struct store *s, uint32_t unit, const struct stored_unit_state *state, struct err *err)
{
    uint8_t key[4];

    env_put_be32(key, unit);
    buf_clear(&s->row);
    if (stored_unit_state_encode(state, &s->row) < 0)
        return err_set(err, -EIO, "unit %" PRIu32 ": cannot encode its state", unit);
    return store_put(s, s->env.units, key, 4, s->row.data, s->row.size_bytes, 0, err);
}

static int put_records(struct store *s, uint64_t first_item, const struct store_records *r, struct err *err)
{
    unsigned flags = first_item >= s->end_item ? MDB_APPEND : 0;
    uint32_t at = 0;

    for (uint32_t i = 0; i < r->n; i++) {
        uint8_t key[8];
        int rc;

        env_put_be64(key, first_item + i);
        rc = store_put(s, s->env.items, key, 8, r->data + at, r->ends[i] - at, flags, err);
        if (rc < 0)
            return rc;
        at = r->ends[i];
    }
    if (flags)
        s->end_item = first_item + r->n;
    return 0;
}

static bool embeddings_fit(const struct store *s, const struct store_records *r)
{
    uint32_t least_index = 0, least_kind = 0;

    for (uint32_t i = 0; i < r->n_embeddings; i++) {
        const struct store_embedding *e = &r->embeddings[i];

        if (e->index >= MSG_MAX_UNIT_ITEMS || (!r->again && e->index >= r->n) || e->kind < MSG_EMBEDDING_QUERY ||
            e->kind > MSG_EMBEDDING_CLS || !s->env.embeddings[e->kind].open)
            return false;
        if (e->index < least_index || (e->index == least_index && e->kind < least_kind))
            return false;
        least_index = e->index;
        least_kind = e->kind + 1;
        if (stored_check(r->embedding_data + e->start, e->size_bytes, NULL) < 0)
            return false;
    }
    return true;
}

/* `append`: the unit follows all others in `items`, hence in these tables too. */
static int put_embeddings(struct store *s, uint64_t first_item, const struct store_records *r, bool append,
                          struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->n_embeddings; i++) {
        const struct store_embedding *e = &r->embeddings[i];
        uint8_t key[8];

        env_put_be64(key, first_item + e->index);
        rc = store_put(s, s->env.embeddings[e->kind].dbi, key, 8, r->embedding_data + e->start, e->size_bytes,
                       append ? MDB_APPEND : 0, err);
    }
    return rc;
}

int store_put_unit(struct store *s, uint32_t unit, const struct store_records *records, struct err *err)
{
    struct stored_manifest_unit u;
    struct stored_unit_state state;
    int rc = env_read_state(&s->env, s->txn, unit, &state, err);

    if (rc < 0)
        return rc;
    if (state.done && !(records->again && state.n_again))
        return err_set(err, -EALREADY, "unit %" PRIu32 ": is done", unit);
    rc = env_read_unit(&s->env, s->txn, &s->memory, unit, &u, err);
    if (rc == -ENOENT)
        return err_set(err, rc, "unit %" PRIu32 ": not in the manifest", unit);
    if (rc < 0)
        return rc;
    if (records->n != u.n_items && !state.done)
        return err_set(err, -EINVAL, "unit %" PRIu32 ": %" PRIu32 " records for %" PRIu32 " items", unit, records->n,
                       u.n_items);
    if (!records_fit(records))
        return err_set(err, -EINVAL, "unit %" PRIu32 ": its records are not whole", unit);
    if (!embeddings_fit(s, records))
        return err_set(err, -EINVAL, "unit %" PRIu32 ": its embeddings are not whole, or not asked for", unit);
    if (state.done)
        return store_put_again(s, unit, &u, &state, records, err);
    if (records->again)
        return err_set(err, -EINVAL, "unit %" PRIu32 ": is not done, and some of it is to be done again", unit);
    rc = put_embeddings(s, u.first_item, records, u.first_item >= s->end_item, err);
    if (rc < 0)
        return rc;
    rc = put_records(s, u.first_item, records, err);
    if (rc < 0)
        return rc;
    state.done = true;
    state.n_parts = 0;
    state.n_failed = records->n_failed;
    rc = store_put_state(s, unit, &state, err);
    if (rc < 0)
        return rc;
    s->counters.n_done += records->n;
    s->counters.n_failed += records->n_failed;
    s->counters.n_units_done++;
    return 0;
}

int store_put_attempts(struct store *s, uint32_t unit, uint32_t attempts, const uint8_t *parts, uint32_t n_parts,
                       struct err *err)
{
    struct stored_unit_state state;
    int rc = env_read_state(&s->env, s->txn, unit, &state, err);

    if (rc < 0)
        return rc;
    if (n_parts > STORED_MAX_PARTS)
        return err_set(err, -EINVAL, "unit %" PRIu32 ": cut in parts behind its item %d", unit, STORED_MAX_PARTS);
    if (state.done && state.n_again == 0)
        return err_set(err, -EALREADY, "unit %" PRIu32 ": is done", unit);
    if (unit >= s->counters.n_units)
        return err_set(err, -ENOENT, "unit %" PRIu32 ": not in the manifest", unit);
    while (n_parts > 0 && parts[n_parts - 1] == 0)
        n_parts--;
    state.attempts = attempts;
    state.n_parts = n_parts;
    memset(state.parts, 0, sizeof(state.parts));
    if (n_parts)
        memcpy(state.parts, parts, n_parts);
    return store_put_state(s, unit, &state, err);
}

/* -- open, close -- */

/* One transaction makes tables and meta, so a store without both is unfinished. */
static int create_tables(struct store *s, const struct stored_job_meta *meta, struct err *err)
{
    int rc;

    s->meta = *meta;
    s->meta.schema_version = STORED_SCHEMA_VERSION;
    if (s->meta.created_ms == 0)
        s->meta.created_ms = clock_wall_ms();
    rc = store_begin(s, err);
    if (rc < 0)
        return rc;
    rc = env_open_tables(&s->env, s->txn, true, s->path, err);
    if (rc == 0)
        rc = env_open_embeddings(&s->env, s->txn, true, &s->meta.recipe, s->path, err);
    if (rc == 0)
        rc = stored_job_meta_encode(&s->meta, &s->row);
    if (rc == -EINVAL)
        err_set(err, rc, "%s: a field of the new store's meta is out of range", s->path);
    if (rc == 0)
        rc = store_put(s, s->env.meta, "job", 3, s->row.data, s->row.size_bytes, MDB_NOOVERWRITE, err);
    if (rc == 0)
        rc = store_put_counters(s, "counters", &s->counters, err);
    if (rc < 0) {
        store_abort(s);
        return rc;
    }
    return store_commit(s, err);
}

static int last_item(struct store *s, MDB_txn *txn, uint64_t *ret_end, struct err *err)
{
    MDB_cursor *c;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, s->env.items, &c);

    if (rc != 0)
        return err_set(err, env_errno(rc), "%s: %s", s->path, mdb_strerror(rc));
    rc = mdb_cursor_get(c, &k, &v, MDB_LAST);
    mdb_cursor_close(c);
    if (rc == 0 && k.mv_size != 8)
        return err_set(err, -EBADMSG, "%s: items has a key of %zu bytes", s->path, k.mv_size);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return err_set(err, env_errno(rc), "%s: %s", s->path, mdb_strerror(rc));
    *ret_end = rc == 0 ? env_get_be64(k.mv_data) + 1 : 0;
    return 0;
}

/* True if it is empty: a creation ended before its only transaction. */
static bool is_blank(const struct store *s)
{
    MDB_stat st;

    return mdb_env_stat(s->env.mdb, &st) == 0 && st.ms_entries == 0;
}

static int read_tables(struct store *s, struct err *err)
{
    MDB_txn *txn;
    int rc = env_begin_read(&s->env, &txn, err);

    if (rc < 0)
        return rc;
    rc = env_open_tables(&s->env, txn, false, s->path, err);
    if (rc == 0)
        rc = env_read_meta(&s->env, txn, s->path, &s->meta, err);
    if (rc == 0)
        rc = env_open_embeddings(&s->env, txn, false, &s->meta.recipe, s->path, err);
    if (rc == 0) {
        rc = env_read_counters(&s->env, txn, &s->counters, err);
        if (rc == 0)
            rc = env_read_keys_covered(&s->env, txn, &s->keys_covered, err);
        if (rc == 0)
            rc = last_item(s, txn, &s->end_item, err);
        if (rc == 0)
            rc = store_push_open(s, txn, err);
        if (rc < 0)
            err_prefix(err, rc, "%s", s->path);
    }
    if (rc == 0 && s->env.pages_checked)
        rc = keys_check(&s->env, txn, s->keys_covered, s->path, err);
    if (rc == 0) {
        rc = mdb_txn_commit(txn); /* keeps the tables open */
        return rc == 0 ? 0 : err_set(err, env_errno(rc), "%s: %s", s->path, mdb_strerror(rc));
    }
    mdb_txn_abort(txn);
    return rc;
}

static int file_length(struct store *s, struct err *err)
{
    mdb_filehandle_t fd;
    struct stat st;

    if (mdb_env_get_fd(s->env.mdb, &fd) != 0 || fstat(fd, &st) < 0)
        return err_set(err, -EIO, "%s: cannot ask for the length of data.mdb", s->path);
    s->file_bytes = (uint64_t)st.st_size;
    return 0;
}

static int open_tables(struct store *s, const struct store_options *o, bool *ret_created, struct err *err)
{
    if (!is_blank(s)) {
        *ret_created = false;
        return read_tables(s, err);
    }
    if (!o->create)
        return err_set(err, -EINVAL, "%s: its creation was never finished; there is nothing in it", s->path);
    *ret_created = true;
    return create_tables(s, o->meta, err);
}

int store_open(const char *path, const struct store_options *options, struct store **ret, bool *ret_created,
               struct err *err)
{
    const struct env_options eo = {.write = true,
                                   .create = options->create,
                                   .allow_network_fs = options->allow_network_fs,
                                   .pages = options->check ? ENV_PAGES_CHECK_ALL : ENV_PAGES_CHECK};
    struct store *s;
    bool fresh, created = false;
    int rc;

    if (options->create &&
        (!options->meta || options->meta->unit_items == 0 || options->meta->unit_items > MSG_MAX_UNIT_ITEMS))
        return err_set(err, -EINVAL, "%s: a new store needs its meta, with units of 1 to %d items", path,
                       MSG_MAX_UNIT_ITEMS);
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    s->env.owner_fd = s->push.fd = -1;
    s->seam = options->seam;
    (void)pthread_mutex_init(&s->map_lock, NULL);
    s->min_free_bytes = options->min_free_bytes ? options->min_free_bytes : STORE_MIN_FREE_BYTES;
    buf_init(&s->row, STORED_MAX_BYTES);
    s->path = strdup(path);
    rc = s->path ? 0 : err_set(err, -ENOMEM, "%s: out of memory", path);
    if (rc == 0 && options->create)
        rc = store_check_room(s, err);
    if (rc == 0)
        rc = env_open(path, &eo, &s->env, &fresh, err);
    if (rc == 0)
        rc = file_length(s, err);
    if (rc == 0)
        rc = open_tables(s, options, &created, err);
    if (rc == 0 && (s->meta.unit_items == 0 || s->meta.unit_items > MSG_MAX_UNIT_ITEMS))
        rc = err_set(err, -EBADMSG, "%s: units of %" PRIu32 " items", path, s->meta.unit_items);
    if (rc == 0 &&
        (store_tail_init(&s->tail, s->meta.unit_items) < 0 || store_tail_init(&s->saved_tail, s->meta.unit_items) < 0))
        rc = err_set(err, -ENOMEM, "%s: out of memory", path);
    if (rc < 0) {
        store_close(s);
        return rc;
    }
    s->committed = s->counters;
    *ret = s;
    if (ret_created)
        *ret_created = created;
    return 0;
}

/* Lets the next owner of a large store skip the check of all pages: a row that names its own transaction is valid until
 * another one follows. If it cannot be written, the pages are checked. */
static void close_in_order(struct store *s)
{
    struct stored_job_counters c = {0};

    if (!s->written || s->damaged || store_begin(s, NULL) < 0)
        return;
    c.n_items = mdb_txn_id(s->txn);
    if (store_put_counters(s, "closed", &c, NULL) < 0 || store_commit(s, NULL) < 0)
        store_abort(s);
}

int store_guard(struct store *s, const char *path, int (*call)(void *arg), void *arg, struct err *err)
{
    bool jumped;
    int rc;

    if (s && s->lost)
        return err_set(err, -EIO, "%s", s->lost_err.text);
    rc = guard_run(path, call, arg, &jumped, err);
    if (s && jumped) {
        s->lost = true;
        s->lost_err = *err;
        s->txn = NULL;
        s->counters = s->committed;
    }
    return rc;
}

void store_close(struct store *s)
{
    mdb_filehandle_t fd;

    if (!s)
        return;
    if (s->lost) { /* LMDB may hold locks and half-changed lists; the lock on `owner` stays to keep others away */
        free(s->path);
        free(s);
        return;
    }
    store_abort(s);
    close_in_order(s);
    /* release reserved space; only the owner changes the length */
    if (s->env.mdb && s->file_bytes > store_used_bytes(s) && mdb_env_get_fd(s->env.mdb, &fd) == 0)
        (void)!ftruncate(fd, (off_t)store_used_bytes(s));
    keys_build_free(s->keys);
    store_push_close(s);
    env_close(&s->env);
    (void)pthread_mutex_destroy(&s->map_lock);
    store_tail_release(&s->tail);
    store_tail_release(&s->saved_tail);
    row_memory_release(&s->memory);
    row_memory_release(&s->old_memory);
    buf_release(&s->row);
    free(s->path);
    free(s);
}

const char *store_path(const struct store *s)
{
    return s->path;
}

const struct stored_job_meta *store_info(const struct store *s)
{
    return &s->meta;
}

const struct stored_job_counters *store_counters(const struct store *s)
{
    return &s->counters;
}

uint64_t store_next_item(const struct store *s)
{
    return s->counters.n_items + s->tail.n;
}
