#include "job/origin.h"

#include "base/grow.h"
#include "job/passed_over.h"
#include "proto/row.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    MAX_ROWS = 1000,          /* items of further sources have absolute paths */
    SAMPLE_ITEMS = 256,       /* read of an argument to find out whether it is a moved source */
    SAMPLE_SLOTS = 1024,      /* of their hash table */
    MAX_LOOKS = 16,           /* arguments that are compared with the whole store */
    SAME_TIME_NS = 2000000000 /* file systems differ in the precision of times */
};

/* -- samples: does an argument have the items of a source? -- */

struct sample {
    struct {
        uint64_t hash; /* of the key; 0: free */
        uint64_t size_bytes;
        int64_t mtime_ns;
    } slots[SAMPLE_SLOTS];
    struct buf keys; /* n Item rows */
    uint32_t n;
};

static uint64_t hash_of(const void *key, size_t n)
{
    return XXH3_64bits(key, n) | 1;
}

static size_t slot_of(const struct sample *s, uint64_t hash)
{
    size_t i = hash / 2 % SAMPLE_SLOTS;

    while (s->slots[i].hash && s->slots[i].hash != hash)
        i = (i + 1) % SAMPLE_SLOTS;
    return i;
}

static int take_sample(struct sample *s, const char *arg, const struct source_columns *columns, struct err *err)
{
    struct source *source = NULL;
    struct source_item it;
    int rc = source_open(arg, columns, &source, err);

    for (int i = 0; rc == 0 && i < SAMPLE_ITEMS && (rc = source_next(source, &it, err)) > 0; i++) {
        const struct row_item row = {.key = (const uint8_t *)it.key, .key_bytes = (uint32_t)it.key_bytes};
        const uint64_t hash = hash_of(it.key, it.key_bytes);
        size_t slot = slot_of(s, hash);

        rc = 0;
        if (s->slots[slot].hash || (it.size_bytes == 0 && it.mtime_ns == 0))
            continue;
        s->slots[slot].hash = hash;
        s->slots[slot].size_bytes = it.size_bytes;
        s->slots[slot].mtime_ns = it.mtime_ns;
        s->n++;
        rc = row_item_append(&s->keys, &row);
    }
    source_free(source);
    return rc;
}

/* How many items of a source have the key of a sample, how many of those the same size and time, and how many the same
 * size. */
struct matches {
    uint32_t found, same, same_size;
};

static void count_match(const struct sample *s, const struct row_item *it, struct matches *m)
{
    const size_t slot = slot_of(s, hash_of(it->key, it->key_bytes));

    if (!s->slots[slot].hash)
        return;
    if (s->slots[slot].size_bytes == it->size_bytes) {
        m->same_size++;
        m->same += llabs(s->slots[slot].mtime_ns - it->mtime_ns) < SAME_TIME_NS;
    }
    m->found++;
}

static int count_matches(struct sample *s, const struct origins_known *known, struct matches *m, struct err *err)
{
    struct row_frame frame;
    struct row_cursor c;
    struct row_item it;
    struct buf found;
    uint32_t n;
    int rc;

    buf_init(&found, 0);
    rc = known->find_items(known->arg, &s->keys, s->n, &found, &n, err);
    frame = (struct row_frame){.data = found.data, .size_bytes = found.size_bytes};
    row_cursor_init(&c, &frame, n ? 1 : 0, rc == 0 ? n : 0);
    while (rc == 0 && (rc = row_cursor_next_item(&c, &it, err)) > 0) {
        if (it.source && it.source <= known->n_rows)
            count_match(s, &it, &m[it.source - 1]);
        rc = 0;
    }
    row_cursor_release(&c);
    buf_release(&found);
    return rc;
}

/* At least half of the sample must match. If the source is no longer in its old place, it is enough that half of the
 * items with its keys match, because many may be new, or that all sizes match, because a copy has new times. */
static bool is_moved(const struct row_source *row, uint32_t n_sample, const struct matches *m)
{
    const bool gone = access(row->root, F_OK) < 0 && errno == ENOENT;

    if (m->same && 2 * m->same >= m->found)
        return 2 * m->same >= n_sample || gone;
    return gone && m->found && m->same_size == m->found && 2 * m->found >= n_sample;
}

