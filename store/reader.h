/* reader.h - read a job store, also while a broker writes it: export, get, stats, verify.
 *
 * The store is on this machine, or its values come from elsewhere (reader_open_remote), in answers of reader_answer
 * there. Everything but the origin of the bytes is the same, so the results are, too.
 *
 * Who may call: one thread per reader; not in a process that has the same store open for writing.
 * Units:  sizes are bytes.
 * Memory: results belong to the reader and are valid until the next call with it.
 * Errors: as store.h. A damaged row gives -EBADMSG, and err names unit and item.
 *
 * A read transaction ends with the call, and covers at most READER_SLICE_ROWS rows, one unit, or all pages without
 * their values (reader_verify, reader_open_to_go_on), so that readers do not make the file grow. Each row is as of the
 * time it was read; the results of a unit are seen all or not at all.
 *
 * Locking: readers register in lock.mdb. If it cannot be written (read-only medium, no permission), the reader holds a
 * shared flock on `owner` instead, so that no writer can start, and a store in use is refused with -EBUSY. A copy
 * without `owner` is assumed not to change. */
#ifndef BLIPLINE_STORE_READER_H
#define BLIPLINE_STORE_READER_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"
#include "proto/row_source.h"
#include "proto/stored.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { READER_SLICE_ROWS = 10000 };

struct reader;

int reader_open(const char *path, bool allow_network_fs, struct reader **ret, struct err *err) CHECK_RESULT;
/* For a run that will continue in the store: -EBADMSG if its owner would refuse to write (`check` of struct
 * store_options). */
int reader_open_to_go_on(const char *path, bool check_all, struct reader **ret, struct err *err) CHECK_RESULT;
/* Where the values of a store come from that is not here. */
struct reader_source_far {
    /* The answer to a question about the store; its StoreValue rows are appended to `rows`. `question` NULL: the next
     * answer to the last question, which said that there is `more`. -ENOENT: there is no such store, or no longer. */
    int (*ask)(void *arg, const struct msg_store_read *question, struct msg_store_rows *ret, struct buf *rows,
               uint32_t *ret_n_rows, struct err *err);
    void *arg; /* must outlive the reader */
};
/* `name` stands for the path in messages. `job` is that of all questions. This and all functions of such a reader:
 * -EIDRM where the source says -ENOENT. */
int reader_open_remote(const char *name, uint64_t job, const struct reader_source_far *from, struct reader **ret,
                       struct err *err) CHECK_RESULT;
void reader_close(struct reader *r); /* NULL is allowed */

/* Answer a question of a remote reader about a store that is here: `send` is called once, for VERIFY several times.
 * `rows` are StoreValue rows; it may take them. Errors of `send` end the work. */
typedef int reader_answer_send(void *arg, const struct msg_store_rows *head, struct buf *rows, uint32_t n_rows);
int reader_answer(struct reader *r, const struct msg_store_read *question, reader_answer_send *send, void *arg,
                  struct err *err) CHECK_RESULT;

/* Valid until reader_close. */
const struct stored_job_meta *reader_meta(const struct reader *r);
/* As committed now. */
int reader_counters(struct reader *r, struct stored_job_counters *ret, struct err *err) CHECK_RESULT;

/* Bytes of data.mdb on the disk (its length counts holes too). */
int reader_disk_bytes(struct reader *r, uint64_t *ret, struct err *err) CHECK_RESULT;
/* Does a broker have the store open to work on it? */
int reader_in_progress(struct reader *r, bool *ret, struct err *err) CHECK_RESULT;

/* The named sources; *ret[i] has number i + 1. Valid until the next call with the reader. */
int reader_sources(struct reader *r, const struct row_source **ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;

/* The source of the item read last; NULL: it has none. Valid until the next call with the reader. */
const struct row_source *reader_source(const struct reader *r, uint32_t number);
/* Use another root for paths of this source in this reader. -EINVAL: no such source. */
int reader_move_source(struct reader *r, uint32_t number, const char *root, struct err *err) CHECK_RESULT;

struct reader_row {
    uint64_t item;
    uint32_t unit;
    uint32_t n_attempts;    /* failed attempts of the unit; only given for its first item */
    struct row_item listed; /* key, absolute path, size, mtime */
    bool has_record;        /* false: not done yet */
    struct row_record record;
};

/* Set the item that reader_next reads next; 0 at first. */
void reader_seek(struct reader *r, uint64_t item);
/* 1: the next item, in order. 0: the end. -EBADMSG: damage at ret->item and ret->unit; the next call continues after
 * the item, or after the unit if its manifest row is damaged. A walk from item 0 also ends with -EBADMSG, before the 0,
 * if fewer items had records than the counters said when it began. */
int reader_next(struct reader *r, struct reader_row *ret, struct err *err) CHECK_RESULT;

/* List the units that are done, from *from on, in order: some of them; *from becomes the unit to continue with, and at
 * the end it stays. *ret is valid until the next call with the reader. */
int reader_units_done(struct reader *r, uint32_t *from, const uint64_t **ret, size_t *ret_n,
                      struct err *err) CHECK_RESULT;
/* reader_next gives the items of this unit next, as long as reader_is_inside_unit says after each that there are more.
 */
void reader_seek_unit(struct reader *r, uint32_t unit);
bool reader_is_inside_unit(const struct reader *r);

/* Read an item by number. -ENOENT: no such item. Moves the position of reader_next. */
int reader_get(struct reader *r, uint64_t item, struct reader_row *ret, struct err *err) CHECK_RESULT;

/* Read an embedding of an item; valid until the next reader_embedding. 1: found. 0: none (not done, or failed).
 * -EINVAL: the recipe does not have it. */
int reader_embedding(struct reader *r, enum msg_embedding kind, uint64_t item, struct row_embedding *ret,
                     struct err *err) CHECK_RESULT;
/* How many items have this embedding. */
int reader_count_embeddings(struct reader *r, enum msg_embedding kind, uint64_t *ret, struct err *err) CHECK_RESULT;

/* The numbers of all items with this key, ascending. Reads the manifest for items that `keys` does not cover yet.
 * -E2BIG: more than a million. *ret is valid until the next reader_find. */
int reader_find(struct reader *r, const void *key, size_t size_bytes, const uint64_t **ret, size_t *ret_n,
                struct err *err) CHECK_RESULT;

/* Check all pages (store/pages.h). -EBADMSG: damaged; rows that are read may then be stale. */
int reader_check_pages(struct reader *r, struct err *err) CHECK_RESULT;

/* Return false to stop. */
struct reader_verify {
    /* unit, item: -1 if the problem does not concern one */
    bool (*problem)(void *arg, int64_t unit, int64_t item, const char *text);
    bool (*progress)(void *arg, uint64_t items_seen, uint64_t n_items); /* may be NULL */
    void *arg;
};
/* Check every page (store/pages.h) in one read transaction, then every checksum, and that manifest, units, items,
 * embeddings, keys and counters agree. The store may be in use. *ret_n_problems 0: sound. -ECANCELED: stopped by a
 * callback. */
int reader_verify(struct reader *r, const struct reader_verify *v, uint64_t *ret_n_problems,
                  struct err *err) CHECK_RESULT;

#endif
