/* verify.c - reader_verify: every checksum, and whether the tables agree.
 *
 * A unit is checked as of one transaction. Sums over all units are compared with the counters before and after the
 * walk, which are equal unless a broker is at work meanwhile. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/keys.h"
#include "store/reader_remote.h"
#include "store/reader_state.h"

struct verify {
    struct reader *r;
    const struct reader_verify *v;
    uint64_t n_problems;
    bool stopped;
    struct stored_job_counters before, after, sum;
    uint64_t keys_covered;
    uint64_t n_embeddings_before, n_embeddings_after; /* entries of all tables before and after the walk */
    uint64_t n_embeddings;
    bool embeddings_unknown; /* a record is lost, so it is unknown which items must have them */
    bool unreadable;         /* a manifest or state row or the counters are lost, so sums cannot be compared */
};

static void PRINTF_LIKE(4, 5) problem(struct verify *c, int64_t unit, int64_t item, const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->n_problems++;
    if (c->v->problem && !c->v->problem(c->v->arg, unit, item, text))
        c->stopped = true;
}

/* Row counts and counters of one transaction; if the counters are damaged, only n_units is known. */
static int check_tables(struct verify *c, struct stored_job_counters *ret_c, struct err *err)
{
    struct reader *r = c->r;
    MDB_stat manifest, items, units;
    struct err why;
    bool counted = true;
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    *ret_c = (struct stored_job_counters){0};
    if (env_read_counters(&r->env, r->txn, ret_c, &why) < 0) {
        problem(c, -1, -1, "%s", why.text);
        counted = false;
        if (reader_count_units(r, &ret_c->n_units, &why) < 0)
            ret_c->n_units = 0;
    }
    if (env_read_keys_covered(&r->env, r->txn, &c->keys_covered, &why) < 0 ||
        keys_check(&r->env, r->txn, c->keys_covered, r->path, &why) < 0)
        problem(c, -1, -1, "%s", why.text);
    rc = mdb_stat(r->txn, r->env.manifest, &manifest);
    if (rc == 0)
        rc = mdb_stat(r->txn, r->env.items, &items);
    if (rc == 0)
        rc = mdb_stat(r->txn, r->env.units, &units);
    reader_end(r);
    if (rc != 0)
        return err_set(err, env_errno(rc), "%s: %s", r->path, mdb_strerror(rc));
    if (!counted) {
        c->unreadable = true;
        return 0;
    }
    if (manifest.ms_entries != ret_c->n_units)
        problem(c, -1, -1, "manifest has %zu units, the counters say %" PRIu32, manifest.ms_entries, ret_c->n_units);
    if (items.ms_entries != ret_c->n_done)
        problem(c, -1, -1, "items has %zu records, the counters say %" PRIu64, items.ms_entries, ret_c->n_done);
    if (units.ms_entries > ret_c->n_units || units.ms_entries < ret_c->n_units_done)
        problem(c, -1, -1, "units has %zu rows for %" PRIu32 " units, %" PRIu32 " of them done", units.ms_entries,
                ret_c->n_units, ret_c->n_units_done);
    if (ret_c->n_again > ret_c->n_done)
        problem(c, -1, -1, "%" PRIu64 " items are to be done again, and %" PRIu64 " are done", ret_c->n_again,
                ret_c->n_done);
    if (c->keys_covered > ret_c->n_items)
        problem(c, -1, -1, "keys covers %" PRIu64 " items of %" PRIu64, c->keys_covered, ret_c->n_items);
    return 0;
}

/* Checks the sources, and that every item's source exists. */
static void check_sources(struct verify *c)
{
    const struct row_source *sources;
    uint32_t n;
    struct err why;

    if (reader_sources(c->r, &sources, &n, &why) < 0)
        problem(c, -1, -1, "%s", why.text);
}

static void check_source(struct verify *c, const struct row_item *item)
{
    if (item->source > c->r->n_sources)
        check_sources(c); /* it may have been added since */
    if (item->source > c->r->n_sources)
        problem(c, c->r->unit, (int64_t)item->item, "item %" PRIu64 ": its source %" PRIu32 " is not there", item->item,
                item->source);
}

