#include "job/feed.h"

#include "base/arena.h"
#include "job/join.h"
#include "console/printable.h"
#include "proto/row.h"
#include "source/field_names.h"
#include "source/source.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)SOURCE_MAX_COLUMNS == (int)ROW_SOURCE_MAX_COLUMNS, "all of them can be stored");

enum { FEED_FRAME_ROWS = 4096, FEED_FRAME_BYTES = 4 << 20 };

struct feed {
    struct feed_options o;
    const char *columns[SOURCE_MAX_COLUMNS]; /* of o.columns, and then `kept` */
    char kept[SOURCE_MAX_COLUMNS][MSG_NAME_SIZE];
    uint32_t n_kept;
    struct origins origins;          /* argument by argument */
    char store_folder[PATH_MAX + 1]; /* absolute with a slash behind it; "": there is none yet */
    int i_source;
    struct source *source; /* NULL: the next one is to be opened */
    struct arena peeked_bytes;
    struct row_item peeked[FEED_PEEK_ITEMS];
    uint32_t n_peeked, i_peeked;
    uint64_t n_taken;                           /* pictures read, up to the limit */
    struct row_field fields[SOURCE_MAX_FIELDS]; /* of the item that walk gave last */
    struct join *join;                          /* NULL: none */
    struct feed_counts counts;
};

static void count_skipped(struct feed *f)
{
    const struct source_skipped *s = source_skipped(f->source);
    struct source_skipped *all = &f->counts.skipped;

    for (int i = 0; i < SOURCE_N_KINDS; i++)
        all->n[i] += s->n[i];
    if (!all->first_problem.text[0])
        all->first_problem = s->first_problem;
    origins_count(&f->origins, f->i_source, s);
}

static void count_row(struct feed *f, const struct source_item *it)
{
    const uint32_t joined = f->join ? join_columns_seen(f->join) : 0;
    uint32_t seen = 0;

    for (uint32_t i = 0; i < it->n_fields; i++)
        for (uint32_t k = 0; k < f->o.columns.n; k++)
            seen |= (uint32_t)(it->fields[i].name == f->o.columns.names[k]) << k;
    f->counts.columns_seen |= seen;
    f->counts.n_left_out += it->n_left_out;
    if (!it->problem_code)
        f->counts.n_without += (uint64_t)__builtin_popcount(f->o.needed & ~seen & ~joined);
    else if (f->counts.n_bad++ == 0)
        (void)err_set(&f->counts.first_bad, -EILSEQ, "%s", it->problem);
}

static void take_item(struct feed *f, const struct source_item *it, struct row_item *ret)
{
    *ret = (struct row_item){.key = (const uint8_t *)it->key,
                             .key_bytes = (uint32_t)it->key_bytes,
                             .path = (const uint8_t *)it->path,
                             .path_bytes = (uint32_t)it->path_bytes,
                             .size_bytes = it->size_bytes,
                             .mtime_ns = it->mtime_ns,
                             .source = f->origins.args[f->i_source].number,
                             .n_fields = it->n_fields,
                             .fields = f->fields};
    for (uint32_t i = 0; i < it->n_fields; i++)
        f->fields[i] = (struct row_field){.name = (const uint8_t *)it->fields[i].name,
                                          .name_bytes = (uint32_t)strlen(it->fields[i].name),
                                          .value = (const uint8_t *)it->fields[i].value,
                                          .value_bytes = (uint32_t)it->fields[i].value_bytes};
    if (it->problem_code) {
        (void)msg_text_set(ret->error_code, sizeof(ret->error_code), image_error_name(it->problem_code));
        ret->error_message = (const uint8_t *)it->problem;
        ret->error_message_bytes = (uint32_t)strlen(it->problem);
    }
    if (!f->join || it->n_fields)
        return; /* the row's own columns come first */
    ret->n_fields = join_find(f->join, it->key, it->key_bytes, f->fields);
    f->counts.n_unjoined += ret->n_fields == 0;
}

