/* keys.c - builds the table keys: XXH3-128 of a key -> item numbers.
 *
 * Random inserts into a B-tree of millions of rows are ten times slower than appends and leave it half empty. So the
 * hash space is cut into ranges of about a million entries. For each range the manifest is read once, and the entries
 * in the range are sorted and appended. This needs memory for one range only. Later items are inserted in the same way,
 * without appending. meta "keys" says which items are covered; putting an entry twice changes nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "store/keys.h"
#include "store/store_state.h"

enum { PART_ENTRIES = 1000000, STEP_ITEMS = 20000, STEP_PUTS = 20000 };

struct keys_entry {
    uint8_t hash[KEYS_HASH_BYTES];
    uint8_t item[8];
};

enum keys_phase { KEYS_COLLECT, KEYS_INSERT };

struct keys_build {
    enum keys_phase phase;
    uint64_t first_item, end_item; /* the range to cover */
    uint32_t first_unit;
    uint32_t n_parts, part;
    uint32_t next_unit; /* COLLECT: the next unit of the manifest to read */
    bool summed;        /* the covered entries have a sum */
    uint64_t sum;       /* of the covered entries and those collected since */
    struct keys_entry *entries;
    size_t n, capacity;
    size_t next_entry; /* INSERT */
};

void keys_hash(const void *key, size_t n_bytes, uint8_t ret[KEYS_HASH_BYTES])
{
    XXH128_canonical_t c;

    XXH128_canonicalFromHash(&c, XXH3_128bits(key, n_bytes));
    memcpy(ret, c.digest, KEYS_HASH_BYTES);
}

void keys_build_free(struct keys_build *k)
{
    if (!k)
        return;
    free(k->entries);
    free(k);
}

bool store_keys_wanted(const struct store *s)
{
    return !s->lost && s->committed.sealed && s->keys_covered < s->committed.n_items;
}

/* Remove what an interrupted build left. */
static int drop_entries(struct store *s, struct err *err)
{
    int rc = store_begin(s, err);

    if (rc < 0)
        return rc;
    rc = mdb_drop(s->txn, s->env.keys, 0);
    if (rc != 0) {
        store_abort(s);
        return err_set(err, env_errno(rc), "%s: cannot empty keys: %s", s->path, mdb_strerror(rc));
    }
    return store_commit(s, err);
}

static int build_begin(struct store *s, struct err *err)
{
    struct keys_build *k = calloc(1, sizeof(*k));
    MDB_txn *txn;
    int rc;

    if (!k)
        return err_set(err, -ENOMEM, "%s: out of memory", s->path);
    k->first_item = s->keys_covered;
    k->end_item = s->committed.n_items;
    k->n_parts = (uint32_t)((k->end_item - k->first_item) / PART_ENTRIES + 1);
    rc = env_begin_read(&s->env, &txn, err);
    if (rc == 0) {
        rc = env_find_unit(&s->env, txn, &s->memory, k->first_item, s->committed.n_units, &k->first_unit, err);
        if (rc == -ENOENT)
            rc = err_set(err, -EBADMSG, "%s: the manifest ends before n_items", s->path);
        k->summed = k->first_item == 0;
        if (rc == 0 && !k->summed) {
            rc = env_read_keys_sum(&s->env, txn, &k->sum, err);
            k->summed = rc == 0;
            if (rc == -ENOENT)
                rc = 0;
        }
        mdb_txn_abort(txn);
    }
    if (rc == 0 && k->first_item == 0)
        rc = drop_entries(s, err);
    if (rc < 0) {
        keys_build_free(k);
        return rc;
    }
    k->next_unit = k->first_unit;
    s->keys = k;
    return 0;
}

static int add_entry(struct keys_build *k, const struct row_item *item)
{
    struct keys_entry e = {{0}, {0}};
    uint64_t high;

    keys_hash(item->key, item->key_bytes, e.hash);
    high = env_get_be64(e.hash);
    if ((uint64_t)(((unsigned __int128)high * k->n_parts) >> 64) != k->part)
        return 0;
    if (k->n == k->capacity) {
        size_t capacity = k->capacity ? k->capacity + k->capacity / 2 : 4096;
        struct keys_entry *entries = realloc(k->entries, capacity * sizeof(*entries));

        if (!entries)
            return -ENOMEM;
        k->entries = entries;
        k->capacity = capacity;
    }
    env_put_be64(e.item, item->item);
    k->sum += XXH3_64bits(&e, sizeof(e));
    k->entries[k->n++] = e;
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct keys_entry));
}

