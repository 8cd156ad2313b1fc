/* again.c - items to be redone. They are marked in the state of their unit, which stays done, and their records stay
 * until they are replaced, so that a crash loses neither records nor marks. */
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_state.h"

/* New paths and fields may enlarge a unit, but its Work message must fit one row frame. */
#define AGAIN_MAX_UNIT_BYTES ((size_t)8 << 20)

/* A unit of the manifest while rows of its items arrive. */
struct again_unit {
    uint32_t last_source; /* that was found to be there */
    bool open;
    uint32_t n_marked; /* here */
    uint32_t unit;
    uint64_t first_item;
    uint32_t n_items;
    struct row_item *items; /* [MSG_MAX_UNIT_ITEMS]; their bytes lie in store.memory and arena */
    struct stored_unit_state state;
    struct arena arena;
};

static bool holds(const struct again_unit *a, uint64_t item)
{
    return a->open && item >= a->first_item && item - a->first_item < a->n_items;
}

static int open_unit(struct store *s, struct again_unit *a, uint32_t unit, struct err *err)
{
    struct stored_manifest_unit u;
    int rc = env_read_unit(&s->env, s->txn, &s->memory, unit, &u, err);

    if (rc == 0)
        rc = env_read_state(&s->env, s->txn, unit, &a->state, err);
    if (rc < 0)
        return rc;
    arena_reset(&a->arena);
    memcpy(a->items, u.items, u.n_items * sizeof(*a->items));
    a->open = true;
    a->n_marked = 0;
    a->unit = unit;
    a->first_item = u.first_item;
    a->n_items = u.n_items;
    return 0;
}

/* The unit of the item: mostly the next one. */
static int find_unit(struct store *s, struct again_unit *a, uint64_t item, struct err *err)
{
    uint32_t unit;
    int rc;

    if (a->open && a->unit + 1 < s->counters.n_units) {
        rc = open_unit(s, a, a->unit + 1, err);
        if (rc < 0 || holds(a, item))
            return rc;
    }
    a->open = false;
    rc = env_find_unit(&s->env, s->txn, &s->memory, item, s->counters.n_units, &unit, err);
    if (rc == -ENOENT)
        return err_set(err, -EINVAL, "item %" PRIu64 ": is not in the manifest", item);
    return rc < 0 ? rc : open_unit(s, a, unit, err);
}

/* Puts the manifest row if it has changed. */
static int put_manifest(struct store *s, const struct again_unit *a, struct err *err)
{
    const struct stored_manifest_unit u = {.first_item = a->first_item, .n_items = a->n_items, .items = a->items};
    uint8_t key[4];
    MDB_val v;
    int rc;

    buf_clear(&s->row);
    rc = stored_manifest_unit_encode(&u, &s->row);
    if (rc < 0)
        return err_set(err, rc == -ENOMEM ? rc : -EIO, "unit %" PRIu32 ": cannot encode its items", a->unit);
    env_put_be32(key, a->unit);
    rc = env_get(s->txn, s->env.manifest, key, 4, &v, err);
    if (rc < 0)
        return rc == -ENOENT ? err_set(err, -EBADMSG, "unit %" PRIu32 ": its manifest row is gone", a->unit) : rc;
    if (v.mv_size == s->row.size_bytes && memcmp(v.mv_data, s->row.data, v.mv_size) == 0)
        return 0;
    if (s->row.size_bytes > AGAIN_MAX_UNIT_BYTES)
        return err_set(err, -EMSGSIZE, "unit %" PRIu32 ": its items would take %zu bytes", a->unit, s->row.size_bytes);
    return store_put(s, s->env.manifest, key, 4, s->row.data, s->row.size_bytes, 0, err);
}

int store_put_marks(struct store *s, uint32_t unit, struct stored_unit_state *state, uint32_t n_marked, struct err *err)
{
    int rc;

    state->n_again += n_marked;
    state->attempts = state->n_parts = 0; /* those of the first run no longer count */
    rc = store_put_state(s, unit, state, err);
    s->counters.n_again += rc == 0 ? n_marked : 0;
    return rc;
}

