/* store.h - a job store: one LMDB environment that holds a job's manifest, the state of its units and its results.
 *
 * A store is a directory with data.mdb, lock.mdb and `owner`. Its named databases (numbers in keys are big endian):
 *   meta      "job" -> JobMeta, "counters" -> JobCounters,
 *             "source:XXXXXXXX" -> Source, by its number in hex digits,
 *             "keys" -> JobCounters; n_items says how many items `keys` covers (absent: none),
 *             "keys_sum" -> JobCounters of which n_items is the sum modulo 2^64 over the entries of the covered items,
 *             XXH3-64 of each entry (absent: an older version made the store),
 *             "closed" -> JobCounters; n_items is the LMDB transaction that wrote it, the last before store_close
 *   manifest  unit, 4 bytes -> ManifestUnit
 *   units     unit, 4 bytes -> UnitState; absent: not begun
 *   items     item, 8 bytes -> Record
 *   keys      XXH3-128 of the key, canonical 16 bytes -> item, 8 bytes; DUPSORT
 *   query, itc, itc_text, cls   item, 8 bytes -> Embedding; those that the recipe asks for
 * Every value is a row of proto/store.proto that ends with its CRC. Numbers never change; new items are new units.
 *
 * Who may call: one thread, the owner. One other thread may, between store_open and store_close, call store_info,
 *         store_path, store_pending, store_unit_items and store_free_bytes, which read committed data.
 *         A process may open a path only once, and not use it across fork.
 * Units:  sizes are bytes.
 * Memory: see each function. Between calls only the transaction of store_begin may be open.
 * Errors: negative errno; the codes of LMDB stay inside this folder.
 *
 *         -ENOSPC           disk or map full; committed data is intact; retry when there is room
 *         -ENOBUFS          the transaction has outgrown the map: abort it and repeat it; store_begin maps more
 *         -EIO              the environment is unusable: close it, open it again
 *         -EBADMSG          a row (err names it) or a page of data.mdb is damaged, or the file is too short
 *         -EBUSY            another process owns the store
 *         -EPROTONOSUPPORT  a store of another schema version
 *         -ENOENT           no store there, and `create` is false
 *         -ENOTDIR, -EINVAL something else is at this path
 *         -ELOOP            one of its files is a symbolic link
 *         -EREMOTE          a network filesystem, where LMDB is not safe
 *
 * data.mdb is mapped: if another program shortens it while it is open, the next access raises SIGBUS, from which
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

/* For tests; NULL functions are not called. */
struct store_seam {
    int (*before_commit)(void *arg); /* a negative errno: the commit fails as if LMDB had returned it */
    int (*free_bytes)(void *arg, uint64_t *ret);
    void *arg;
};