/* An item that is done without error must have sound embeddings as in the recipe, others none. */
static void check_embeddings(struct verify *c, uint64_t item, bool wanted)
{
    struct reader *r = c->r;

    for (uint32_t i = 0; i < r->meta.recipe.n_embeddings; i++) {
        const struct msg_embedding_spec *spec = &r->meta.recipe.embeddings[i];
        const char *name = msg_embedding_name(spec->kind);
        struct row_embedding e;
        struct err why;
        int rc = reader_embedding(r, spec->kind, item, &e, &why);

        c->n_embeddings += rc != 0;
        if (rc < 0)
            problem(c, r->unit, (int64_t)item, "%s", why.text);
        else if ((rc > 0) != wanted)
            problem(c, r->unit, (int64_t)item, "item %" PRIu64 ": its embedding %s is %s", item, name,
                    wanted ? "missing" : "there, but the item has no results");
        else if (rc > 0 && (e.dtype != spec->dtype || (spec->first_row && e.rows != 1)))
            problem(c, r->unit, (int64_t)item, "item %" PRIu64 ": its embedding %s is %" PRIu32 " rows of %s", item,
                    name, e.rows, dtype_word(e.dtype));
    }
}

static int count_embeddings(struct verify *c, uint64_t *ret, struct err *err)
{
    const struct msg_recipe *recipe = &c->r->meta.recipe;
    uint64_t n, sum = 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < recipe->n_embeddings; i++) {
        rc = reader_count_embeddings(c->r, recipe->embeddings[i].kind, &n, err);
        sum += rc == 0 ? n : 0;
    }
    *ret = sum;
    return rc;
}

static void check_keys(struct verify *c, MDB_cursor *cursor)
{
    struct reader *r = c->r;

    for (uint32_t i = 0; i < r->manifest.n_items; i++) {
        const struct row_item *item = &r->manifest.items[i];
        uint8_t hash[KEYS_HASH_BYTES], number[8];
        MDB_val k = {.mv_size = sizeof(hash), .mv_data = hash}, v = {.mv_size = 8, .mv_data = number};

        if (item->item >= c->keys_covered)
            return;
        keys_hash(item->key, item->key_bytes, hash);
        env_put_be64(number, item->item);
        if (mdb_cursor_get(cursor, &k, &v, MDB_GET_BOTH) != 0)
            problem(c, r->unit, (int64_t)item->item, "item %" PRIu64 ": its key is not in keys", item->item);
    }
}

static int check_unit_keys(struct verify *c, struct err *err)
{
    MDB_cursor *cursor;
    int rc;

    if (c->r->manifest.first_item >= c->keys_covered)
        return 0;
    rc = reader_begin(c->r, err);
    if (rc < 0)
        return rc;
    rc = mdb_cursor_open(c->r->txn, c->r->env.keys, &cursor);
    if (rc == 0) {
        check_keys(c, cursor);
        mdb_cursor_close(cursor);
    }
    reader_end(c->r);
    return rc == 0 ? 0 : err_set(err, env_errno(rc), "%s: keys: %s", c->r->path, mdb_strerror(rc));
}

static void check_records(struct verify *c)
{
    struct reader *r = c->r;
    uint32_t n_records = 0, n_failed = 0;
    bool sound = true;
    struct err why;

    for (uint32_t i = 0; i < r->manifest.n_items; i++) {
        struct row_record record;
        uint64_t item = r->manifest.first_item + i;
        int rc = reader_record(r, i, &record, &why);

        if (rc < 0) {
            problem(c, r->unit, (int64_t)item, "%s", why.text);
            sound = false;
        } else if (rc > 0 && record.failed) {
            n_failed++;
        } else if (rc == 0 && r->state_rc == 0 && r->state.done) {
            problem(c, r->unit, (int64_t)item,
                    "item %" PRIu64 " (unit %" PRIu32 "): the unit is done, its record is missing", item, r->unit);
        }
        n_records += rc != 0;
        check_source(c, &r->manifest.items[i]);
        if (rc > 0) /* a broker may just be committing it; the sum is checked later */
            check_embeddings(c, item, !record.failed);
        c->embeddings_unknown |= rc < 0;
    }
    if (r->state_rc == 0 && !r->state.done && n_records)
        problem(c, r->unit, -1, "unit %" PRIu32 ": is not done but has %" PRIu32 " records", r->unit, n_records);
    if (r->state_rc == 0 && r->state.done && sound && n_failed != r->state.n_failed)
        problem(c, r->unit, -1, "unit %" PRIu32 ": %" PRIu32 " records are errors, its state says %" PRIu32, r->unit,
                n_failed, r->state.n_failed);
    for (uint32_t i = r->manifest.n_items; r->state_rc == 0 && i < MSG_MAX_UNIT_ITEMS; i++)
        if (r->state.again[i / 64] >> (i % 64) & 1) {
            problem(c, r->unit, -1, "unit %" PRIu32 ": item %" PRIu32 " of its %" PRIu32 " is to be done again",
                    r->unit, i, r->manifest.n_items);
            break;
        }
    c->sum.n_again += r->state_rc == 0 ? r->state.n_again : 0;
    c->sum.n_done += n_records;
    c->sum.n_failed += r->state_rc == 0 ? r->state.n_failed : n_failed;
    c->sum.n_units_done += r->state_rc == 0 && r->state.done;
}

