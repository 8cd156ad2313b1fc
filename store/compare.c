#include "store/compare.h"

#include "store/known.h"
#include "store/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DAMAGED "damaged" /* stands for the code of an item whose record cannot be read */

/* The last three are about the list: such items are tried again once it has been mended. */
static const char *const passing[] = {"missing", "unreadable", "no_memory", "decoder_memory", "timed_out",
                                      "lost",    DAMAGED,      "url",       "no_picture",     "bad_row"};

struct compare {
    struct compare_options o;
    struct reader *reader; /* in step with the walk; NULL: at its end, or its rest is in `known` */
    bool begun;            /* `row` is the reader's next */
    struct reader_row row;
    struct known known;
    struct compare_counts counts;
};

static int next_row(struct compare *c, struct err *err)
{
    int rc = reader_next(c->reader, &c->row, err);

    if (rc == -EBADMSG && c->row.listed.key_bytes) { /* the record is lost, the item is not */
        c->row.has_record = c->row.record.failed = true;
        (void)msg_text_set(c->row.record.error_code, sizeof(c->row.record.error_code), DAMAGED);
        c->counts.n_damaged++;
        rc = 1;
    }
    if (rc < 0)
        return rc; /* without its manifest the store cannot go on: duplicates would arise */
    if (rc == 0) {
        reader_close(c->reader);
        c->reader = NULL;
    }
    return 0;
}

int compare_open(const char *path, const struct compare_options *o, struct compare **ret, struct err *err)
{
    struct compare *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    c->o = *o;
    rc = reader_open(path, false, &c->reader, err);
    if (rc < 0) {
        compare_close(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void compare_close(struct compare *c)
{
    if (!c)
        return;
    reader_close(c->reader);
    known_release(&c->known);
    free(c);
}

int compare_move_source(struct compare *c, uint32_t number, const char *root, struct err *err)
{
    return reader_move_source(c->reader, number, root, err);
}

bool compare_retries(const struct compare_options *o, const char *code)
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

/* Walk and manifest differ from here on: remember the rest of the manifest. */
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

static void count_changes(struct compare_counts *counts, const struct row_item *item, unsigned changed)
{
    counts->n_changed += (changed & KNOWN_FILE) != 0;
    if (!(changed & KNOWN_FIELDS) || counts->n_other_fields++ > 0)
        return;
    counts->other_fields_key_bytes = item->key_bytes < sizeof(counts->other_fields_key)
                                         ? item->key_bytes
                                         : (uint32_t)sizeof(counts->other_fields_key);
    memcpy(counts->other_fields_key, item->key, counts->other_fields_key_bytes);
}

/* An item of the manifest is done again when it failed, or has changed; one that is not done yet and has changed is
 * listed again as it is now. */
static enum compare_verdict judge(struct compare *c, const struct row_item *item, const struct known_found *found)
{
    const bool failed = found->state == KNOWN_FAILED && !item->error_code[0]; /* else its list makes it fail again */
    const bool pending = found->state == KNOWN_PENDING && found->changed;
    const bool refresh = c->o.refresh && found->changed & (KNOWN_FILE | KNOWN_FIELDS);

    if (!failed && !pending && !refresh) {
        count_changes(&c->counts, item, found->changed);
        return COMPARE_KNOWN;
    }
    c->counts.n_retried += failed;
    c->counts.n_refreshed += !failed && !pending;
    return COMPARE_AGAIN;
}

int compare_item(struct compare *c, const struct row_item *item, uint64_t *ret_item, struct err *err)
{
    struct known_found found;
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
        return COMPARE_NEW;
    }
    if (rc == 0 && in_step)
        rc = next_row(c, err);
    if (rc < 0)
        return rc;
    *ret_item = found.item;
    return (int)judge(c, item, &found);
}

const struct compare_counts *compare_counts(const struct compare *c)
{
    return &c->counts;
}
