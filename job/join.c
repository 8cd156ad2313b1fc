#include "job/join.h"

#include "base/arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { CHECK_ROWS = 256 }; /* enough to see whether there is a column `key` */

/* One value of a key; they form a chain in the order of the rows. */
struct join_value {
    struct join_value *next;
    struct row_field field;
};

struct join_key {
    uint64_t hash;
    const char *key; /* NULL: the slot is free */
    uint32_t key_bytes, n_values;
    struct join_value *first, *last;
};

struct join {
    struct arena bytes;
    struct join_key *keys; /* a hash table, at most half full */
    size_t n_slots, n_keys;
    uint32_t columns_seen;
    uint64_t n_bad;
    struct err first_bad;
};

static struct join_key *slot(const struct join *j, uint64_t hash, const void *key, size_t n)
{
    size_t i = hash & (j->n_slots - 1);

    while (j->keys[i].key &&
           (j->keys[i].hash != hash || j->keys[i].key_bytes != n || memcmp(j->keys[i].key, key, n) != 0))
        i = (i + 1) & (j->n_slots - 1);
    return &j->keys[i];
}

static int grow(struct join *j)
{
    struct join bigger = *j;

    bigger.n_slots = j->n_slots ? 2 * j->n_slots : 1024;
    bigger.keys = calloc(bigger.n_slots, sizeof(*bigger.keys));
    if (!bigger.keys)
        return -ENOMEM;
    for (size_t i = 0; i < j->n_slots; i++)
        if (j->keys[i].key)
            *slot(&bigger, j->keys[i].hash, j->keys[i].key, j->keys[i].key_bytes) = j->keys[i];
    free(j->keys);
    *j = bigger;
    return 0;
}

static int add_value(struct join *j, struct join_key *k, const struct source_field *f)
{
    struct join_value *v = arena_alloc(&j->bytes, sizeof(*v));
    const char *text = arena_strndup(&j->bytes, f->value, f->value_bytes);

    if (!v || !text)
        return -ENOMEM;
    *v = (struct join_value){.field = {.name = (const uint8_t *)f->name,
                                       .name_bytes = (uint32_t)strlen(f->name),
                                       .value = (const uint8_t *)text,
                                       .value_bytes = (uint32_t)f->value_bytes}};
    if (k->last)
        k->last->next = v;
    else
        k->first = v;
    k->last = v;
    k->n_values++;
    return 0;
}

static int add_row(struct join *j, const struct source_columns *columns, const struct source_item *it, struct err *err)
{
    const uint64_t hash = XXH3_64bits(it->key, it->key_bytes);
    struct join_key *k;
    int rc;

    if (it->problem_code) {
        if (j->n_bad++ == 0)
            (void)err_set(&j->first_bad, -EINVAL, "%s", it->problem);
        return 0;
    }
    rc = j->n_keys + 1 > j->n_slots / 2 ? grow(j) : 0;

    if (rc < 0)
        return rc;
    k = slot(j, hash, it->key, it->key_bytes);
    if (!k->key) {
        const char *key = arena_strndup(&j->bytes, it->key, it->key_bytes);

        if (!key)
            return -ENOMEM;
        *k = (struct join_key){.hash = hash, .key = key, .key_bytes = (uint32_t)it->key_bytes};
        j->n_keys++;
    }
    if (k->n_values + it->n_fields > SOURCE_MAX_FIELDS)
        return err_set(err, -E2BIG, "more than %d values for the key %.100s", SOURCE_MAX_FIELDS, it->key);
    for (uint32_t i = 0; rc == 0 && i < it->n_fields; i++) {
        for (uint32_t c = 0; c < columns->n; c++)
            j->columns_seen |= (uint32_t)(it->fields[i].name == columns->names[c]) << c;
        rc = add_value(j, k, &it->fields[i]);
    }
    return rc;
}

static int read_rows(struct join *j, const char *arg, const struct source_columns *wanted, struct err *err)
{
    struct source_columns columns = *wanted;
    struct source_summary sum;
    struct source_item it;
    struct source *s = NULL;
    int rc;

    columns.picture = "key"; /* without this column the picture's path is the key */
    rc = source_check(arg, &columns, CHECK_ROWS, &sum, err);
    if (rc == -EINVAL) {
        columns.picture = NULL;
        rc = source_check(arg, &columns, CHECK_ROWS, &sum, err);
    }
    if (rc == 0 && !sum.is_table)
        rc = err_set(err, -EDOM, "--join %s: is not a .jsonl, .csv or .tsv table (blipline help sources)", arg + 1);
    if (rc == 0)
        rc = source_open(arg, &columns, &s, err);
    while (rc == 0 && (rc = source_next(s, &it, err)) == 1)
        rc = add_row(j, &columns, &it, err);
    if (s)
        source_free(s);
    return rc;
}

int join_read(const char *path, const struct source_columns *columns, struct join **ret, struct err *err)
{
    struct join *j = calloc(1, sizeof(*j));
    char *arg = NULL;
    int rc = j && asprintf(&arg, "@%s", path) >= 0 ? 0 : -ENOMEM;

    if (j)
        arena_init(&j->bytes, 0);
    if (rc == 0)
        rc = grow(j);
    if (rc == 0)
        rc = read_rows(j, arg, columns, err);
    free(arg);
    if (rc < 0) {
        join_free(j);
        return rc == -ENOMEM ? err_set(err, rc, "--join %s: out of memory", path) : rc;
    }
    *ret = j;
    return 0;
}

void join_free(struct join *j)
{
    if (!j)
        return;
    arena_release(&j->bytes);
    free(j->keys);
    free(j);
}

uint64_t join_n_bad(const struct join *j, const char **ret_first)
{
    *ret_first = j->first_bad.text;
    return j->n_bad;
}

uint32_t join_columns_seen(const struct join *j)
{
    return j->columns_seen;
}

const char *join_example(const struct join *j)
{
    for (size_t i = 0; i < j->n_slots; i++)
        if (j->keys[i].key)
            return j->keys[i].key;
    return NULL;
}

uint32_t join_find(const struct join *j, const void *key, size_t key_bytes, struct row_field ret[SOURCE_MAX_FIELDS])
{
    const struct join_key *k = slot(j, XXH3_64bits(key, key_bytes), key, key_bytes);
    uint32_t n = 0;

    for (const struct join_value *v = k->key ? k->first : NULL; v; v = v->next)
        ret[n++] = v->field;
    return n;
}