static int close_unit(struct store *s, struct again_unit *a, struct err *err)
{
    int rc = a->open ? put_manifest(s, a, err) : 0;

    if (rc < 0 || !a->open || a->n_marked == 0)
        return rc;
    return store_put_marks(s, a->unit, &a->state, a->n_marked, err);
}

static int take_row(struct store *s, struct again_unit *a, const struct row_item *row, struct err *err)
{
    const uint32_t i = (uint32_t)(row->item - a->first_item);
    struct row_item *item = &a->items[i];
    struct row_item copy = *row;
    int rc = store_check_source(s, row->source, &a->last_source, err);

    if (rc < 0)
        return rc;

    copy.key = item->key; /* indexed by `keys` */
    copy.key_bytes = item->key_bytes;
    copy.n_captions = 0;
    rc = row_item_copy(&a->arena, &copy, item);
    if (rc < 0)
        return err_set(err, rc, "%s: out of memory", s->path);
    if (!a->state.done || (a->state.again[i / 64] >> (i % 64) & 1))
        return 0;
    a->state.again[i / 64] |= (uint64_t)1 << (i % 64);
    a->n_marked++;
    return 0;
}

static int take_rows(struct store *s, struct again_unit *a, struct row_cursor *c, uint32_t *from, struct err *err)
{
    struct row_item row;
    int rc;

    while ((rc = row_cursor_next_item(c, &row, err)) > 0) {
        if (!holds(a, row.item)) {
            rc = close_unit(s, a, err);
            if (rc == 0)
                rc = find_unit(s, a, row.item, err);
        }
        if (rc >= 0)
            rc = take_row(s, a, &row, err);
        if (rc < 0)
            return rc;
        if (a->unit < *from)
            *from = a->unit;
    }
    return rc;
}

int store_again(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, uint32_t *ret_from_unit,
                struct err *err)
{
    const struct row_frame frame = {.data = rows, .size_bytes = size_bytes};
    struct again_unit *a = calloc(1, sizeof(*a));
    uint32_t from = UINT32_MAX;
    struct row_cursor c;
    int rc, closed;

    if (a)
        a->items = malloc(MSG_MAX_UNIT_ITEMS * sizeof(*a->items));
    if (!a || !a->items) {
        free(a);
        return err_set(err, -ENOMEM, "%s: out of memory", s->path);
    }
    arena_init(&a->arena, 0);
    row_cursor_init(&c, &frame, 1, n_rows);
    rc = take_rows(s, a, &c, &from, err);
    row_cursor_release(&c);
    closed = close_unit(s, a, rc < 0 ? NULL : err); /* keep what has been accepted */
    arena_release(&a->arena);
    free(a->items);
    free(a);
    if (rc < 0 || closed < 0)
        return closed < 0 ? closed : rc;
    *ret_from_unit = from;
    return 0;
}

/* -- results -- */

/* Finds out whether the record is an error. */
static int is_failure(struct store *s, const void *data, size_t size_bytes, uint64_t item, bool *ret, struct err *err)
{
    struct row_record record;
    int rc = stored_record_decode(&s->old_memory, data, size_bytes, &record, err);

    if (rc < 0)
        return err_prefix(err, rc == -ENOMEM ? rc : -EBADMSG, "item %" PRIu64 ": record", item);
    *ret = record.failed;
    return 0;
}

/* Decides whether the new record replaces the old one. A failure only replaces a failure or an unreadable record; of
 * the latter it is unknown how it was counted (*ret_lost). */
static int put_record(struct store *s, uint64_t item, const uint8_t *data, uint32_t size_bytes,
                      struct stored_unit_state *state, bool *ret_put, bool *ret_lost, struct err *err)
{
    bool failed = false, failed_before = true, lost;
    uint8_t key[8];
    MDB_val old;
    int rc;

