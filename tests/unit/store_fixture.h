/* store_fixture.h - stores, rows and records for tests. One test process; fails the running cmocka test on any error.
 * Memory: as named; temporary folders are removed by fixture_dir_remove. */
#ifndef BLIPLINE_TESTS_UNIT_STORE_FIXTURE_H
#define BLIPLINE_TESTS_UNIT_STORE_FIXTURE_H

#include "base/buf.h"
#include "store/reader.h"
#include "store/store.h"

/* A new folder; the caller frees the name after fixture_dir_remove. */
char *fixture_dir(void);
void fixture_dir_remove(char *dir);

struct stored_job_meta fixture_meta(uint32_t unit_items);
/* Open `path`, created if it is not there. */
struct store *fixture_store(const char *path, uint32_t unit_items);

/* Rows with keys "key-%08u" and paths "/pictures/key-%08u.jpg" of first ... first+n-1, appended to `rows`. */
void fixture_rows(struct buf *rows, uint64_t first, uint32_t n);
void fixture_one_row(struct buf *rows, const void *key, uint32_t key_bytes);
/* Append, each call in its own transaction; then seal. */
void fixture_import(struct store *s, uint64_t first, uint32_t n);

/* Encoded records of items first ... first+n-1; every `bad`th item (item % bad == 0; 0: none) is an error. */
struct fixture_records {
    struct buf bytes;
    uint32_t *ends;
    uint32_t n, n_failed;
};
void fixture_records_init(struct fixture_records *r, uint64_t first, uint32_t n, uint32_t bad);
void fixture_records_release(struct fixture_records *r);
/* Commit the results of one unit of s in a transaction of its own. */
void fixture_commit_unit(struct store *s, uint32_t unit, uint64_t first, uint32_t n, uint32_t bad);

/* Problems that reader_verify finds; what it says is printed when `print`. */
uint64_t fixture_problems(const char *path, int print);

#endif
