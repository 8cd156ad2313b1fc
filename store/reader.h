/* reader.h - read a job store, also while a broker writes it: export, get, stats, verify.
 *
 * Who may call: one thread a reader; not in a process that has the same store open for writing.
 * Units:  sizes are bytes.
 * Memory: what a call hands out lies in the reader and is valid until the next call with it.
 * Errors: as store.h. A damaged row is -EBADMSG with unit and item in the text; it is never returned as good.
 *
 * No read transaction lives across calls, and none covers more than READER_SLICE_ROWS rows (or one unit), or all pages
 * without their values (reader_verify, reader_open_to_go_on), so that a reader does not make the file grow. Rows are
 * as of the time each was read; a unit's results are seen all or not at all.
 *
 * Locking: readers register in lock.mdb. Where that cannot be written (read-only medium, no permission) the store is
 * read without it, which is safe only while nobody writes: a shared flock on `owner` is held meanwhile, so that no
 * writer starts, and a store that is in use is refused with -EBUSY. A copy without `owner` is trusted to be frozen. */
#ifndef BLIPLINE_STORE_READER_H
#define BLIPLINE_STORE_READER_H

#include "base/err.h"
#include "proto/row_source.h"
#include "proto/stored.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { READER_SLICE_ROWS = 10000 };

struct reader;

int reader_open(const char *path, bool allow_network_fs, struct reader **ret, struct err *err) CHECK_RESULT;
/* For a run that will go on in the store: -EBADMSG where its owner would not write, see `check` of struct
 * store_options. */
int reader_open_to_go_on(const char *path, bool check_all, struct reader **ret, struct err *err) CHECK_RESULT;
void reader_close(struct reader *r); /* NULL is fine */

/* Valid until reader_close. */
const struct stored_job_meta *reader_meta(const struct reader *r);
/* As committed now. */
int reader_counters(struct reader *r, struct stored_job_counters *ret, struct err *err) CHECK_RESULT;

/* The named sources; *ret[i] has number i + 1. Valid until the next call with the reader. */
int reader_sources(struct reader *r, const struct row_source **ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;

/* That of the item which was read last; NULL: it has none. Valid as those. */
const struct row_source *reader_source(const struct reader *r, uint32_t number);
/* From here on this reader takes the paths of the source from another root. -EINVAL: there is no such source. */
int reader_move_source(struct reader *r, uint32_t number, const char *root, struct err *err) CHECK_RESULT;

struct reader_row {
    uint64_t item;
    uint32_t unit;
    uint32_t n_attempts;    /* of the unit, that failed; 0 but at its first item */
    struct row_item listed; /* key, absolute path, size, mtime */
    bool has_record;        /* false: not done yet */
    struct row_record record;
};

/* The next reader_next gives `item`. A new reader stands at 0. */
void reader_seek(struct reader *r, uint64_t item);
/* 1: the next item, in order. 0: the end. -EBADMSG: damage; ret->item and ret->unit say where, and the next call goes
 * on behind it (behind the whole unit when its manifest row is damaged). After a walk from item 0 without damage the
 * last call but one says so where fewer items had records than the counters had as done when it began. */
int reader_next(struct reader *r, struct reader_row *ret, struct err *err) CHECK_RESULT;

/* One item by number. -ENOENT: there is none. Moves the position of reader_next. */
int reader_get(struct reader *r, uint64_t item, struct reader_row *ret, struct err *err) CHECK_RESULT;

/* One embedding of an item; reader_next and reader_get leave it alone, it is valid until the next reader_embedding.
 * 1: *ret is it. 0: there is none (not done, or an error). -EINVAL: the recipe asks for no such embedding. */
int reader_embedding(struct reader *r, enum msg_embedding kind, uint64_t item, struct row_embedding *ret,
                     struct err *err) CHECK_RESULT;
/* How many items have one. */
int reader_count_embeddings(struct reader *r, enum msg_embedding kind, uint64_t *ret, struct err *err) CHECK_RESULT;

/* The numbers of all items with this key, ascending; *ret_n 0: none. Items that `keys` does not cover yet are found by
 * reading the manifest from there on. -E2BIG: more than a million. *ret is valid until the next reader_find. */
int reader_find(struct reader *r, const void *key, size_t size_bytes, const uint64_t **ret, size_t *ret_n,
                struct err *err) CHECK_RESULT;

/* -EBADMSG: a page is in no place or in several (store/pages.h); then old pages may be read for new ones. */
int reader_check_pages(struct reader *r, struct err *err) CHECK_RESULT;

/* Return false to stop. */
struct reader_verify {
    /* unit, item: -1 where the problem is not about one */
    bool (*problem)(void *arg, int64_t unit, int64_t item, const char *text);
    bool (*progress)(void *arg, uint64_t items_seen, uint64_t n_items); /* may be NULL */
    void *arg;
};
/* Every page (store/pages.h), in one read transaction, then every checksum and every cross-check between manifest,
 * units, items, embeddings, keys and counters; also of a store that is being written. *ret_n_problems 0: sound.
 * -ECANCELED: stopped by a callback. */
int reader_verify(struct reader *r, const struct reader_verify *v, uint64_t *ret_n_problems,
                  struct err *err) CHECK_RESULT;

#endif
