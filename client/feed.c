#include "client/feed.h"

#include "base/arena.h"
#include "client/known.h"
#include "proto/row.h"
#include "source/source.h"
#include "store/reader.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { FEED_FRAME_ROWS = 4096, FEED_LOOK_AROUND = 8192, FEED_FRAME_BYTES = 4 << 20 };

struct feed {
    struct feed_options o;
    char store_folder[PATH_MAX + 1]; /* absolute with a slash behind it; "": there is none yet */
    int i_source;
    struct source *source; /* NULL: the next one is to be opened */
    struct arena peeked_bytes;
    struct row_item peeked[FEED_PEEK_ITEMS];
    uint32_t n_peeked, i_peeked;
    uint64_t n_taken;      /* from the sources, up to the limit */
    struct reader *reader; /* in step with the walk; NULL: no manifest, or its rest is in `known` */
    bool have_row;
    struct reader_row row; /* the reader's next */
    struct known known;
    struct feed_counts counts;
};

static void count_skipped(struct feed *f)
{
    const struct source_skipped *s = source_skipped(f->source);

    f->counts.n_skipped_names += s->other_names;
    f->counts.n_skipped_hidden += s->hidden;
    f->counts.n_skipped_other += s->not_regular + s->linked_folders + s->too_long + s->unreadable;
    if (!f->counts.first_problem.text[0])
        f->counts.first_problem = s->first_problem;
}

/* The next picture of the sources. 1, 0 at the end, negative. */
static int walk(struct feed *f, struct row_item *ret, struct err *err)
{
    size_t n_store = strlen(f->store_folder);
    struct source_item it;
    int rc;

    while (f->i_source < f->o.n_sources && (f->o.limit == 0 || f->n_taken < f->o.limit)) {
        if (!f->source) {
            rc = source_open(f->o.sources[f->i_source], &f->source, err);
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
        *ret = (struct row_item){.key = (const uint8_t *)it.key,
                                 .key_bytes = (uint32_t)it.key_bytes,
                                 .path = (const uint8_t *)it.path,
                                 .path_bytes = (uint32_t)it.path_bytes,
                                 .size_bytes = it.size_bytes,
                                 .mtime_ns = it.mtime_ns};
        return 1;
    }
    return 0;
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
    if (realpath(o->store_path, f->store_folder))
        memcpy(f->store_folder + strlen(f->store_folder), "/", sizeof("/")); /* there is room for it */
    else
        f->store_folder[0] = '\0';
    while (f->n_peeked < FEED_PEEK_ITEMS && (rc = walk(f, &item, err)) > 0) {
        rc = row_item_copy(&f->peeked_bytes, &item, &f->peeked[f->n_peeked]);
        if (rc < 0)
            break;
        f->n_peeked++;
    }
    /* A missing source further down the list is worth knowing now, not after hours. */
    for (int i = f->i_source + 1; rc >= 0 && i < o->n_sources; i++) {
        struct source *s = NULL;

        if (strcmp(o->sources[i], "@-") == 0)
            continue;
        rc = source_open(o->sources[i], &s, err);
        if (rc == 0)
            source_free(s);
    }
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
    reader_close(f->reader);
    known_release(&f->known);
    arena_release(&f->peeked_bytes);
    free(f);
}

uint32_t feed_peeked(const struct feed *f)
{
    return f->n_peeked;
}

static int next_row(struct feed *f, struct err *err)
{
    int rc = reader_next(f->reader, &f->row, err);

    if (rc < 0)
        return rc; /* without its manifest the store cannot go on: duplicates would arise */
    f->have_row = rc > 0;
    if (!f->have_row) {
        reader_close(f->reader);
        f->reader = NULL;
    }
    return 0;
}

int feed_compare(struct feed *f, struct err *err)
{
    int rc = reader_open(f->o.store_path, false, &f->reader, err);

    return rc < 0 ? rc : next_row(f, err);
}

/* Walk and manifest differ from here on: remember the rest of the manifest. */
static int load_rest(struct feed *f, struct err *err)
{
    int rc = 0;

    while (rc == 0 && f->reader) {
        const struct row_item *l = &f->row.listed;

        rc = known_add(&f->known, l->path, l->path_bytes, l->size_bytes, l->mtime_ns);
        if (rc == 0)
            rc = next_row(f, err);
    }
    return rc;
}

static bool same_path(const struct row_item *a, const struct row_item *b)
{
    return a->path_bytes == b->path_bytes && memcmp(a->path, b->path, a->path_bytes) == 0;
}

/* 1: new, 0: in the manifest. */
static int is_new(struct feed *f, const struct row_item *item, struct err *err)
{
    const struct row_item *l = &f->row.listed;
    bool changed = false;
    int rc;

    if (f->reader && same_path(item, l)) {
        bool told = (l->size_bytes || l->mtime_ns) && (item->size_bytes || item->mtime_ns);

        f->counts.n_changed += told && (l->size_bytes != item->size_bytes || l->mtime_ns != item->mtime_ns);
        return next_row(f, err);
    }
    if (f->reader) {
        rc = load_rest(f, err);
        if (rc < 0)
            return rc;
    }
    if (!known_take(&f->known, item->path, item->path_bytes, item->size_bytes, item->mtime_ns, &changed))
        return 1;
    f->counts.n_changed += changed;
    return 0;
}

/* The next picture, from those looked at first, then from the sources. */
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
    return rc;
}

int feed_next(struct feed *f, struct buf *frame, uint32_t *ret_n_rows, bool *ret_more, struct err *err)
{
    uint32_t n = 0;

    buf_clear(frame);
    *ret_more = true;
    for (uint32_t seen = 0; seen < FEED_LOOK_AROUND && n < FEED_FRAME_ROWS && frame->size_bytes < FEED_FRAME_BYTES;
         seen++) {
        struct row_item item;
        int rc = next_item(f, &item, err);

        if (rc < 0)
            return rc;
        if (rc == 0) {
            *ret_more = false;
            break;
        }
        rc = is_new(f, &item, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        rc = row_item_append(frame, &item);
        if (rc < 0)
            return err_set(err, rc, "picture %llu of the walk cannot be listed: %s", (unsigned long long)f->n_taken,
                           strerror(-rc));
        n++;
    }
    f->counts.n_new += n;
    *ret_n_rows = n;
    return 0;
}

const struct feed_counts *feed_counts(const struct feed *f)
{
    return &f->counts;
}