static int collect_units(struct store *s, struct keys_build *k, MDB_txn *txn, bool *ret_end, struct err *err)
{
    for (uint64_t seen = 0; seen < STEP_ITEMS;) {
        struct stored_manifest_unit u;
        int rc = env_read_unit(&s->env, txn, &s->memory, k->next_unit, &u, err);

        if (rc == -ENOENT || (rc == 0 && u.first_item >= k->end_item)) {
            *ret_end = true;
            return 0;
        }
        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < u.n_items; i++)
            if (u.items[i].item >= k->first_item && add_entry(k, &u.items[i]) < 0)
                return err_set(err, -ENOMEM, "out of memory");
        seen += u.n_items;
        k->next_unit++;
    }
    *ret_end = false;
    return 0;
}

static int collect(struct store *s, struct keys_build *k, struct err *err)
{
    bool end = false;
    MDB_txn *txn;
    int rc = env_begin_read(&s->env, &txn, err);

    if (rc < 0)
        return rc;
    rc = collect_units(s, k, txn, &end, err);
    mdb_txn_abort(txn);
    if (rc < 0)
        return err_prefix(err, rc, "%s: keys", s->path);
    if (end) {
        if (k->n)
            qsort(k->entries, k->n, sizeof(*k->entries), compare_entries);
        k->phase = KEYS_INSERT;
        k->next_entry = 0;
    }
    return 0;
}

static int insert_entries(struct store *s, struct keys_build *k, struct err *err)
{
    size_t end = k->n - k->next_entry > STEP_PUTS ? k->next_entry + STEP_PUTS : k->n;

    for (size_t i = k->next_entry; i < end; i++) {
        const struct keys_entry *e = &k->entries[i];
        bool again = i > 0 && memcmp(e[-1].hash, e->hash, KEYS_HASH_BYTES) == 0;
        int rc = store_put(s, s->env.keys, e->hash, KEYS_HASH_BYTES, e->item, 8,
                           k->first_item == 0 && !again ? MDB_APPEND : 0, err);

        if (rc < 0)
            return rc;
    }
    if (end == k->n && k->part + 1 == k->n_parts) {
        const struct stored_job_counters covered = {.n_items = k->end_item}, sum = {.n_items = k->sum};
        int rc = store_put_counters(s, "keys", &covered, err);

        return rc == 0 && k->summed ? store_put_counters(s, "keys_sum", &sum, err) : rc;
    }
    return 0;
}

static int insert(struct store *s, struct keys_build *k, struct err *err)
{
    int rc = store_begin(s, err);

    if (rc < 0)
        return rc;
    rc = insert_entries(s, k, err);
    if (rc < 0) {
        store_abort(s);
        return rc;
    }
    rc = store_commit(s, err);
    if (rc < 0)
        return rc;
    k->next_entry += k->n - k->next_entry > STEP_PUTS ? STEP_PUTS : k->n - k->next_entry;
    if (k->next_entry < k->n)
        return 0;
    if (++k->part == k->n_parts) {
        s->keys_covered = k->end_item;
        keys_build_free(k);
        s->keys = NULL;
        return 0;
    }
    k->phase = KEYS_COLLECT;
    k->n = 0;
    k->next_unit = k->first_unit;
    return 0;
}

/* After an interrupted build there may be entries of items that are not covered. */
static int sum_entries(MDB_cursor *c, uint64_t covered, uint64_t *ret)
{
    struct keys_entry e;
    MDB_val k, v;
    int rc;

    *ret = 0;
    while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
        if (k.mv_size != sizeof(e.hash) || v.mv_size != sizeof(e.item))
            return MDB_CORRUPTED;
        memcpy(e.hash, k.mv_data, sizeof(e.hash));
        memcpy(e.item, v.mv_data, sizeof(e.item));
        if (env_get_be64(e.item) < covered)
            *ret += XXH3_64bits(&e, sizeof(e));
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int keys_check(const struct env *e, MDB_txn *txn, uint64_t covered, const char *path, struct err *err)
{
    uint64_t expected, sum = 0;
    MDB_cursor *c;
    int rc = env_read_keys_sum(e, txn, &expected, err);

    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return err_prefix(err, rc, "%s", path);
    rc = mdb_cursor_open(txn, e->keys, &c);
    if (rc == 0) {
        rc = sum_entries(c, covered, &sum);
        mdb_cursor_close(c);
    }
    if (rc != 0 && rc != MDB_CORRUPTED)
        return err_set(err, env_errno(rc), "%s: keys: %s", path, mdb_strerror(rc));
    return rc == 0 && sum == expected ? 0 : env_damaged(path, "an entry of the table keys", err);
}

int store_keys_step(struct store *s, struct err *err)
{
    int rc;

    if (!s->keys)
        return store_keys_wanted(s) ? build_begin(s, err) : 0;
    rc = s->keys->phase == KEYS_COLLECT ? collect(s, s->keys, err) : insert(s, s->keys, err);
    if (rc < 0 && rc != -ENOSPC && rc != -ENOBUFS) { /* with a full disk or map: continue here when there is room */
        keys_build_free(s->keys);
        s->keys = NULL;
    }
    return rc;
}
