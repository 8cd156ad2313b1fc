/* export_rows.h - the rows of an export, of a whole store or of one that is still being written.
 *
 * Who may call: one thread. Units: items, captions. Memory: nothing is kept.
 * Errors: negative errno and `err`. A damaged item is named on standard error, counted and left out. */
#ifndef BLIPLINE_CLIENT_EXPORT_ROWS_H
#define BLIPLINE_CLIENT_EXPORT_ROWS_H

#include "client/export/export_row.h"
#include "client/export/select.h"
#include "client/export/sink.h"
#include "store/reader.h"

#include <stdbool.h>
#include <stdint.h>

struct export_tally {
    uint64_t n_rows, n_failed, n_missing, n_damaged;
    uint64_t n_captions, n_kept, n_empty; /* with a filter: captions seen, captions written, pictures without any */
};

/* How to write rows. */
struct export_style {
    enum export_format format;
    struct select_options select;
    bool filter, flat;
    struct export_fields fields;
};

/* In item order. */
int export_walk(struct reader *r, const struct export_style *style, struct sink *s, struct export_tally *t,
                struct err *err) CHECK_RESULT;
/* The rows of each unit once it is done, every row once, until the job is done or nobody works on it any more. A record
 * that replaces another later is not written again. */
int export_follow(struct reader *r, const struct export_style *style, struct sink *s, struct export_tally *t,
                  struct err *err) CHECK_RESULT;

#endif