    env_put_be64(key, item);
    rc = env_get(s->txn, s->env.items, key, 8, &old, err);
    if (rc == 0)
        rc = is_failure(s, old.mv_data, old.mv_size, item, &failed_before, err);
    lost = rc == -ENOENT || rc == -EBADMSG;
    if (rc == 0 || lost)
        rc = is_failure(s, data, size_bytes, item, &failed, err);
    if (rc < 0)
        return rc;
    *ret_put = failed_before || !failed;
    if (!*ret_put)
        return 0;
    rc = store_put(s, s->env.items, key, 8, data, size_bytes, 0, err);
    if (rc < 0)
        return rc;
    s->counters.n_redone++;
    *ret_lost |= lost;
    if (lost)
        return 0;
    state->n_failed += (uint32_t)failed - (uint32_t)failed_before;
    s->counters.n_failed += (uint64_t)failed - (uint64_t)failed_before;
    return 0;
}

static int put_embeddings(struct store *s, uint64_t first_item, const struct store_records *r, const uint64_t *put,
                          struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->n_embeddings; i++) {
        const struct store_embedding *e = &r->embeddings[i];
        uint8_t key[8];

        if (!(put[e->index / 64] >> (e->index % 64) & 1))
            continue;
        env_put_be64(key, first_item + e->index);
        rc = store_put(s, s->env.embeddings[e->kind].dbi, key, 8, r->embedding_data + e->start, e->size_bytes, 0, err);
    }
    return rc;
}

/* How many records of the unit are errors, once unreadable ones have been replaced. Records that are still unreadable
 * do not count. */
static int count_failures(struct store *s, const struct stored_manifest_unit *u, struct stored_unit_state *state,
                          struct err *err)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < u->n_items; i++) {
        bool failed = false;
        uint8_t key[8];
        MDB_val v;
        int rc;

        env_put_be64(key, u->first_item + i);
        rc = env_get(s->txn, s->env.items, key, 8, &v, err);
        if (rc == 0)
            rc = is_failure(s, v.mv_data, v.mv_size, u->first_item + i, &failed, err);
        if (rc < 0 && rc != -ENOENT && rc != -EBADMSG)
            return rc;
        n += failed;
    }
    s->counters.n_failed += (uint64_t)n - (uint64_t)state->n_failed;
    state->n_failed = n;
    return 0;
}

int store_put_again(struct store *s, uint32_t unit, const struct stored_manifest_unit *u,
                    struct stored_unit_state *state, const struct store_records *records, struct err *err)
{
    uint64_t put[MSG_MAX_UNIT_ITEMS / 64] = {0};
    uint32_t at = 0, n = 0;
    bool lost = false;
    int rc = 0;

    for (uint32_t i = 0; i < MSG_MAX_UNIT_ITEMS; i++)
        n += i < u->n_items ? records->again[i / 64] >> (i % 64) & 1 : 0;
    if (n != records->n)
        return err_set(err, -EINVAL, "unit %" PRIu32 ": %" PRIu32 " records for %" PRIu32 " items", unit, records->n,
                       n);
    n = 0;
    for (uint32_t i = 0; rc == 0 && i < u->n_items; i++) {
        const uint64_t bit = (uint64_t)1 << (i % 64);
        bool taken = false;

        if (!(records->again[i / 64] & bit))
            continue;
        if (state->again[i / 64] & bit)
            rc = put_record(s, u->first_item + i, records->data + at, records->ends[n] - at, state, &taken, &lost, err);
        at = records->ends[n++];
        if (rc == 0 && taken) {
            put[i / 64] |= bit;
            state->again[i / 64] &= ~bit;
            state->n_again--;
            s->counters.n_again--;
        }
    }
    if (rc == 0 && lost)
        rc = count_failures(s, u, state, err);
    if (rc == 0)
        rc = put_embeddings(s, u->first_item, records, put, err);
    return rc < 0 ? rc : store_put_state(s, unit, state, err);
}