struct store_options {
    bool create;           /* create a missing store; needs `meta` */
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

/* Open for writing; with `create`, make a missing store or finish a creation that crashed. ret_created may be NULL. */
int store_open(const char *path, const struct store_options *options, struct store **ret, bool *ret_created,
               struct err *err) CHECK_RESULT;
/* NULL is allowed. Discards an open transaction and unsealed items that do not fill a unit. */
void store_close(struct store *s);

/* Run `call`, which uses this store (or opens one; then `s` is NULL), so that a damaged or truncated data.mdb ends the
 * call and not the process (guard.h). Then -EIO: the store is lost, and later guarded calls return the same. Only
 * store_counters, store_next_item, store_keys_wanted, store_in_txn, store_abort and store_close, which do not call
 * LMDB, may still be called directly. The path stays locked, and some memory in use, until the process ends. */
int store_guard(struct store *s, const char *path, int (*call)(void *arg), void *arg, struct err *err) CHECK_RESULT;

/* Constant; valid until store_close. */
const char *store_path(const struct store *s);
const struct stored_job_meta *store_info(const struct store *s);
/* Including what the open transaction has put. */
const struct stored_job_counters *store_counters(const struct store *s);
/* The number of the next appended item: n_items plus the items that wait for their unit to fill. */
uint64_t store_next_item(const struct store *s);
/* -EDQUOT: the store will take whole_bytes, its present size included, and the disk has no room for that. */
int store_check_whole(const struct store *s, uint64_t whole_bytes, struct err *err) CHECK_RESULT;
/* Free bytes on the store's filesystem. */
int store_free_bytes(const struct store *s, uint64_t *ret_bytes) CHECK_RESULT;

/* -- one write transaction at a time: begin, puts, commit -- */

int store_begin(struct store *s, struct err *err) CHECK_RESULT;
/* 0: durable. Otherwise everything since store_begin is undone, as by store_abort. */
int store_commit(struct store *s, struct err *err) CHECK_RESULT;
void store_abort(struct store *s);
bool store_in_txn(const struct store *s);
/* Payload put since store_begin. Commit before it exceeds about ten MiB. */
size_t store_txn_bytes(const struct store *s);

/* A put that fails with -EBADMSG, -EMSGSIZE, -EINVAL, -EALREADY or -ENOENT has changed nothing, and the transaction can
 * continue; after any other failure call store_abort. */

/* Append and number `n_rows` items from `rows`, a row frame (proto/row.h) of Item rows. Puts full units; the remaining
 * items wait in memory until more rows come or store_seal puts a short unit. A unit with long names may be shorter, so
 * that its row frame stays small. Clears `sealed`. */
int store_append_rows(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows,
                      struct err *err) CHECK_RESULT;
/* Put named sources: `rows` is a row frame of Source rows (proto/row_source.h). New sources have the next numbers;
 * existing ones may only change root, columns and passed_over. Unchanged ones are not written. */
int store_put_sources(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows,
                      struct err *err) CHECK_RESULT;
/* The manifest is complete: put the last, short unit, if any, and set `sealed`. May be repeated. */
int store_seal(struct store *s, struct err *err) CHECK_RESULT;

/* `rows` is a row frame of Item rows of items in the manifest, by number. They replace the items in the manifest,
 * except for the keys. Items with a record are marked to be redone: store_pending returns their units again, and the
 * record stays until store_put_unit replaces it. *ret_from_unit: the first unit concerned, or UINT32_MAX. -EINVAL,
 * -EMSGSIZE: a row is invalid or its unit would become too large; the rows before it have been put. */
int store_again(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, uint32_t *ret_from_unit,
                struct err *err) CHECK_RESULT;

/* Mark failed items of units from `from` on to be redone: those with one of these codes, or (n_codes 0) all. Items that
 * are marked already, or whose list says what is wrong with them, are left alone. Looks at so many that it takes some
 * milliseconds: continue at *ret_next; UINT32_MAX: there are no more. *ret_from_unit: as store_again. */
int store_retry(struct store *s, uint32_t from, uint32_t n_codes, const char codes[][MSG_CODE_SIZE], uint32_t *ret_next,
                uint32_t *ret_from_unit, struct err *err) CHECK_RESULT;

/* The results of one unit: stored Records (stored_record_encode) back to back, in item order. */
struct store_records {
    const uint64_t *again; /* NULL: all items. Otherwise a mask of the items of a done unit that were redone */
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
/* Put records, embeddings, the done mark and counters. If an item is redone, a failure never replaces a good record,
 * and the item stays marked. -EALREADY: the unit is done and has no marked items. -EINVAL: the wrong number of items,
 * or embeddings that the recipe does not have. -ENOENT: no such unit. */
int store_put_unit(struct store *s, uint32_t unit, const struct store_records *records, struct err *err) CHECK_RESULT;
/* Set the count of failed attempts and the parts into which the unit is cut (struct stored_unit_state): `parts` has
 * n_parts entries, at most STORED_MAX_PARTS; 0: not cut. -EALREADY: the unit is done. -ENOENT: no such unit. */
int store_put_attempts(struct store *s, uint32_t unit, uint32_t attempts, const uint8_t *parts, uint32_t n_parts,
                       struct err *err) CHECK_RESULT;

/* -- the keys database, built in steps between commits -- */

/* True if the manifest is sealed and has items that `keys` does not cover. */
bool store_keys_wanted(const struct store *s);
/* One step of about 10 ms (200 ms to sort a million entries) in its own transaction; none may be open. Uses up to 40
 * MiB until done. An interrupted build starts again; until it is done, reader_find reads the manifest. */
int store_keys_step(struct store *s, struct err *err) CHECK_RESULT;

/* -- short read transactions -- */

struct store_pending {
    uint32_t unit;
    uint32_t n_items;
    uint32_t attempts;
    uint8_t parts[STORED_MAX_PARTS]; /* as in struct stored_unit_state */
    uint64_t first_item;
    bool is_again; /* the unit is done; only the items of the mask are to be redone */
    uint64_t again[MSG_MAX_UNIT_ITEMS / 64];
    uint64_t bad[MSG_MAX_UNIT_ITEMS / 64]; /* items of which their list says what is wrong with them */
};
/* Up to `max` units from `from` on, in order, that are not done or have items to be redone. Reads at most 10 000 units,
 * so *ret_n may be 0 before the end: continue at *ret_next. At the end *ret_next == from. */
int store_pending(struct store *s, uint32_t from, size_t max, struct store_pending *ret, size_t *ret_n,
                  uint32_t *ret_next, struct err *err) CHECK_RESULT;

/* Append items first ... first+count-1 of the unit (count 0: to its end) to `ret` as Item rows with numbers and
 * absolute paths, for a Work message. Only those of a submission have root_bytes: other jobs, such as those of
 * `caption`, do not wait for a worker that can see the pictures, but pause. ret_ends, which may be NULL, gets the end
 * of each item in `ret`. -EINVAL: outside the unit. */
int store_unit_items(struct store *s, uint32_t unit, uint32_t first, uint32_t count, struct buf *ret,
                     uint32_t *ret_n_rows, uint32_t *ret_ends, struct err *err) CHECK_RESULT;

#endif
