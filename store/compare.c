/* compare.c - compares a walk over pictures with the manifest of a store. */
#include "store/compare.h"

#include "base/grow.h"
#include "proto/row.h"
#include "store/known.h"
#include "store/reader_state.h"
#include "store/store_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DAMAGED "damaged" /* the code of an item with an unreadable record */

/* The last three concern the list: retry such items when the list has been corrected. */
static const char *const passing[] = {"missing", "unreadable", "no_memory", "decoder_memory", "timed_out",
                                      "lost",    DAMAGED,      "url",       "no_picture",     "bad_row"};

struct compare {
    bool pushed; /* pictures that the client sent are gone once they are done: none is done again */
    struct msg_comparison o;
    struct reader *reader; /* advances with the walk; NULL: at the end, or the rest is in `known` */
    bool begun;            /* `row` is the reader's next */
    struct reader_row row;
    struct known known;
    struct row_source *sources;   /* [n_sources], number i + 1 at i; only roots are used */
    uint32_t n_sources, n_stored; /* n_stored: how many the reader knows */
    size_t sources_capacity;
    struct buf path; /* of the walk's item, absolute */
    struct msg_compared counts;
};

static int next_row(struct compare *c, struct err *err)
{
    int rc = reader_next(c->reader, &c->row, err);

    if (rc == -EBADMSG && c->row.listed.key_bytes) { /* only the record is damaged */
        c->row.has_record = c->row.record.failed = true;
        (void)msg_text_set(c->row.record.error_code, sizeof(c->row.record.error_code), DAMAGED);
        c->counts.n_damaged++;
        rc = 1;
    }
    if (rc < 0)
        return rc; /* without its manifest the store would get duplicates */
    if (rc == 0) {
        reader_close(c->reader);
        c->reader = NULL;
    }
    return 0;
}

static int new_compare(const char *path, const struct msg_comparison *o, struct compare **ret, struct err *err)
{
    struct compare *c = calloc(1, sizeof(*c));

    if (!c)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    c->o = *o;
    c->counts.n_codes = o->n_codes;
    buf_init(&c->path, 0);
    *ret = c;
    return 0;
}

int compare_open(const char *path, const struct msg_comparison *o, struct compare **ret, struct err *err)
{
    struct compare *c = NULL;
    int rc = new_compare(path, o, &c, err);

    if (rc < 0)
        return rc;
    rc = reader_open(path, false, &c->reader, err);
    if (rc < 0)
        compare_close(c);
    else
        *ret = c;
    return rc;
}

int compare_attach(struct store *s, const struct msg_comparison *o, struct compare **ret, struct err *err)
{
    struct row_memory memory = {0};
    struct row_source source;
    struct compare *c = NULL;
    int rc = new_compare(s->path, o, &c, err);

    if (rc < 0)
        return rc;
    c->pushed = s->meta.push;
    rc = reader_attach(&s->env, &s->meta, s->path, &c->reader, err);
    while (rc == 0 && (rc = env_read_source(&s->env, s->txn, &memory, c->n_sources + 1, &source, err)) == 0)
        rc = compare_source(c, c->n_sources + 1, source.root, err);
    row_memory_release(&memory);
    if (rc == -ENOENT) {
        *ret = c;
        return 0;
    }
    compare_close(c);
    return rc;
}

void compare_close(struct compare *c)
{
    if (!c)
        return;
    reader_close(c->reader);
    known_release(&c->known);
    buf_release(&c->path);
    free(c->sources);
    free(c);
}

int compare_source(struct compare *c, uint32_t number, const char *root, struct err *err)
{
    const struct row_source *stored;
    struct row_source *source;
    int rc = c->n_sources ? 0 : reader_sources(c->reader, &stored, &c->n_stored, err);

    if (rc < 0)
        return rc;
    if (grow_array(&c->sources, &c->sources_capacity, c->n_sources, sizeof(*c->sources), 4) < 0)
        return err_set(err, -ENOMEM, "no memory for the sources");
    source = &c->sources[c->n_sources++];
    *source = (struct row_source){.number = number};
    (void)msg_text_set(source->root, sizeof(source->root), root);
    return number <= c->n_stored ? reader_move_source(c->reader, number, root, err) : 0;
}

bool compare_retries(const struct msg_comparison *o, const char *code)
{
    bool yes = o->all_failed;

    for (uint32_t i = 0; i < o->n_codes; i++)
        yes |= strcmp(o->codes[i], code) == 0;
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        yes |= strcmp(passing[i], code) == 0;
    return yes;
}

static enum known_state state_of(struct compare *c)
{
    const struct row_record *record = &c->row.record;

