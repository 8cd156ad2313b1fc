/* origin.h - finds out which of a store's named sources the arguments of a command are.
 *
 * An argument is the source in the same place, or the one that the user names (NAME=PATH), or one that was moved here:
 * many of its pictures have the keys, sizes and times of the source's items. Otherwise it is a new source, named by the
 * last part of its path. Single files form one source per folder; each list is a source.
 * Who may call: one thread. Units: none. Memory: origins_release. Errors: negative errno and `err` naming the
 * argument. */
#ifndef BLIPLINE_JOB_ORIGIN_H
#define BLIPLINE_JOB_ORIGIN_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/row_source.h"
#include "source/source.h"

#include <stdbool.h>
#include <stdint.h>

struct origin {
    const char *arg; /* as source/source.h takes it, without NAME=; borrowed */
    uint32_t number; /* of the row_source; 0: none, its items have absolute paths */
    bool moved;      /* it lay somewhere else when the store last saw it, in `was` */
    char was[MSG_PATH_SIZE];
};

struct origins {
    struct origin *args; /* [n_args] */
    int n_args;
    struct row_source *rows;   /* [n_rows], that of number i + 1 at i: the store's as they are to be, and new ones */
    uint32_t n_rows, n_stored; /* all, and those that the store has */
    size_t capacity;
};

/* What a store has. */
struct origins_known {
    const struct row_source *rows; /* [n_rows], that of number i + 1 at i */
    uint32_t n_rows;
    /* Append the Item rows of its items that have one of the keys of `keys` (n_keys Item rows; may be emptied). */
    int (*find_items)(void *arg, struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n, struct err *err);
    void *arg;
};

/* known NULL: there is no store yet. `columns` are those of lists. */
int origins_find(struct origins *o, const char *const *args, int n_args, const struct origins_known *known,
                 const struct source_columns *columns, struct err *err) CHECK_RESULT;
void origins_release(struct origins *o); /* of a zeroed struct: nothing */

/* Make the item's path relative to the root of its source if it lies below, as the store keeps it. */
void origins_shorten(const struct origins *o, struct row_item *item);
/* Record what a walk over argument i has passed over. */
void origins_count(struct origins *o, int i, const struct source_skipped *skipped);
/* Append the sources as rows for the broker, in one frame. */
int origins_append(const struct origins *o, struct buf *frame) CHECK_RESULT;

#endif