static int check_unit(struct verify *c, uint32_t unit, struct err *err)
{
    struct reader *r = c->r;
    struct err why;
    int rc = reader_load(r, unit, &why);

    c->sum.n_units++;
    if (rc == -EBADMSG) {
        problem(c, unit, -1, "%s", why.text);
        c->unreadable = true;
        return 0;
    }
    if (rc < 0)
        return err_set(err, rc, "%s", why.text);
    if (!c->unreadable && r->manifest.first_item != c->sum.n_items)
        problem(c, unit, -1, "unit %" PRIu32 ": starts at item %" PRIu64 ", not %" PRIu64, unit, r->manifest.first_item,
                c->sum.n_items);
    c->sum.n_items = r->manifest.first_item + r->manifest.n_items;
    if (r->state_rc < 0) {
        problem(c, unit, -1, "%s", r->state_err.text);
        c->unreadable = true;
    }
    check_records(c);
    return check_unit_keys(c, err);
}

static bool between(uint64_t low, uint64_t x, uint64_t high)
{
    return low <= x && x <= high;
}

static void check_sums(struct verify *c)
{
    const struct stored_job_counters *b = &c->before, *a = &c->after, *s = &c->sum;
    const bool redone = a->n_redone != b->n_redone; /* then there may be fewer failures now */

    if (c->unreadable)
        return; /* the losses have been reported */
    if (!between(b->n_items, s->n_items, a->n_items))
        problem(c, -1, -1, "the units hold %" PRIu64 " items, the counters say %" PRIu64, s->n_items, a->n_items);
    if (!between(b->n_done, s->n_done, a->n_done))
        problem(c, -1, -1, "%" PRIu64 " items have records, the counters say %" PRIu64, s->n_done, a->n_done);
    if (!redone && !between(b->n_failed, s->n_failed, a->n_failed))
        problem(c, -1, -1, "%" PRIu64 " records are errors, the counters say %" PRIu64, s->n_failed, a->n_failed);
    if (!redone && a->n_again == b->n_again && s->n_again != a->n_again)
        problem(c, -1, -1, "%" PRIu64 " items are to be done again, the counters say %" PRIu64, s->n_again, a->n_again);
    if (!between(b->n_units_done, s->n_units_done, a->n_units_done))
        problem(c, -1, -1, "%" PRIu32 " units are done, the counters say %" PRIu32, s->n_units_done, a->n_units_done);
    if (!c->embeddings_unknown && !between(c->n_embeddings_before, c->n_embeddings, c->n_embeddings_after))
        problem(c, -1, -1, "the items have %" PRIu64 " embeddings, the tables %" PRIu64, c->n_embeddings,
                c->n_embeddings_after);
}

static bool page_problem(void *arg, const char *text)
{
    struct verify *c = arg;

    problem(c, -1, -1, "%s", text);
    return !c->stopped;
}

static int verify(struct verify *c, struct err *err)
{
    uint64_t reported = 0;
    int rc = env_check_pages(&c->r->env, c->r->path, &(struct pages_report){page_problem, c}, err);

    if (rc < 0)
        return rc;
    rc = check_tables(c, &c->before, err);
    if (rc == 0)
        rc = count_embeddings(c, &c->n_embeddings_before, err);
    check_sources(c);
    for (uint32_t unit = 0; rc == 0 && !c->stopped && unit < c->before.n_units; unit++) {
        rc = check_unit(c, unit, err);
        if (c->sum.n_items >= reported + READER_SLICE_ROWS) {
            reported = c->sum.n_items;
            if (c->v->progress && !c->v->progress(c->v->arg, reported, c->before.n_items))
                c->stopped = true;
        }
    }
    if (rc == 0 && !c->stopped) {
        rc = reader_counters(c->r, &c->after, err);
        if (rc == -EBADMSG)
            return 0; /* reported by check_tables */
        if (rc == 0)
            rc = count_embeddings(c, &c->n_embeddings_after, err);
        if (rc == 0)
            check_sums(c);
    }
    return rc;
}

int reader_check_pages(struct reader *r, struct err *err)
{
    return r->remote ? remote_check_pages(r, err) : env_find_damage(&r->env, r->path, err);
}

int reader_verify(struct reader *r, const struct reader_verify *v, uint64_t *ret_n_problems, struct err *err)
{
    struct verify c = {.r = r, .v = v};
    uint64_t position = r->position;
    int rc = r->remote ? remote_verify(r, v, &c.n_problems, err) : verify(&c, err);

    reader_seek(r, position);
    if (rc < 0)
        return rc;
    *ret_n_problems = c.n_problems;
    return c.stopped ? err_set(err, -ECANCELED, "%s: stopped", r->path) : 0;
}
