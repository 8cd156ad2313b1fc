/* row_value.h - values of a job's store as rows of STORE_ROWS (StoreValue in store.proto).
 *
 * A value that is longer than a row takes several rows; they are put together again when they are read.
 * Who may call: one thread for each reading. Units: bytes.
 * Memory: a value that was read is valid until the next one is read; the rows must outlive the reading.
 * Errors: as row.h. */
#ifndef BLIPLINE_PROTO_ROW_VALUE_H
#define BLIPLINE_PROTO_ROW_VALUE_H

#include "base/buf.h"
#include "proto/row.h"

enum row_value_table {
    ROW_VALUE_META = 1,
    ROW_VALUE_COUNTERS,
    ROW_VALUE_SOURCE,
    ROW_VALUE_UNIT,
    ROW_VALUE_STATE,
    ROW_VALUE_RECORD,
    ROW_VALUE_EMBEDDING,
    ROW_VALUE_NUMBER,
    ROW_VALUE_PROBLEM,
};

struct row_value {
    enum row_value_table table;
    uint64_t number, unit;
    const uint8_t *data;
    size_t size_bytes;
};

/* Appends the rows of a value; *n_rows grows by their number. */
int row_value_append(struct buf *rows, const struct row_value *v, uint32_t *n_rows) CHECK_RESULT;

/* Reads values; zero-initialise. */
struct row_value_cursor {
    struct row_frame frames[MSG_MAX_ROW_FRAMES];
    struct row_cursor rows;
    struct buf value;
};

/* Begin with these rows, which are frames back to back. -EMSGSIZE: they are more than a message has. */
int row_value_cursor_set(struct row_value_cursor *c, const struct buf *rows, uint32_t n_rows) CHECK_RESULT;
void row_value_cursor_release(struct row_value_cursor *c);
/* 1: a value; 0: the end. */
int row_value_cursor_next(struct row_value_cursor *c, struct row_value *ret, struct err *err) CHECK_RESULT;

#endif
