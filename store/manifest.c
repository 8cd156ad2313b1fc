/* manifest.c - collects items into units, and reads units back. */
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/push.h"
#include "store/store_state.h"

/* A unit ends here, so that the row frame of its Work message stays well below MSG_MAX_ROW_FRAME_BYTES. */
#define UNIT_MAX_BYTES ((size_t)4 << 20)
enum { ITEM_OVERHEAD_BYTES = 48, FIELD_OVERHEAD_BYTES = 10, PENDING_MAX_LOOKS = 10000 };

int store_tail_init(struct store_tail *t, uint32_t unit_items)
{
    arena_init(&t->arena, 0);
    t->items = calloc(unit_items, sizeof(*t->items));
    return t->items ? 0 : -ENOMEM;
}

void store_tail_release(struct store_tail *t)
{
    if (!t->items)
        return;
    free(t->items);
    arena_release(&t->arena);
    *t = (struct store_tail){0};
}

static void tail_clear(struct store_tail *t)
{
    arena_reset(&t->arena);
    t->n = 0;
    t->bytes = 0;
    t->picture_bytes = 0;
}

static size_t item_bytes(const struct row_item *item)
{
    size_t n = (size_t)item->key_bytes + item->path_bytes + item->error_message_bytes + ITEM_OVERHEAD_BYTES;

    for (uint32_t i = 0; i < item->n_fields; i++)
        n += (size_t)item->fields[i].name_bytes + item->fields[i].value_bytes + FIELD_OVERHEAD_BYTES;
    return n;
}

static int tail_add(struct store_tail *t, const struct row_item *item)
{
    int rc = row_item_copy(&t->arena, item, &t->items[t->n]);

    if (rc < 0)
        return rc;
    t->n++;
    t->bytes += item_bytes(item);
    t->picture_bytes += item->size_bytes < PUSH_UNIT_BYTES ? item->size_bytes : PUSH_UNIT_BYTES;
    return 0;
}

static int tail_save(struct store *s)
{
    if (s->tail_saved)
        return 0;
    tail_clear(&s->saved_tail);
    for (uint32_t i = 0; i < s->tail.n; i++) {
        int rc = tail_add(&s->saved_tail, &s->tail.items[i]);

        if (rc < 0)
            return rc;
    }
    s->tail_saved = true;
    return 0;
}

void store_tail_restore(struct store *s)
{
    struct store_tail undone = s->tail;

    if (!s->tail_saved)
        return;
    s->tail = s->saved_tail;
    s->saved_tail = undone;
    s->tail_saved = false;
}

/* Put the tail as the next unit. */
static int put_tail(struct store *s, struct err *err)
{
    const struct stored_manifest_unit u = {
        .first_item = s->counters.n_items, .n_items = s->tail.n, .items = s->tail.items};
    uint8_t key[4];
    int rc;

    if (s->counters.n_units == UINT32_MAX)
        return err_set(err, -EFBIG, "%s: no more than %" PRIu32 " units", s->path, UINT32_MAX);
    buf_clear(&s->row);
    rc = stored_manifest_unit_encode(&u, &s->row);
    if (rc < 0)
        return err_set(err, rc == -ENOMEM ? rc : -EIO, "unit %" PRIu32 ": cannot encode its items",
                       s->counters.n_units);
    env_put_be32(key, s->counters.n_units);
    rc = store_put(s, s->env.manifest, key, 4, s->row.data, s->row.size_bytes, MDB_APPEND, err);
    if (rc < 0)
        return rc;
    s->counters.n_items += s->tail.n;
    s->counters.n_units++;
    tail_clear(&s->tail);
    return 0;
}

static int check_rows(struct store *s, const struct row_frame *frame, uint32_t n_rows, struct err *err)
{
    struct row_cursor c;
    struct row_item item;
    uint32_t last = 0;
    int rc;

    row_cursor_init(&c, frame, 1, n_rows);
    while ((rc = row_cursor_next_item(&c, &item, err)) > 0) {
        rc = store_check_source(s, item.source, &last, err);
        if (rc < 0)
            break;
    }
    row_cursor_release(&c);
    return rc;
}

int store_append_rows(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, struct err *err)
{
    const struct row_frame frame = {.data = rows, .size_bytes = size_bytes};
    struct row_cursor c;
    struct row_item item;
    int rc = check_rows(s, &frame, n_rows, err); /* first, so that invalid rows change nothing */

    if (rc < 0)
        return rc;
    if (n_rows == 0)
        return 0;
    if (tail_save(s) < 0)
        return err_set(err, -ENOMEM, "%s: out of memory", s->path);
    s->counters.sealed = false;
    row_cursor_init(&c, &frame, 1, n_rows);
    while ((rc = row_cursor_next_item(&c, &item, err)) > 0) {
        item.item = store_next_item(s);
        item.n_captions = 0; /* only in WORK, as the next ones */
        item.pushed_at = item.pushed_bytes = 0;
        rc = tail_add(&s->tail, &item);
        if (rc < 0) {
            err_set(err, rc, "%s: out of memory", s->path);
            break;
        }
        if (s->tail.n == s->meta.unit_items || s->tail.bytes >= UNIT_MAX_BYTES ||
            (s->meta.push && s->tail.picture_bytes >= PUSH_UNIT_BYTES)) {
            rc = put_tail(s, err);
            if (rc < 0)
                break;
        }
    }
    row_cursor_release(&c);
    return rc;
}

