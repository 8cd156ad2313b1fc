/* store.h - a job store: one LMDB environment that holds a job's manifest, the state of its units and its results.
 *
 * A store is a directory with data.mdb, lock.mdb and `owner`. Its named databases (numbers in keys are big endian):
 *   meta      "job" -> JobMeta, "counters" -> JobCounters,
 *             "source:XXXXXXXX" -> Source, by its number in hex digits,
 *             "keys" -> JobCounters of which n_items says how many items `keys` covers (absent: none),
 *             "keys_sum" -> JobCounters of which n_items is the sum modulo 2^64 over the entries of the covered items,
 *             XXH3-64 of each entry (absent: an older version made the store),
 *             "closed" -> JobCounters of which n_items is the LMDB transaction that wrote it: the last one of an owner
 *             that closed the store
 *   manifest  unit, 4 bytes -> ManifestUnit
 *   units     unit, 4 bytes -> UnitState; absent: untouched
 *   items     item, 8 bytes -> Record
 *   keys      XXH3-128 of the key, canonical 16 bytes -> item, 8 bytes; DUPSORT
 *   query, itc, itc_text, cls   item, 8 bytes -> Embedding; those that the recipe asks for
 * Every value is a row of proto/store.proto that ends with its CRC. Numbers never change; new items are new units.
 *
 * Who may call: one thread, the owner. One other thread may, between store_open and store_close, call store_info,
 *         store_path, store_pending, store_unit_items and store_free_bytes: they read what is committed.
 *         A path may be open once in a process, and not across fork.
 * Units:  sizes are bytes.
 * Memory: see each function. Between calls only a write transaction of the caller's may be open (store_begin).
 * Errors: negative errno; the codes of LMDB stay inside this folder.
 *
 *         -ENOSPC           disk or map full; what was committed before is intact, goes on when there is room
 *         -ENOBUFS          the transaction has outgrown the map: abort it, and do all of it again after store_begin,
 *                           which maps more
 *         -EIO              the environment is unusable: close it, open it again
 *         -EBADMSG          a row is damaged (the text names it), or pages of data.mdb are, or it is too short
 *         -EBUSY            another process owns the store
 *         -EPROTONOSUPPORT  a store of another schema version
 *         -ENOENT           no store there, and not asked to create one
 *         -ENOTDIR, -EINVAL there is something else at this path
 *         -ELOOP            one of its files is a symbolic link
 *         -EREMOTE          a network filesystem, where LMDB is not safe
 *
 * data.mdb is mapped: if another program shortens it while it is open, the next access is SIGBUS, from which
 * store_guard recovers. Its length is checked at open. */
#ifndef BLIPLINE_STORE_STORE_H
#define BLIPLINE_STORE_STORE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/stored.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

/* For tests; a NULL function: the real thing. */
struct store_seam {
    int (*before_commit)(void *arg); /* a negative errno: the commit fails as if LMDB had returned it */
    int (*free_bytes)(void *arg, uint64_t *ret);
    void *arg;
};

struct store_options {
    bool create;           /* make it if there is none; needs `meta` */
    bool allow_network_fs; /* otherwise NFS, SMB, Lustre and the like are refused */
    /* LMDB trusts its pages, so one wrong number in them, in its free list most of all, makes it write over rows. All
     * pages are looked at before anything is written: always where that is a matter of a second or two (1 GiB), else
     * where the last owner did not close the store, or with `check`. -EBADMSG: they are damaged, and the store stays as
     * it is. */
    bool check;
    uint64_t min_free_bytes; /* store_commit refuses with less than this free on the disk; 0: 4 MiB */
    /* Of a new store, not looked at when there is one (compare with store_info). schema_version is set for you, and
     * created_ms where it is 0. */
    const struct stored_job_meta *meta;
    const struct store_seam *seam; /* must outlive the store */
};

/* Open for writing, create when asked. A creation that crashed is adopted by the next one that asks to create.
 * ret_created may be NULL. */
int store_open(const char *path, const struct store_options *options, struct store **ret, bool *ret_created,
               struct err *err) CHECK_RESULT;
/* NULL is fine. An open transaction, and items that did not fill a unit and were not sealed, are given up. */
void store_close(struct store *s);

/* Run `call`, which uses this store (or opens one, `s` NULL), so that a damaged or truncated data.mdb ends the call and
 * not the process (guard.h). -EIO then: the store is lost. Every later guarded call returns the same, and only
 * store_counters, store_next_item, store_keys_wanted, store_in_txn, store_abort and store_close may be called besides:
 * they leave LMDB alone. The path stays locked, and some memory in use, until the process ends. */
int store_guard(struct store *s, const char *path, int (*call)(void *arg), void *arg, struct err *err) CHECK_RESULT;

/* Valid until store_close; they never change. */
const char *store_path(const struct store *s);
const struct stored_job_meta *store_info(const struct store *s);
/* As of the last commit, and with what was put since store_begin. */
const struct stored_job_counters *store_counters(const struct store *s);
/* The number that the next appended item gets: n_items and those that wait for their unit to fill. */
uint64_t store_next_item(const struct store *s);
/* Free bytes on the store's filesystem. */
int store_free_bytes(const struct store *s, uint64_t *ret_bytes) CHECK_RESULT;

/* -- one write transaction at a time: begin, puts, commit -- */

