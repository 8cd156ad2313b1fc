/* join.h - adds columns from the rows of a table to pictures, by key.
 *
 * Values of several rows with the same key add up: five captions of a picture are five rows, or one row with a list.
 * Who may call: one thread. Units: bytes.
 * Memory: the whole table is in memory, about 200 bytes and the texts per row. Fields from join_find are valid until
 *         join_free.
 * Errors: negative errno; err names file and line; -E2BIG: more values for a key than an item may have. */
#ifndef BLIPLINE_JOB_JOIN_H
#define BLIPLINE_JOB_JOIN_H

#include "base/err.h"
#include "proto/row.h"
#include "source/source.h"

#include <stddef.h>
#include <stdint.h>

struct join;

/* `path`: a table as in source/source.h (.jsonl, .csv, .tsv); its column `key`, or else the picture's path, is the key.
 * The names of `columns` are borrowed. */
int join_read(const char *path, const struct source_columns *columns, struct join **ret, struct err *err) CHECK_RESULT;
void join_free(struct join *j); /* NULL is allowed */

/* Unusable rows, which were left out; *ret_first: the error of the first one, valid until join_free. */
uint64_t join_n_bad(const struct join *j, const char **ret_first);
/* Bit i: some row has column i. */
uint32_t join_columns_seen(const struct join *j);
/* The key of some row, for messages; NULL: there is no row. */
const char *join_example(const struct join *j);
/* The fields of this key, in the order of the rows; 0: no such row. */
uint32_t join_find(const struct join *j, const void *key, size_t key_bytes, struct row_field ret[SOURCE_MAX_FIELDS]);

#endif