/* The number of the moved source that argument i is, or 0. */
static int find_moved(const struct origins *o, const bool *claimed, const struct origins_known *known, const char *arg,
                      const struct source_columns *columns, uint32_t *ret_number, struct err *err)
{
    struct sample *s = calloc(1, sizeof(*s));
    struct matches *m = calloc(o->n_stored, sizeof(*m));
    uint32_t best = 0;
    int rc = s && m ? take_sample(s, arg, columns, err) : -ENOMEM;

    *ret_number = 0;
    if (rc == 0 && s->n)
        rc = count_matches(s, known, m, err);
    for (uint32_t i = 0; rc == 0 && i < o->n_stored; i++) {
        if (claimed[i] || m[i].found <= best || !is_moved(&o->rows[i], s->n, &m[i]))
            continue;
        best = m[i].found;
        *ret_number = i + 1;
    }
    if (s)
        buf_release(&s->keys);
    free(s);
    free(m);
    return rc;
}

/* -- names -- */

/* The length of NAME in an argument NAME=PATH; 0 without a name, and if the whole argument is an existing path. */
static size_t name_bytes(const char *arg)
{
    size_t n = strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    struct stat st;

    return n && n < MSG_NAME_SIZE && arg[n] == '=' && arg[n + 1] && stat(arg, &st) < 0 ? n : 0;
}

static struct row_source *find_name(const struct origins *o, const char *name, size_t n)
{
    for (uint32_t i = 0; i < o->n_rows; i++)
        if (strlen(o->rows[i].name) == n && memcmp(o->rows[i].name, name, n) == 0)
            return &o->rows[i];
    return NULL;
}

/* The last part of a path, with a number appended if `i` is not 0. */
static void make_name(const struct origins *o, const char *path, char ret[MSG_NAME_SIZE])
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    int n = (int)strnlen(base, MSG_NAME_SIZE - 12);

    (void)snprintf(ret, MSG_NAME_SIZE, "%.*s", n ? n : 1, n ? base : "/");
    for (unsigned i = 2; find_name(o, ret, strlen(ret)); i++)
        (void)snprintf(ret, MSG_NAME_SIZE, "%.*s-%u", n ? n : 1, n ? base : "/", i);
}

/* -- arguments -- */

static int add_row(struct origins *o, const char *name, size_t n_name, const char *root, const char *list)
{
    struct row_source *row;

    if (grow_array(&o->rows, &o->capacity, o->n_rows, sizeof(*o->rows), 4) < 0)
        return -ENOMEM;
    row = &o->rows[o->n_rows];
    *row = (struct row_source){.number = o->n_rows + 1};
    if (n_name)
        (void)snprintf(row->name, sizeof(row->name), "%.*s", (int)n_name, name);
    else
        make_name(o, list[0] ? list : root, row->name);
    (void)snprintf(row->root, sizeof(row->root), "%s", root);
    (void)snprintf(row->list, sizeof(row->list), "%s", list);
    o->n_rows++;
    return 0;
}

static void move(struct origin *arg, struct row_source *row, const char *root, const char *list)
{
    arg->number = row->number;
    if (strcmp(row->root, root) != 0) {
        arg->moved = true;
        memcpy(arg->was, row->root, sizeof(arg->was));
    }
    (void)snprintf(row->root, sizeof(row->root), "%s", root);
    (void)snprintf(row->list, sizeof(row->list), "%s", list);
}

/* The source in this place or of this name; needs no sample. */
static struct row_source *find_row(const struct origins *o, const char *name, size_t n_name, const char *root,
                                   const char *list)
{
    if (n_name)
        return find_name(o, name, n_name);
    for (uint32_t i = 0; i < o->n_rows; i++)
        if (strcmp(o->rows[i].root, root) == 0 && strcmp(o->rows[i].list, list) == 0)
            return &o->rows[i];
    return NULL;
}

struct finder {
    struct origins *o;
    const struct source_columns *columns;
    const struct origins_known *known; /* NULL: there is no store yet */
    bool *claimed;                     /* [n_stored] by an argument */
    int n_looks;
};

