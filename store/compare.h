/* compare.h - the items of a walk against the manifest of a store: which are new, and which are to be done again.
 *
 * An item is known as often as the manifest has it. While walk and manifest are in the same order nothing is
 * remembered; from the first difference on, 56 bytes an item of the rest of the manifest (store/known.h).
 * Who may call: one thread; the store may be open for writing in another process.
 * Units:  items. Memory: compare_close. Errors: as store.h. */
#ifndef BLIPLINE_STORE_COMPARE_H
#define BLIPLINE_STORE_COMPARE_H

#include "base/err.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stdint.h>

enum { COMPARE_MAX_CODES = 32 };

/* Which items are done again. Those that failed for a reason which may have passed always are: the file was missing or
 * could not be read, memory or time ran out, the row of the list was of no use, or the record is damaged. */
struct compare_options {
    bool refresh;     /* those that have changed */
    bool all_failed;  /* those that failed, for whatever reason */
    uint32_t n_codes; /* or for one of these */
    char codes[COMPARE_MAX_CODES][MSG_CODE_SIZE];
};

/* Is an item that failed with this code done again? */
bool compare_retries(const struct compare_options *o, const char *code);

enum compare_verdict { COMPARE_NEW, COMPARE_KNOWN, COMPARE_AGAIN };

/* Of all items so far. */
struct compare_counts {
    uint64_t n_new;
    uint64_t n_damaged;            /* records of the manifest's items that cannot be read, as far as was looked */
    uint64_t n_retried;            /* failed items that are done again, and those of such records */
    uint64_t n_refreshed;          /* of the rest, those that have changed and are done again */
    uint64_t n_changed;            /* of what is left, those whose size or time differ from the manifest's */
    uint64_t n_other_fields;       /* or whose fields do */
    uint8_t other_fields_key[120]; /* the key of the first of them, cut off where it is longer */
    uint32_t other_fields_key_bytes;
    uint64_t n_failed_with[COMPARE_MAX_CODES]; /* items of the manifest that failed with options.codes[i] */
};

struct compare;

int compare_open(const char *path, const struct compare_options *o, struct compare **ret, struct err *err) CHECK_RESULT;
void compare_close(struct compare *c); /* NULL is fine */
/* The source of this number lies at another root than the store says. Call it before the first item. */
int compare_move_source(struct compare *c, uint32_t number, const char *root, struct err *err) CHECK_RESULT;
/* The next item of the walk, with its absolute path. Returns an enum compare_verdict or a negative errno; of an item
 * that is done again *ret_item is its number in the manifest. */
int compare_item(struct compare *c, const struct row_item *item, uint64_t *ret_item, struct err *err) CHECK_RESULT;
const struct compare_counts *compare_counts(const struct compare *c);

#endif
