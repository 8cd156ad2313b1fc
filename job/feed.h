/* feed.h - the pictures of a job, as row frames for the broker.
 *
 * Who may call: one thread; the store may be open for writing in another process.
 * Units:  items. Memory: feed_close. Errors: negative errno; `err` names the source. */
#ifndef BLIPLINE_JOB_FEED_H
#define BLIPLINE_JOB_FEED_H

#include "base/buf.h"
#include "base/err.h"
#include "job/origin.h"
#include "source/source.h"

#include <stdbool.h>
#include <stdint.h>

enum { FEED_PEEK_ITEMS = 256 };

struct feed;

struct feed_options {
    const char *const *sources; /* as in source/source.h, optionally with NAME= in front; borrowed */
    int n_sources;
    uint64_t limit;                    /* 0: none; else only the first so many of the walk */
    const char *store_path;            /* what lies in this folder is passed over; NULL: there is none */
    const struct origins_known *known; /* what the store has; NULL: it is new */
    struct source_columns columns;     /* of lists, kept with the items */
    uint32_t needed;                   /* bit i: a source without column i is an error */
    const char *kept; /* names of more columns to be kept, with commas; NULL: none. Those of a store stay */
    const char *join; /* a table that adds columns to the pictures with its keys; NULL: none */
};

/* Counts of the walk so far. */
struct feed_counts {
    uint64_t n_walked;    /* pictures, up to the limit */
    uint64_t n_bytes;     /* of their files */
    uint64_t n_row_bytes; /* of their rows */
    uint64_t n_unjoined;  /* pictures whose key `join` does not have */
    uint64_t n_without;   /* values of needed columns that rows of lists lack: these items will fail */
    uint64_t n_bad;       /* rows of lists that are of no use: these too */
    struct err first_bad;
    uint64_t n_left_out;           /* values of kept columns that cannot be kept */
    char not_kept[MSG_NAME_SIZE];  /* a column of `kept` that the store did not begin with; "": none */
    uint32_t columns_seen;         /* bit i: some row has column i */
    struct source_skipped skipped; /* by all completed walks */
};

/* Checks the sources, opens them and looks at the first FEED_PEEK_ITEMS pictures. For a new store, lists are read from
 * end to end, so that a broken line is known before any work; else a run before has done that, and the first rows are
 * enough to see that the list is still what it was. */
int feed_open(const struct feed_options *o, struct feed **ret, struct err *err) CHECK_RESULT;
void feed_close(struct feed *f); /* NULL is allowed */
/* How many pictures were read at first; fewer than FEED_PEEK_ITEMS: there are no more. */
uint32_t feed_peeked(const struct feed *f);
/* Put the next pictures into `ret`, emptied first, as Item rows. *ret_more false: no more. */
int feed_next(struct feed *f, struct buf *ret, uint32_t *ret_n, bool *ret_more, struct err *err) CHECK_RESULT;
const struct feed_counts *feed_counts(const struct feed *f);
/* Unusable rows of `join`, and the error of the first one. */
uint64_t feed_n_bad_joined(const struct feed *f, const char **ret_first);
/* The sources, with what their walks have passed over so far; the broker is to have them before the rows. */
const struct origins *feed_origins(const struct feed *f);

#endif