    if (!c->row.has_record)
        return KNOWN_PENDING;
    for (uint32_t i = 0; record->failed && i < c->o.n_codes; i++)
        c->counts.n_failed_with[i] += strcmp(c->o.codes[i], record->error_code) == 0;
    return record->failed && compare_retries(&c->o, record->error_code) ? KNOWN_FAILED : KNOWN_DONE;
}

/* At the first difference between walk and manifest: remember the rest of the manifest. */
static int load_rest(struct compare *c, struct err *err)
{
    int rc = 0;

    while (rc == 0 && c->reader) {
        rc = known_add(&c->known, &c->row.listed, state_of(c));
        if (rc == 0)
            rc = next_row(c, err);
    }
    return rc;
}

static void count_changes(struct msg_compared *counts, const struct row_item *item, unsigned changed)
{
    counts->n_changed += (changed & KNOWN_FILE) != 0;
    if (!(changed & KNOWN_FIELDS) || counts->n_other_fields++ > 0)
        return;
    counts->other_fields_key_bytes = item->key_bytes < sizeof(counts->other_fields_key)
                                         ? item->key_bytes
                                         : (uint32_t)sizeof(counts->other_fields_key);
    memcpy(counts->other_fields_key, item->key, counts->other_fields_key_bytes);
}

enum verdict { NEW, KNOWN, AGAIN };

/* Redo an item that failed or has changed. If one that is not done yet has changed, list its new state. */
static enum verdict judge(struct compare *c, const struct row_item *item, const struct known_found *found)
{
    const bool failed =
        found->state == KNOWN_FAILED && !item->error_code[0]; /* an error of the list would make it fail again */
    const bool pending = found->state == KNOWN_PENDING && found->changed;
    const bool refresh = c->o.refresh && found->changed & (KNOWN_FILE | KNOWN_FIELDS);

    if ((!failed && !pending && !refresh) || (c->pushed && !pending)) {
        count_changes(&c->counts, item, found->changed);
        return KNOWN;
    }
    c->counts.n_retried += failed;
    c->counts.n_refreshed += !failed && !pending;
    return AGAIN;
}

/* The verdict on the next item of the walk, which has its absolute path, or negative. If it is redone, *ret_item is its
 * number in the manifest. */
static int compare_item(struct compare *c, const struct row_item *item, uint64_t *ret_item, struct err *err)
{
    struct known_found found = {0};
    bool in_step;
    int rc = c->begun ? 0 : next_row(c, err);

    c->begun = true;
    if (rc < 0)
        return rc;
    in_step = c->reader && known_same(item, &c->row.listed);
    if (in_step)
        found = (struct known_found){c->row.item, state_of(c), known_changes(&c->row.listed, item)};
    else if (c->reader)
        rc = load_rest(c, err);
    if (rc == 0 && !in_step && !known_take(&c->known, item, &found)) {
        c->counts.n_new++;
        return NEW;
    }
    if (rc == 0 && in_step)
        rc = next_row(c, err);
    if (rc < 0)
        return rc;
    *ret_item = found.item;
    return (int)judge(c, item, &found);
}

static int compare_row(struct compare *c, const struct row_item *row, struct compared_rows *ret, struct err *err)
{
    struct row_item item = *row, numbered = *row;
    int rc;

    if (row->source > c->n_sources)
        return err_set(err, -EINVAL, "an item of source %" PRIu32 ", which is not there", row->source);
    if (row_source_resolve(row->source ? &c->sources[row->source - 1] : NULL, &item, &c->path) < 0)
        return err_set(err, -ENOMEM, "no memory to compare an item");
    rc = compare_item(c, &item, &numbered.item, err);
    if (rc < 0 || rc == (int)KNOWN)
        return rc < 0 ? rc : 0;
    ret->n_fresh += rc == (int)NEW;
    ret->n_again += rc == (int)AGAIN;
    rc = row_item_append(rc == (int)NEW ? &ret->fresh : &ret->again, &numbered);
    return rc < 0 ? err_set(err, rc, "cannot list an item: %s", strerror(-rc)) : 0;
}

int compare_rows(struct compare *c, const void *rows, size_t size_bytes, uint32_t n_rows, struct compared_rows *ret,
                 struct err *err)
{
    const struct row_frame frame = {.data = rows, .size_bytes = size_bytes};
    struct row_cursor cursor;
    struct row_item row;
    int rc;

    row_cursor_init(&cursor, &frame, 1, n_rows);
    while ((rc = row_cursor_next_item(&cursor, &row, err)) > 0)
        if ((rc = compare_row(c, &row, ret, err)) < 0)
            break;
    row_cursor_release(&cursor);
    return rc;
}

const struct msg_compared *compare_counts(const struct compare *c)
{
    return &c->counts;
}
