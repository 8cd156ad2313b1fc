/* join.h - columns for pictures that come without a table: rows of another file, joined by key.
 *
 * Several rows of one key add up: five captions of a picture are five rows, or one row with a list.
 * Who may call: one thread. Units: bytes.
 * Memory: everything is read into memory, about 200 bytes a row and its texts; join_free. What join_find gives is valid
 *         until then.
 * Errors: negative errno and err naming file and line; -E2BIG: more values for one key than an item may have. */
#ifndef BLIPLINE_JOB_JOIN_H
#define BLIPLINE_JOB_JOIN_H

#include "base/err.h"
#include "proto/row.h"
#include "source/source.h"

#include <stddef.h>
#include <stdint.h>

struct join;

/* `path`: a table as source/source.h reads them (.jsonl, .csv, .tsv), with a column `key` (or the picture's path as the
 * key). The names of `columns` are borrowed. */
int join_read(const char *path, const struct source_columns *columns, struct join **ret, struct err *err) CHECK_RESULT;
void join_free(struct join *j); /* NULL is fine */

/* Which of the columns some row has: bit i. */
/* Rows that cannot be used and were left out; *ret_first: why the first one, valid as long as the join. */
uint64_t join_n_bad(const struct join *j, const char **ret_first);
uint32_t join_columns_seen(const struct join *j);
/* A key that some row has; NULL: there is no row. */
const char *join_example(const struct join *j);
/* The fields of this key, in the order of the rows; 0: there is no such row. */
uint32_t join_find(const struct join *j, const void *key, size_t key_bytes, struct row_field ret[SOURCE_MAX_FIELDS]);

#endif