int store_seal(struct store *s, struct err *err)
{
    int rc;

    if (s->tail.n) {
        if (tail_save(s) < 0)
            return err_set(err, -ENOMEM, "%s: out of memory", s->path);
        rc = put_tail(s, err);
        if (rc < 0)
            return rc;
    }
    s->counters.sealed = true;
    return 0;
}

/* -- reading -- */

/* A cursor on `units` that advances with the manifest, without searching. */
struct state_walk {
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc; /* of the last cursor call */
};

static int state_at(struct state_walk *w, uint32_t unit, struct stored_unit_state *ret, struct err *err)
{
    *ret = (struct stored_unit_state){0};
    while (w->rc == 0 && (w->key.mv_size != 4 || env_get_be32(w->key.mv_data) < unit))
        w->rc = mdb_cursor_get(w->cursor, &w->key, &w->value, MDB_NEXT);
    if (w->rc == MDB_NOTFOUND || (w->rc == 0 && env_get_be32(w->key.mv_data) > unit))
        return 0;
    if (w->rc != 0)
        return err_set(err, env_errno(w->rc), "unit %" PRIu32 ": %s", unit, mdb_strerror(w->rc));
    if (stored_unit_state_decode(w->value.mv_data, w->value.mv_size, ret, err) < 0)
        return err_prefix(err, -EBADMSG, "unit %" PRIu32 ": state", unit);
    return 0;
}

struct pending_walk {
    MDB_cursor *manifest;
    struct state_walk states;
    struct row_memory memory;
    uint64_t n_items; /* units with later items wait for their pictures */
};

static int pending_from(struct pending_walk *w, uint32_t from, size_t max, struct store_pending *ret, size_t *ret_n,
                        uint32_t *ret_next, struct err *err)
{
    uint8_t from_key[4];
    MDB_val k = {.mv_size = 4, .mv_data = from_key}, v;
    int rc;

    env_put_be32(from_key, from);
    w->states.key = k;
    w->states.rc = mdb_cursor_get(w->states.cursor, &w->states.key, &w->states.value, MDB_SET_RANGE);
    rc = mdb_cursor_get(w->manifest, &k, &v, MDB_SET_RANGE);
    for (uint32_t looks = 0; rc == 0 && *ret_n < max && looks < PENDING_MAX_LOOKS; looks++) {
        struct stored_unit_state state;
        struct stored_manifest_unit u;
        uint32_t unit = k.mv_size == 4 ? env_get_be32(k.mv_data) : UINT32_MAX;

        if (unit == UINT32_MAX)
            return err_set(err, -EBADMSG, "manifest has a bad key after unit %" PRIu32, *ret_next);
        rc = state_at(&w->states, unit, &state, err);
        if (rc < 0)
            return rc;
        if (!state.done || state.n_again) {
            struct store_pending *p = &ret[*ret_n];

            rc = stored_manifest_unit_decode(&w->memory, v.mv_data, v.mv_size, &u, err);
            if (rc < 0)
                return err_prefix(err, rc == -ENOMEM ? rc : -EBADMSG, "unit %" PRIu32 ": manifest", unit);
            if (u.first_item + u.n_items > w->n_items)
                return 0;
            *p = (struct store_pending){.unit = unit,
                                        .n_items = u.n_items,
                                        .attempts = state.attempts,
                                        .first_item = u.first_item,
                                        .is_again = state.done};
            memcpy(p->parts, state.parts, sizeof(p->parts));
            memcpy(p->again, state.again, sizeof(p->again));
            for (uint32_t i = 0; i < u.n_items; i++)
                p->bad[i / 64] |= (uint64_t)(u.items[i].error_code[0] != '\0') << (i % 64);
            ++*ret_n;
        }
        *ret_next = unit + 1;
        rc = mdb_cursor_get(w->manifest, &k, &v, MDB_NEXT);
    }
    return rc == 0 || rc == MDB_NOTFOUND
               ? 0
               : err_set(err, env_errno(rc), "cannot read the manifest: %s", mdb_strerror(rc));
}

