/* The sources of a store, and its items by key, as rows for a client. */
#include "store/find.h"

#include "proto/row.h"
#include "store/reader_state.h"
#include "store/store_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SLOTS = 1024 };
_Static_assert(SLOTS >= 2 * MSG_MAX_FIND_KEYS, "the hash table is at most half full");

/* A set of keys. */
struct wanted {
    struct arena bytes;
    struct {
        const uint8_t *key; /* NULL: free */
        uint32_t key_bytes;
    } slots[SLOTS];
};

static size_t slot_of(const struct wanted *w, const uint8_t *key, uint32_t n)
{
    size_t i = XXH3_64bits(key, n) % SLOTS;

    while (w->slots[i].key && (w->slots[i].key_bytes != n || memcmp(w->slots[i].key, key, n) != 0))
        i = (i + 1) % SLOTS;
    return i;
}

static int read_keys(struct wanted *w, const struct buf *keys, uint32_t n_keys, struct err *err)
{
    const struct row_frame frame = {.data = keys->data, .size_bytes = keys->size_bytes};
    struct row_cursor c;
    struct row_item item;
    int rc = n_keys > MSG_MAX_FIND_KEYS ? err_set(err, -EINVAL, "%u keys are too many", n_keys) : 0;

    row_cursor_init(&c, &frame, 1, n_keys);
    while (rc == 0 && (rc = row_cursor_next_item(&c, &item, err)) > 0) {
        const size_t slot = slot_of(w, item.key, item.key_bytes);

        w->slots[slot].key = (const uint8_t *)arena_strndup(&w->bytes, (const char *)item.key, item.key_bytes);
        w->slots[slot].key_bytes = item.key_bytes;
        rc = w->slots[slot].key ? 0 : err_set(err, -ENOMEM, "no memory for keys");
    }
    row_cursor_release(&c);
    return rc == -EBADMSG || rc == -EMSGSIZE ? -EINVAL : rc;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Into r->found: those items below *ret_covered that have one of the keys, by number. */
static int look_up_all(struct reader *r, const struct wanted *w, uint64_t *ret_covered, struct err *err)
{
    int rc = reader_keys_covered(r, ret_covered, err);

    r->n_found = 0;
    for (size_t i = 0; rc == 0 && i < SLOTS; i++)
        if (w->slots[i].key)
            rc = reader_find_covered(r, w->slots[i].key, w->slots[i].key_bytes, *ret_covered, err);
    if (rc == -EBADMSG || rc == -E2BIG) { /* damaged: read all rows of the manifest that can be read */
        r->n_found = 0;
        *ret_covered = 0;
        return 0;
    }
    if (r->n_found)
        qsort(r->found, r->n_found, sizeof(*r->found), by_number);
    return rc;
}

static int add_item(const struct row_item *is, struct buf *ret, uint32_t *n)
{
    const struct row_item brief = {.item = is->item,
                                   .key = is->key,
                                   .key_bytes = is->key_bytes,
                                   .size_bytes = is->size_bytes,
                                   .mtime_ns = is->mtime_ns,
                                   .source = is->source};
    int rc = row_item_append(ret, &brief);

    *n += rc == 0;
    return rc;
}

/* Append the items that have one of the keys. -EFBIG: `ret` is full. */
static int find_wanted(struct reader *r, const struct wanted *w, struct buf *ret, uint32_t *n, struct err *err)
{
    struct reader_row row;
    uint64_t covered = 0;
    int rc = look_up_all(r, w, &covered, err);

    for (size_t i = 0; rc == 0 && i < r->n_found && *n < MSG_MAX_FOUND_ITEMS; i++) {
        rc = reader_get(r, r->found[i], &row, err);
        rc = rc == -EBADMSG ? 0 : rc < 0 ? rc : add_item(&row.listed, ret, n);
    }
    reader_seek(r, covered);
    while (rc == 0 && *n < MSG_MAX_FOUND_ITEMS && ((rc = reader_next(r, &row, err)) > 0 || rc == -EBADMSG)) {
        const struct row_item *is = &row.listed;

        rc = rc > 0 && w->slots[slot_of(w, is->key, is->key_bytes)].key ? add_item(is, ret, n) : 0;
    }
    return rc;
}

int find_items(struct reader *r, const struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n,
               struct err *err)
{
    struct wanted wanted = {0};
    int rc;

    arena_init(&wanted.bytes, 0);
    rc = read_keys(&wanted, keys, n_keys, err);
    *ret_n = 0;
    if (rc == 0)
        rc = find_wanted(r, &wanted, ret, ret_n, err);
    arena_release(&wanted.bytes);
    return rc == -EFBIG ? 0 : rc;
}

int find_sources(struct reader *r, struct buf *ret, uint32_t *ret_n, struct err *err)
{
    const struct row_source *sources;
    int rc = reader_sources(r, &sources, ret_n, err);

    for (uint32_t i = 0; rc == 0 && i < *ret_n; i++)
        if ((rc = row_source_append(ret, &sources[i])) < 0)
            return err_set(err, rc, "the sources do not fit into a row frame");
    return rc;
}

int store_find(struct store *s, bool sources, const struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n,
               struct err *err)
{
    struct reader *r = NULL;
    int rc = reader_attach(&s->env, &s->meta, s->path, &r, err);

    if (rc == 0)
        rc = sources ? find_sources(r, ret, ret_n, err) : find_items(r, keys, n_keys, ret, ret_n, err);
    reader_close(r);
    return rc;
}
