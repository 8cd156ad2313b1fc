/* reader_find.c - finds the items of a key. */
#include "store/reader.h"

#include "base/grow.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/keys.h"
#include "store/reader_remote.h"
#include "store/reader_state.h"

enum { FOUND_MAX = 1000000 };

int reader_found(struct reader *r, uint64_t number, struct err *err)
{
    if (grow_array(&r->found, &r->found_capacity, r->n_found, sizeof(*r->found), 16) < 0)
        return err_set(err, -ENOMEM, "%s: out of memory", r->path);
    if (r->n_found == FOUND_MAX)
        return err_set(err, -E2BIG, "%s: more than %d items have this key", r->path, FOUND_MAX);
    r->found[r->n_found++] = number;
    return 0;
}

static int candidates(struct reader *r, MDB_cursor *c, const uint8_t *hash, uint64_t covered, struct err *err)
{
    MDB_val k = {.mv_size = KEYS_HASH_BYTES, .mv_data = (void *)(uintptr_t)hash}, v;
    int rc;

    for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_KEY); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT_DUP)) {
        if (v.mv_size != 8)
            return err_set(err, -EBADMSG, "%s: keys has a value of %zu bytes", r->path, v.mv_size);
        if (env_get_be64(v.mv_data) < covered) {
            int failed = reader_found(r, env_get_be64(v.mv_data), err);

            if (failed < 0)
                return failed;
        }
    }
    return rc == MDB_NOTFOUND ? 0 : err_set(err, env_errno(rc), "%s: keys: %s", r->path, mdb_strerror(rc));
}

/* Append the items below `covered` whose key has this hash. */
static int look_up(struct reader *r, const uint8_t *hash, uint64_t covered, struct err *err)
{
    MDB_cursor *c;
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    rc = mdb_cursor_open(r->txn, r->env.keys, &c);
    if (rc == 0) {
        rc = candidates(r, c, hash, covered, err);
        mdb_cursor_close(c);
    } else {
        rc = err_set(err, env_errno(rc), "%s: keys: %s", r->path, mdb_strerror(rc));
    }
    reader_end(r);
    return rc;
}

static bool has_key(const struct row_item *item, const void *key, size_t n)
{
    return item->key_bytes == n && memcmp(item->key, key, n) == 0;
}

/* Two keys may have the same hash: of the items from `first_found` on, keep those with this key. */
static int drop_others(struct reader *r, size_t first_found, const void *key, size_t n_bytes, struct err *err)
{
    size_t kept = first_found;

    for (size_t i = first_found; i < r->n_found; i++) {
        uint64_t first = r->loaded ? r->manifest.first_item : 0;

        if (!r->loaded || r->found[i] < first || r->found[i] - first >= r->manifest.n_items) {
            int rc;

            r->position = r->found[i];
            rc = reader_find_position(r, err);
            if (rc == 0)
                rc = err_set(err, -EBADMSG, "%s: keys names item %" PRIu64 ", which is not in the manifest", r->path,
                             r->found[i]);
            if (rc < 0)
                return rc;
        }
        if (has_key(&r->manifest.items[r->found[i] - r->manifest.first_item], key, n_bytes))
            r->found[kept++] = r->found[i];
    }
    r->n_found = kept;
    return 0;
}

/* Items that `keys` does not cover. */
static int scan_from(struct reader *r, uint64_t covered, const void *key, size_t n_bytes, struct err *err)
{
    int rc;

    r->position = covered;
    for (rc = reader_find_position(r, err); rc > 0;) {
        for (uint32_t i = 0; i < r->manifest.n_items; i++) {
            uint64_t item = r->manifest.first_item + i;

            if (item >= covered && has_key(&r->manifest.items[i], key, n_bytes)) {
                rc = reader_found(r, item, err);
                if (rc < 0)
                    return rc;
            }
        }
        rc = reader_load(r, r->unit + 1, err);
        rc = rc == -ENOENT ? 0 : rc < 0 ? rc : 1;
    }
    return rc;
}

int reader_keys_covered(struct reader *r, uint64_t *ret, struct err *err)
{
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    rc = env_read_keys_covered(&r->env, r->txn, ret, err);
    reader_end(r);
    return rc;
}

int reader_find_covered(struct reader *r, const void *key, size_t size_bytes, uint64_t covered, struct err *err)
{
    const size_t first_found = r->n_found;
    uint8_t hash[KEYS_HASH_BYTES];
    int rc;

    if (covered == 0)
        return 0;
    keys_hash(key, size_bytes, hash);
    r->loaded = false;
    rc = look_up(r, hash, covered, err);
    return rc < 0 ? rc : drop_others(r, first_found, key, size_bytes, err);
}

static int find(struct reader *r, const void *key, size_t size_bytes, struct err *err)
{
    uint64_t covered = 0;
    int rc = reader_keys_covered(r, &covered, err);

    if (rc == 0)
        rc = reader_find_covered(r, key, size_bytes, covered, err);
    return rc < 0 ? rc : scan_from(r, covered, key, size_bytes, err);
}

int reader_find(struct reader *r, const void *key, size_t size_bytes, const uint64_t **ret, size_t *ret_n,
                struct err *err)
{
    uint64_t position = r->position;
    int rc;

    r->n_found = 0;
    rc = r->remote ? remote_find(r, key, size_bytes, err) : find(r, key, size_bytes, err);
    reader_seek(r, position);
    if (rc < 0)
        return rc;
    *ret = r->found;
    *ret_n = r->n_found;
    return 0;
}
