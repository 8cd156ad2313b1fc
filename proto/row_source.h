/* row_source.h - the named sources of a job's items, as rows of the wire and values of the store.
 *
 * An item is a key within a source, and its path is relative to the source's root. The root may change, so that a
 * folder can be moved or mounted elsewhere.
 * Who may call: anyone.
 * Units: none.
 * Memory: a row_source is a plain value of some 9 KB.
 * Errors: as row.h and stored.h. */
#ifndef BLIPLINE_PROTO_ROW_SOURCE_H
#define BLIPLINE_PROTO_ROW_SOURCE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"
#include "proto/row.h"

#include <stddef.h>
#include <stdint.h>

enum { ROW_SOURCE_MAX_COLUMNS = 32, ROW_SOURCE_MAX_PASSED = 16, ROW_SOURCE_LIST_SIZE = 256 };

struct row_source {
    uint32_t number; /* 1, 2, ... */
    char name[MSG_NAME_SIZE];
    char root[MSG_PATH_SIZE];        /* absolute */
    char list[ROW_SOURCE_LIST_SIZE]; /* file name of the list; "": a folder */
    uint32_t n_columns;
    char columns[ROW_SOURCE_MAX_COLUMNS][MSG_NAME_SIZE]; /* kept with the items, besides those of the recipe */
    uint32_t n_passed;
    struct row_passed {
        char kind[MSG_CODE_SIZE]; /* one word */
        uint64_t n;
    } passed[ROW_SOURCE_MAX_PASSED]; /* files that the last walk did not take */
};

int row_source_append(struct buf *frame, const struct row_source *s) CHECK_RESULT;
int row_cursor_next_source(struct row_cursor *c, struct row_source *ret, struct err *err) CHECK_RESULT;

int stored_source_encode(const struct row_source *s, struct buf *out) CHECK_RESULT;
int stored_source_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_source *ret,
                         struct err *err) CHECK_RESULT;

/* Make the item's path absolute: prepend the root of `s`, the item's source, unless the path is absolute or the item
 * has no source. `ret` holds the path with a NUL, and the item points into it. */
int row_source_resolve(const struct row_source *s, struct row_item *item, struct buf *ret) CHECK_RESULT;

#endif