int store_pending(struct store *s, uint32_t from, size_t max, struct store_pending *ret, size_t *ret_n,
                  uint32_t *ret_next, struct err *err)
{
    struct pending_walk w = {.n_items = s->meta.push ? store_n_pushed(s) : UINT64_MAX};
    MDB_txn *txn;
    uint32_t next = from;
    size_t n = 0;
    int rc = store_begin_read(s, &txn, err);

    if (rc < 0)
        return rc;
    rc = mdb_cursor_open(txn, s->env.manifest, &w.manifest);
    if (rc == 0)
        rc = mdb_cursor_open(txn, s->env.units, &w.states.cursor);
    if (rc == 0)
        rc = pending_from(&w, from, max, ret, &n, &next, err);
    else
        rc = err_set(err, env_errno(rc), "cannot read the manifest: %s", mdb_strerror(rc));
    row_memory_release(&w.memory);
    if (w.states.cursor)
        mdb_cursor_close(w.states.cursor);
    if (w.manifest)
        mdb_cursor_close(w.manifest);
    store_end_read(s, txn);
    if (rc < 0)
        return err_prefix(err, rc, "%s", s->path);
    *ret_n = n;
    *ret_next = next;
    return 0;
}

/* The sources of a unit's items, read one at a time within `txn`. */
struct paths {
    const struct env *env;
    bool tell_roots;
    MDB_txn *txn;
    struct row_memory memory;
    struct row_source source; /* the last one; number 0: none yet */
    struct buf path;
    const struct store *pushed; /* whose client sends the pictures; NULL: workers read them */
    struct store_push_head head;
};

static int find_path(struct paths *p, struct row_item *item, struct err *err)
{
    int rc = 0;

    if (item->source && item->source != p->source.number)
        rc = env_read_source(p->env, p->txn, &p->memory, item->source, &p->source, err);
    if (rc == -ENOENT)
        return err_set(err, -EBADMSG, "item %" PRIu64 ": its source %" PRIu32 " is not there", item->item,
                       item->source);
    if (rc == 0 && row_source_resolve(&p->source, item, &p->path) < 0)
        return err_set(err, -ENOMEM, "no memory for a path");
    if (!p->tell_roots)
        item->root_bytes = 0;
    return rc;
}

static int append_items(struct paths *p, const struct stored_manifest_unit *u, uint32_t unit, uint32_t first,
                        uint32_t count, struct buf *ret, uint32_t *ret_ends, struct err *err)
{
    if (first >= u->n_items || count > u->n_items - first)
        return err_set(err, -EINVAL, "unit %" PRIu32 ": has %" PRIu32 " items, not %" PRIu32 " from %" PRIu32, unit,
                       u->n_items, count, first);
    for (uint32_t i = first; i < first + count; i++) {
        struct row_item item = u->items[i];
        int rc = p->pushed ? 0 : find_path(p, &item, err);

        if (rc < 0)
            return err_prefix(err, rc, "unit %" PRIu32, unit);
        if (p->pushed)
            store_push_describe(p->pushed, unit, u->n_items, i, &p->head, &item);
        rc = row_item_append(ret, &item);
        if (rc < 0)
            return err_set(err, rc, "unit %" PRIu32 ": its items do not fit into a row frame", unit);
        if (ret_ends)
            ret_ends[i - first] = (uint32_t)ret->size_bytes;
    }
    return 0;
}

static void paths_release(struct paths *p)
{
    store_push_head_release(&p->head);
    row_memory_release(&p->memory);
    buf_release(&p->path);
}

int store_append_paths(struct store *s, MDB_txn *txn, const struct stored_manifest_unit *u, uint32_t first,
                       struct buf *ret, uint32_t *ret_n, struct err *err)
{
    struct paths paths = {.env = &s->env, .txn = txn};
    int rc;

    buf_init(&paths.path, 0);
    rc = append_items(&paths, u, 0, first, u->n_items - first, ret, NULL, err);
    paths_release(&paths);
    *ret_n = u->n_items - first;
    return rc;
}

int store_unit_items(struct store *s, uint32_t unit, uint32_t first, uint32_t count, struct buf *ret,
                     uint32_t *ret_n_rows, uint32_t *ret_ends, struct err *err)
{
    struct row_memory memory = {0};
    struct paths paths = {.env = &s->env, .tell_roots = store_info(s)->has_token, .pushed = s->meta.push ? s : NULL};
    struct stored_manifest_unit u;
    size_t before = ret->size_bytes;
    int rc = store_begin_read(s, &paths.txn, err);

    if (rc < 0)
        return rc;
    buf_init(&paths.path, 0);
    rc = env_read_unit(&s->env, paths.txn, &memory, unit, &u, err);
    if (rc == -ENOENT)
        err_set(err, rc, "unit %" PRIu32 ": not in the manifest", unit);
    if (rc == 0) {
        if (count == 0 && first < u.n_items)
            count = u.n_items - first;
        rc = append_items(&paths, &u, unit, first, count, ret, ret_ends, err);
    }
    store_end_read(s, paths.txn);
    paths_release(&paths);
    row_memory_release(&memory);
    if (rc < 0) {
        ret->size_bytes = before;
        return err_prefix(err, rc, "%s", s->path);
    }
    *ret_n_rows = count;
    return 0;
}