/* The next picture of the sources. 1, 0 at the end, negative. */
static int walk(struct feed *f, struct row_item *ret, struct err *err)
{
    size_t n_store = strlen(f->store_folder);
    struct source_item it;
    int rc;

    while (f->i_source < f->o.n_sources && (f->o.limit == 0 || f->n_taken < f->o.limit)) {
        if (!f->source) {
            rc = source_open(f->origins.args[f->i_source].arg, &f->o.columns, &f->source, err);
            if (rc < 0)
                return rc;
        }
        rc = source_next(f->source, &it, err);
        if (rc < 0)
            return rc;
        if (rc == 0) {
            count_skipped(f);
            source_free(f->source);
            f->source = NULL;
            f->i_source++;
            continue;
        }
        if (n_store && it.path_bytes > n_store && memcmp(it.path, f->store_folder, n_store) == 0)
            continue;
        f->n_taken++;
        count_row(f, &it);
        take_item(f, &it, ret);
        return 1;
    }
    return 0;
}

/* Find errors of all sources now, not after hours. */
static int check_source(struct feed *f, const char *arg, struct err *err)
{
    const uint64_t max_rows = f->origins.n_stored ? FEED_PEEK_ITEMS : 0;
    struct source_summary sum;
    int rc = source_check(arg, &f->o.columns, max_rows, &sum, err);

    if (rc < 0 || source_is_read_once(arg))
        return rc;
    if (sum.is_whole && sum.n_items && sum.n_urls == sum.n_items)
        return err_set(
            err, -EINVAL,
            "%.200s: its pictures are on the network, and Blipline downloads nothing; download them first, for "
            "example with img2dataset, and give their folder",
            arg);
    for (uint32_t k = 0; k < f->o.columns.n; k++) {
        const char *name = f->o.columns.names[k];

        if (!(f->o.needed >> k & 1) || (f->join && join_columns_seen(f->join) >> k & 1))
            continue;
        if (!sum.is_table)
            return err_set(
                err, -EINVAL,
                "%.300s: has no columns, and the recipe needs one named \"%s\": give a list as JSONL, CSV or "
                "TSV (blipline help sources)",
                arg, name);
        if (sum.is_whole && sum.n_items > sum.n_bad && sum.n_with[k] == 0)
            return err_set(err, -EINVAL, "%.200s: no row has the column \"%s\" that the recipe needs; there is %s", arg,
                           name, sum.columns);
    }
    return 0;
}

/* All pictures have been read and none has a row: the keys do not match. */
static int check_joined(const struct feed *f, struct err *err)
{
    const char *example = f->join ? join_example(f->join) : NULL;
    char key[128], row[128];

    if (!f->join || f->n_peeked == 0 || f->counts.n_unjoined < f->n_peeked || f->n_peeked == FEED_PEEK_ITEMS ||
        (f->o.limit && f->n_taken >= f->o.limit))
        return 0;
    return err_set(err, -EINVAL, "--join %s: no row has the key of a picture; pictures have keys like %s, rows like %s",
                   f->o.join, printable_text((const char *)f->peeked[0].key, f->peeked[0].key_bytes, key, sizeof(key)),
                   example ? printable_text(example, strlen(example), row, sizeof(row)) : "(there are none)");
}

static bool is_among(const char *const *names, uint32_t n, const char *at, uint32_t bytes)
{
    for (uint32_t i = 0; i < n; i++)
        if (strlen(names[i]) == bytes && memcmp(names[i], at, bytes) == 0)
            return true;
    return false;
}

/* Adds a column to keep, unless it is there. */
static int keep_column(struct feed *f, const char *name, uint32_t n, struct err *err)
{
    struct source_columns *c = &f->o.columns;

    if (is_among(f->columns, c->n, name, n))
        return 0;
    if (c->n == SOURCE_MAX_COLUMNS || n >= sizeof(f->kept[0]))
        return err_set(err, -EDOM, "--fields: more than %d columns, those of the recipe included, or too long a name",
                       SOURCE_MAX_COLUMNS);
    (void)snprintf(f->kept[f->n_kept], sizeof(f->kept[0]), "%.*s", (int)n, name);
    f->columns[c->n++] = f->kept[f->n_kept++];
    c->n_kept++;
    return 0;
}