/* True if the argument may be a moved source and MAX_LOOKS is not exhausted. */
static bool may_be_moved(struct finder *f, const char *arg)
{
    bool any = false;

    for (uint32_t i = 0; i < f->o->n_stored; i++)
        any |= !f->claimed[i];
    return any && !source_is_read_once(arg) && f->n_looks++ < MAX_LOOKS;
}

static int find_one(struct finder *f, const char *text, struct origin *arg, bool look, struct err *err)
{
    size_t n_name = name_bytes(text);
    char root[PATH_MAX], list[ROW_SOURCE_LIST_SIZE];
    const char *list_name;
    struct row_source *row;
    uint32_t number = 0;
    int rc;

    arg->arg = n_name ? text + n_name + 1 : text;
    rc = source_root(arg->arg, root, &list_name, err);
    if (rc < 0 || arg->number)
        return rc;
    (void)snprintf(list, sizeof(list), "%s", !list_name ? "" : source_is_read_once(arg->arg) ? "-" : list_name);
    row = find_row(f->o, text, n_name, root, list);
    if (!row && look && may_be_moved(f, arg->arg)) {
        rc = find_moved(f->o, f->claimed, f->known, arg->arg, f->columns, &number, err);
        if (rc < 0)
            return rc;
        row = number ? &f->o->rows[number - 1] : NULL;
    }
    if (row && row->number <= f->o->n_stored)
        f->claimed[row->number - 1] = true;
    if (row)
        move(arg, row, root, list);
    if (row || !look || f->o->n_rows >= MAX_ROWS)
        return 0;
    arg->number = f->o->n_rows + 1;
    return add_row(f->o, text, n_name, root, list);
}

static int take_known(struct finder *f)
{
    const uint32_t n = f->known ? f->known->n_rows : 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        rc = grow_array(&f->o->rows, &f->o->capacity, i, sizeof(*f->o->rows), 4);
        if (rc == 0)
            f->o->rows[f->o->n_rows++] = f->known->rows[i];
    }
    f->o->n_stored = f->o->n_rows;
    f->claimed = calloc(f->o->n_stored + 1, sizeof(*f->claimed));
    return rc == 0 && !f->claimed ? -ENOMEM : rc;
}

int origins_find(struct origins *o, const char *const *args, int n_args, const struct origins_known *known,
                 const struct source_columns *columns, struct err *err)
{
    struct finder f = {.o = o, .columns = columns, .known = known};
    int rc;

    *o = (struct origins){.args = calloc((size_t)n_args, sizeof(*o->args)), .n_args = n_args};
    if (!o->args)
        return err_set(err, -ENOMEM, "no memory for the sources");
    rc = take_known(&f);
    for (int i = 0; rc == 0 && i < n_args; i++) /* first those in their old place */
        rc = find_one(&f, args[i], &o->args[i], false, err);
    for (int i = 0; rc == 0 && i < n_args; i++)
        rc = find_one(&f, args[i], &o->args[i], true, err);
    free(f.claimed);
    if (rc < 0)
        origins_release(o);
    return rc == -ENOMEM ? err_set(err, rc, "no memory for the sources") : rc;
}

void origins_release(struct origins *o)
{
    free(o->args);
    free(o->rows);
    *o = (struct origins){0};
}

void origins_shorten(const struct origins *o, struct row_item *item)
{
    const char *root = item->source ? o->rows[item->source - 1].root : "";
    size_t n = strlen(root);

    if (n > 1 && item->path_bytes > n + 1 && memcmp(item->path, root, n) == 0 && item->path[n] == '/') {
        item->path += n + 1;
        item->path_bytes -= (uint32_t)n + 1;
    }
}

void origins_count(struct origins *o, int i, const struct source_skipped *skipped)
{
    struct row_source *row = o->args[i].number ? &o->rows[o->args[i].number - 1] : NULL;
    struct passed_over passed;

    if (!row || !skipped->is_walk)
        return;
    passed_over_of_walk(skipped, &passed);
    row->n_passed = passed.n;
    memcpy(row->passed, passed.kinds, sizeof(row->passed));
}

int origins_append(const struct origins *o, struct buf *frame)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < o->n_rows; i++)
        rc = row_source_append(frame, &o->rows[i]);
    return rc;
}
