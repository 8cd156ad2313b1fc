#include "client/export_rows.h"

#include "base/grow.h"
#include "console/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { FLUSH_BYTES = 1 << 16, LOOK_MS = 500 };

/* The row or rows of one item. A filter leaves out failed items and those without a caption. */
static int write_item(const struct export_style *style, const struct export_row *row, struct buf *out,
                      struct export_tally *t)
{
    uint32_t picked[ROW_MAX_CAPTIONS];
    struct export_row r = *row;
    int rc = 0;

    if (!style->filter && !style->flat)
        return export_row(style->format, &r, out);
    if (row->record->failed)
        return style->filter ? 0 : export_row(style->format, &r, out);
    r.n_picked = select_captions(&style->select, row->record, picked);
    r.picked = picked;
    t->n_captions += row->record->n_captions;
    t->n_kept += r.n_picked;
    t->n_empty += r.n_picked == 0;
    if (r.n_picked == 0)
        return 0;
    if (!style->flat)
        return export_row(style->format, &r, out);
    for (uint32_t i = 0, n = r.n_picked; rc == 0 && i < n; i++) {
        r.picked = &picked[i];
        r.n_picked = 1;
        rc = export_row(style->format, &r, out);
    }
    return rc;
}

/* The next item. 1, 0: there is none. */
static int write_next(struct reader *r, const struct export_style *style, struct sink *s, struct export_tally *t,
                      struct err *err)
{
    struct reader_row row;
    int rc = reader_next(r, &row, err);

    if (rc == -EBADMSG) {
        cli_error("export: %s", err->text);
        t->n_damaged++;
        return 1;
    }
    if (rc <= 0)
        return rc;
    if (!row.has_record) {
        t->n_missing++;
        return 1;
    }
    t->n_rows++;
    t->n_failed += row.record.failed;
    rc = write_item(style,
                    &(struct export_row){.key = row.listed.key,
                                         .key_bytes = row.listed.key_bytes,
                                         .record = &row.record,
                                         .recipe = &reader_meta(r)->recipe,
                                         .listed = &row.listed,
                                         .fields = &style->fields},
                    &s->rows, t);
    if (rc == 0)
        rc = sink_flush(s, FLUSH_BYTES, err);
    return rc < 0 ? rc : 1;
}

int export_walk(struct reader *r, const struct export_style *style, struct sink *s, struct export_tally *t,
                struct err *err)
{
    int rc = export_head(style->format, &style->fields, &s->rows);

    if (rc < 0)
        return rc;
    do
        rc = write_next(r, style, s, t, err);
    while (rc > 0);
    return rc;
}

/* -- a store that is still being written -- */

struct follower {
    struct reader *r;
    const struct export_style *style;
    struct sink *s;
    struct export_tally *t;
    uint8_t *written; /* [capacity] a byte for each unit whose rows are written */
    size_t capacity;
    uint64_t *units; /* [n_units] that are to be written now */
    size_t units_capacity, n_units;
    uint64_t n_written;
    uint32_t first; /* the units below are written */
};

static int note_units(struct follower *f, const uint64_t *units, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        while (units[i] >= f->capacity) {
            const size_t before = f->capacity;

            if (grow_array(&f->written, &f->capacity, before, 1, 4096) < 0)
                return -ENOMEM;
            memset(f->written + before, 0, f->capacity - before);
        }
        if (f->written[units[i]])
            continue;
        if (grow_array(&f->units, &f->units_capacity, f->n_units, sizeof(*f->units), 256) < 0)
            return -ENOMEM;
        f->written[units[i]] = 1;
        f->units[f->n_units++] = units[i];
    }
    return 0;
}

/* Find the units that are done and not written yet; there are n_new at least. */
static int look(struct follower *f, uint64_t n_new, struct err *err)
{
    uint32_t from = f->first, before;
    const uint64_t *units;
    size_t n;

    f->n_units = 0;
    do {
        int rc;

        before = from;
        rc = reader_units_done(f->r, &from, &units, &n, err);
        if (rc == 0)
            rc = note_units(f, units, n);
        if (rc < 0)
            return rc;
    } while (from > before && f->n_units < n_new);
    while (f->first < f->capacity && f->written[f->first])
        f->first++;
    return 0;
}

static int write_units(struct follower *f, struct err *err)
{
    int rc = 0;

    for (size_t i = 0; rc >= 0 && i < f->n_units; i++) {
        reader_seek_unit(f->r, (uint32_t)f->units[i]);
        do
            rc = write_next(f->r, f->style, f->s, f->t, err);
        while (rc > 0 && reader_is_inside_unit(f->r));
        f->n_written++;
    }
    return rc < 0 ? rc : sink_flush(f->s, 0, err);
}

/* *ret_end: nothing more will come. */
static int follow_once(struct follower *f, bool *ret_end, struct err *err)
{
    struct stored_job_counters c = {0};
    bool in_progress = false;
    int rc = reader_in_progress(f->r, &in_progress, err); /* before the counters, which then have the last commit */

    if (rc == 0)
        rc = reader_counters(f->r, &c, err);
    if (rc == 0 && c.n_units_done > f->n_written) {
        rc = look(f, c.n_units_done - f->n_written, err);
        if (rc == 0)
            rc = write_units(f, err);
    }
    if (rc < 0)
        return rc;
    *ret_end = !in_progress || (c.sealed && c.n_done == c.n_items && c.n_again == 0 && f->n_written >= c.n_units_done);
    f->t->n_missing = c.n_items - c.n_done;
    return 0;
}

int export_follow(struct reader *r, const struct export_style *style, struct sink *s, struct export_tally *t,
                  struct err *err)
{
    struct follower f = {.r = r, .style = style, .s = s, .t = t};
    int rc = export_head(style->format, &style->fields, &s->rows);
    bool end = false;

    if (rc == 0)
        rc = sink_flush(s, 0, err);
    while (rc == 0 && !end) {
        rc = follow_once(&f, &end, err);
        if (rc == 0 && !end)
            (void)poll(NULL, 0, LOOK_MS);
    }
    free(f.written);
    free(f.units);
    return rc;
}