/* The columns of the recipe, and those that the store already keeps or, for a new store, the options name. */
static int choose_columns(struct feed *f, struct err *err)
{
    const char *rest = f->o.kept ? f->o.kept : "", *at;
    uint32_t n;
    int rc = 0;

    for (uint32_t i = 0; i < f->o.columns.n; i++)
        f->columns[i] = f->o.columns.names[i];
    f->o.columns.names = f->columns;
    for (uint32_t i = 0; i < f->origins.n_stored; i++)
        for (uint32_t k = 0; rc == 0 && k < f->origins.rows[i].n_columns; k++)
            rc = keep_column(f, f->origins.rows[i].columns[k], (uint32_t)strlen(f->origins.rows[i].columns[k]), err);
    while (rc == 0 && field_names_next(&rest, &at, &n)) {
        if (field_names_kind(at, n) != FIELD_COLUMN)
            continue;
        if (f->origins.n_stored == 0)
            rc = keep_column(f, at, n, err);
        else if (!is_among(f->columns, f->o.columns.n, at, n))
            (void)snprintf(f->counts.not_kept, sizeof(f->counts.not_kept), "%.*s", (int)n, at);
    }
    for (uint32_t i = f->origins.n_stored; rc == 0 && i < f->origins.n_rows; i++) {
        f->origins.rows[i].n_columns = f->n_kept;
        memcpy(f->origins.rows[i].columns, f->kept, sizeof(f->kept));
    }
    return rc;
}

int feed_open(const struct feed_options *o, struct feed **ret, struct err *err)
{
    struct feed *f = calloc(1, sizeof(*f));
    struct row_item item;
    int rc = 0;

    if (!f)
        return -ENOMEM;
    f->o = *o;
    arena_init(&f->peeked_bytes, 0);
    if (o->store_path && realpath(o->store_path, f->store_folder))
        memcpy(f->store_folder + strlen(f->store_folder), "/", sizeof("/")); /* there is room for it */
    else
        f->store_folder[0] = '\0';
    rc = origins_find(&f->origins, o->sources, o->n_sources, o->known, &f->o.columns, err);
    if (rc == 0)
        rc = choose_columns(f, err);
    if (rc == 0 && o->join)
        rc = join_read(o->join, &f->o.columns, &f->join, err);
    if (rc == 0 && f->join)
        f->counts.columns_seen = join_columns_seen(f->join);
    for (int i = 0; rc == 0 && i < o->n_sources; i++)
        rc = check_source(f, f->origins.args[i].arg, err);
    while (rc >= 0 && f->n_peeked < FEED_PEEK_ITEMS && (rc = walk(f, &item, err)) > 0) {
        rc = row_item_copy(&f->peeked_bytes, &item, &f->peeked[f->n_peeked]);
        if (rc < 0)
            break;
        f->n_peeked++;
    }
    if (rc == 0)
        rc = check_joined(f, err);
    if (rc < 0) {
        feed_close(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void feed_close(struct feed *f)
{
    if (!f)
        return;
    if (f->source)
        source_free(f->source);
    origins_release(&f->origins);
    join_free(f->join);
    arena_release(&f->peeked_bytes);
    free(f);
}

uint32_t feed_peeked(const struct feed *f)
{
    return f->n_peeked;
}

/* The next picture: first those read at the start, then from the sources. */
static int next_item(struct feed *f, struct row_item *ret, struct err *err)
{
    int rc;

    if (f->i_peeked < f->n_peeked) {
        *ret = f->peeked[f->i_peeked++];
        rc = 1;
    } else {
        rc = walk(f, ret, err);
    }
    f->counts.n_walked += rc > 0;
    f->counts.n_bytes += rc > 0 ? ret->size_bytes : 0;
    return rc;
}

int feed_next(struct feed *f, struct buf *ret, uint32_t *ret_n, bool *ret_more, struct err *err)
{
    int rc = 0;

    buf_clear(ret);
    *ret_n = 0;
    *ret_more = true;
    while (rc == 0 && *ret_more && *ret_n < FEED_FRAME_ROWS && ret->size_bytes < FEED_FRAME_BYTES) {
        struct row_item item;

        rc = next_item(f, &item, err);
        *ret_more = rc != 0;
        if (rc <= 0)
            continue;
        origins_shorten(&f->origins, &item);
        rc = row_item_append(ret, &item);
        *ret_n += rc == 0;
        if (rc < 0)
            rc = err_set(err, rc, "picture %llu of the walk cannot be listed: %s", (unsigned long long)f->n_taken,
                         strerror(-rc));
    }
    f->counts.n_row_bytes += ret->size_bytes;
    return rc;
}

const struct origins *feed_origins(const struct feed *f)
{
    return &f->origins;
}

uint64_t feed_n_bad_joined(const struct feed *f, const char **ret_first)
{
    return f->join ? join_n_bad(f->join, ret_first) : 0;
}

const struct feed_counts *feed_counts(const struct feed *f)
{
    return &f->counts;
}