int store_begin(struct store *s, struct err *err) CHECK_RESULT;
/* Durable when it returns 0. Otherwise everything since store_begin is undone, as by store_abort. */
int store_commit(struct store *s, struct err *err) CHECK_RESULT;
void store_abort(struct store *s);
bool store_in_txn(const struct store *s);
/* Payload put since store_begin. Commit before this grows past some ten MiB. */
size_t store_txn_bytes(const struct store *s);

/* A put that fails with -EBADMSG, -EMSGSIZE, -EINVAL, -EALREADY or -ENOENT has changed nothing and the transaction goes
 * on; after any other failure it is fit only for store_abort. */

/* Append `n_rows` items: `rows` is a row frame (proto/row.h) of Item rows; their numbers are given here. Full units are
 * put; what is left waits in memory until more rows fill it or store_seal puts a short unit. A unit of long names may
 * be cut short so that its row frame stays small. Clears `sealed`. */
int store_append_rows(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows,
                      struct err *err) CHECK_RESULT;
/* The named sources that rows speak of: `rows` is a row frame of Source rows (proto/row_source.h). New ones have the
 * next numbers; of those that are there only the root, the columns and what was passed over may differ. What is as it
 * was is not written. */
int store_put_sources(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows,
                      struct err *err) CHECK_RESULT;
/* The manifest is complete: put the last, short unit if there is one, set `sealed`. Again is fine. */
int store_seal(struct store *s, struct err *err) CHECK_RESULT;

/* `rows` is a row frame of Item rows of items that are in the manifest, named by their numbers. What they say takes the
 * place of what the manifest says, but for the keys, and those that have a record are to be done again: store_pending
 * gives their units once more. The record stays until store_put_unit has another. *ret_from_unit: the first unit that
 * is concerned, UINT32_MAX for none. -EINVAL, -EMSGSIZE: a row makes no sense, or its unit would grow too large; those
 * before it stand. */
int store_again(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, uint32_t *ret_from_unit,
                struct err *err) CHECK_RESULT;

/* The results of one unit: stored Records (stored_record_encode) back to back, in item order. */
struct store_records {
    const uint64_t *again; /* NULL: of all its items. Else the unit is done, and they are of the items of this mask */
    const uint8_t *data;
    const uint32_t *ends; /* [n] end offset of each */
    uint32_t n;
    uint32_t n_failed; /* how many of them are errors */
    /* stored Embeddings (stored_embedding_encode) of items without error; by (index, kind), each once */
    const uint8_t *embedding_data;
    const struct store_embedding {
        uint32_t index; /* of the item within the unit */
        enum msg_embedding kind;
        uint32_t start, size_bytes; /* in embedding_data */
    } * embeddings;
    uint32_t n_embeddings;
};
/* Records, embeddings, done mark and counters together. Of items done again, a failure never takes the place of a
 * record without one: that stays, and the item remains to be done. -EALREADY: the unit is done and the first results
 * stand, and nothing of it is to be done again. -EINVAL: not the unit's number of items, or embeddings that the
 * recipe does not ask for. -ENOENT: no such unit. */
int store_put_unit(struct store *s, uint32_t unit, const struct store_records *records, struct err *err) CHECK_RESULT;
/* Remember failed attempts (the count, not the increase), and with `parts` [n_parts, STORED_MAX_PARTS at most] into
 * which parts they have cut the unit (struct stored_unit_state); n_parts 0: it is whole. -EALREADY: the unit is done.
 * -ENOENT: no such unit. */
int store_put_attempts(struct store *s, uint32_t unit, uint32_t attempts, const uint8_t *parts, uint32_t n_parts,
                       struct err *err) CHECK_RESULT;

/* -- the keys database, built in steps between commits -- */

/* True when the manifest is sealed and has items that `keys` does not cover. */
bool store_keys_wanted(const struct store *s);
/* One step of some 10 ms (a sort of a million entries: 200 ms), in its own transaction; none may be open. Holds up to
 * 40 MiB until done. A build that was interrupted starts again; until it is done, reader_find reads the manifest. */
int store_keys_step(struct store *s, struct err *err) CHECK_RESULT;

/* -- short read transactions -- */

struct store_pending {
    uint32_t unit;
    uint32_t n_items;
    uint32_t attempts;
    uint8_t parts[STORED_MAX_PARTS]; /* as in struct stored_unit_state */
    uint64_t first_item;
    bool is_again; /* it is done, but for items that are to be done again: those of the mask */
    uint64_t again[MSG_MAX_UNIT_ITEMS / 64];
    uint64_t bad[MSG_MAX_UNIT_ITEMS / 64]; /* items of which their list says what is wrong with them */
};
/* Up to `max` units from `from` on that are not done, or have items to be done again, in order. Looks at 10 000 units
 * at most, so that *ret_n may be 0 with more to come: go on at *ret_next. The end is *ret_next == from. */
int store_pending(struct store *s, uint32_t from, size_t max, struct store_pending *ret, size_t *ret_n,
                  uint32_t *ret_next, struct err *err) CHECK_RESULT;

/* Append items first ... first+count-1 of the unit (counted within it; count 0: to its end) to `ret` as Item rows with
 * their numbers and absolute paths: the row frame of a Work message; ret_ends (NULL, or one an item): where in
 * `ret` each ends. -EINVAL: outside the unit. */
int store_unit_items(struct store *s, uint32_t unit, uint32_t first, uint32_t count, struct buf *ret,
                     uint32_t *ret_n_rows, uint32_t *ret_ends, struct err *err) CHECK_RESULT;

#endif
