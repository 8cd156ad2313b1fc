/* row_source.h - the named sources of a job: where its items come from, as rows of the wire and values of the store.
 *
 * An item is a key within a source. The source's root is where relative paths start from, and may change; so a folder
 * can be moved, or lie on another mount point, and the store goes on.
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
    uint32_t number; /* from 1 on */
    char name[MSG_NAME_SIZE];
    char root[MSG_PATH_SIZE];        /* absolute */
    char list[ROW_SOURCE_LIST_SIZE]; /* the file name of a list; "": a folder */
    uint32_t n_columns;
    char columns[ROW_SOURCE_MAX_COLUMNS][MSG_NAME_SIZE]; /* kept with the items because they were asked for */
    uint32_t n_passed;
    struct row_passed {
        char kind[MSG_CODE_SIZE]; /* one word */
        uint64_t n;
    } passed[ROW_SOURCE_MAX_PASSED]; /* what the last walk did not take */
};

int row_source_append(struct buf *frame, const struct row_source *s) CHECK_RESULT;
int row_cursor_next_source(struct row_cursor *c, struct row_source *ret, struct err *err) CHECK_RESULT;

int stored_source_encode(const struct row_source *s, struct buf *out) CHECK_RESULT;
int stored_source_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_source *ret,
                         struct err *err) CHECK_RESULT;

/* Where the item's bytes are: its path, or that below the root, into `ret` with a NUL behind it, which then stands
 * in the item. The item's source is `s` where it has one. */
int row_source_resolve(const struct row_source *s, struct row_item *item, struct buf *ret) CHECK_RESULT;

#endif
