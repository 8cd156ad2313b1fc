/* reader.h - read a job store, also while a broker writes it: export, get, stats, verify.
 *
 * Who may call: one thread a reader; not in a process that has the same store open for writing.
 * Units:  sizes bytes.
 * Memory: what a call hands out belongs to the reader and is valid until the next call with it.
 * Errors: as store.h. A damaged row is -EBADMSG with unit and item in the text, never returned as good.
 *
 * No read transaction lives across calls, and none covers more than READER_SLICE_ROWS rows, so that a reader never
 * makes the file grow. Rows are therefore as of the time each was read: a unit's results are seen all or not at all.
 *
 * Locking: readers register in lock.mdb. Where it cannot be written (read-only medium, no permission) the store is read
 * without a lock, and only if nobody writes it: a shared flock on `owner` is held meanwhile, so that no writer can
 * start; a store that is in use then is refused. Without an `owner` file (a copy) the caller vouches that the copy is
 * frozen. */
#ifndef BLIPLINE_STORE_READER_H
#define BLIPLINE_STORE_READER_H

#include "base/err.h"
#include "store/store.h"

enum { READER_SLICE_ROWS = 10000 };

struct reader;

int reader_open(const char *path, bool allow_network_fs, struct reader **ret, struct err *err) CHECK_RESULT;
void reader_close(struct reader *r); /* NULL is fine */

/* Valid until reader_close. */
const struct store_meta *reader_meta(const struct reader *r);
/* As committed now. */
int reader_counters(struct reader *r, struct store_counters *ret, struct err *err) CHECK_RESULT;
/* The process that has the store open for writing, 0: none. */
int reader_writer_pid(const struct reader *r);

struct reader_row {
    uint64_t item;
    uint32_t unit;
    struct store_bytes key, path;
    uint64_t size_bytes; /* of the image, as listed */
    int64_t mtime_ns;
    bool unit_done;
    struct store_bytes
        record; /* the stored Record with its CRC, already checked; proto/stored.h decodes it. Empty: not done yet */
};

/* Items in order from `item` on. Any number of seeks; one position a reader. */
void reader_seek(struct reader *r, uint64_t item);
/* 1: *ret is the next item. 0: end. -EBADMSG: this item, or its whole unit, is damaged: ret->item and ret->unit say
 * which, and the next call goes on behind it. */
int reader_next(struct reader *r, struct reader_row *ret, struct err *err) CHECK_RESULT;

/* One item by number. -ENOENT: there is none. Moves the position. */
int reader_get(struct reader *r, uint64_t item, struct reader_row *ret, struct err *err) CHECK_RESULT;
/* The numbers of all items with this key, ascending, at most `max`. Uses `keys`; items that it does not cover yet are
 * found by reading the manifest. *ret_n may be larger than max: how many there are. *ret: valid until the next
 * reader_find. */
int reader_find(struct reader *r, const void *key, size_t size_bytes, size_t max, const uint64_t **ret, size_t *ret_n,
                struct err *err) CHECK_RESULT;

/* One problem found by reader_verify. Return false to stop. `unit`, `item`: -1 where it is about neither. */
struct reader_verify {
    bool (*problem)(void *arg, int64_t unit, int64_t item, const char *text);
    bool (*progress)(void *arg, uint64_t items_seen, uint64_t n_items); /* every READER_SLICE_ROWS or so; may be NULL */
    void *arg;
};
/* Every CRC, every cross-check between manifest, units, items, keys and counters. Also on a store that is being
 * written. *ret_n_problems 0: sound. -ECANCELED: stopped by a callback. */
int reader_verify(struct reader *r, const struct reader_verify *v, uint64_t *ret_n_problems,
                  struct err *err) CHECK_RESULT;

#endif
