/* store.h - a job store: one LMDB environment that holds a job's manifest, the state of its units and its results.
 *
 * A store is a directory with data.mdb, lock.mdb and `owner`. Named databases (numbers in keys are big endian):
 *   meta      "job" JobMeta | "counters" JobCounters | "keys" JobCounters whose n_items says how many items `keys`
 * covers manifest  unit, 4 bytes   -> ManifestUnit     units  unit, 4 bytes -> UnitState (absent: untouched) items
 * item, 8 bytes   -> Record           keys   XXH3-128 of the key, canonical 16 bytes -> item, 8 bytes (DUPSORT) Every
 * value is a row of proto/store.proto that ends with its CRC. Numbers never change; new items are new units at the end.
 *
 * Who may call: one thread, the owner, calls everything here, with two exceptions that one other thread may call
 * between the end of store_open and the start of store_close: the readers (store_info, store_pending, store_unit_items)
 * and store_free_bytes. One struct store a path and process; never across fork. Units:  sizes bytes, times milliseconds
 * since 1970 where named created_ms. Memory: see each function. No call holds a transaction when it returns, but for
 * store_begin ... store_commit. Errors: negative errno, LMDB's own codes never leave this folder: -ENOSPC    disk (or
 * map) full; everything committed before is intact; goes on when there is room -EIO       the environment is unusable:
 * close it, open it again -EBADMSG   a row is damaged (the text names it)     -EBUSY  another process owns the store
 *         -EPROTONOSUPPORT  another schema version (by number)     -ENOTDIR, -EINVAL  not a job store
 *         -ESTALE    truncated data.mdb     -EREMOTE  network filesystem     -ENOENT  no store, and not asked to create
 */
#ifndef BLIPLINE_STORE_STORE_H
#define BLIPLINE_STORE_STORE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STORE_SCHEMA_VERSION = 1,
    STORE_MAX_UNIT_ITEMS = 4096,
    STORE_MAX_KEY_BYTES = 4096,
    STORE_MAX_PATH_BYTES = 4096,
    STORE_MAX_META_BYTES = 60 << 10, /* recipe, nodes, source: each */
};

struct store;

struct store_bytes {
    const uint8_t *data;
    size_t size_bytes;
};

/* meta "job": written once, when the store is created. */
struct store_meta {
    struct store_bytes recipe; /* packed blipline.Recipe */
    struct store_bytes nodes;  /* packed blipline.JobOpen with only `nodes` */
    struct store_bytes source; /* for people */
    int64_t created_ms;
    uint32_t unit_items;        /* size of new units, 1 ... STORE_MAX_UNIT_ITEMS */
    struct store_bytes program; /* "blipline 0.1.0" */
};

/* Invariants: n_failed <= n_done <= n_items, n_units_done <= n_units. */
struct store_counters {
    uint64_t n_items;
    uint32_t n_units;
    bool sealed;
    uint64_t n_done;   /* items with a record */
    uint64_t n_failed; /* of those, records that are an error */
    uint32_t n_units_done;
};

/* Seams for tests; NULL: the real thing. */
struct store_seam {
    int (*before_commit)(void *arg); /* a negative errno: the commit fails as if LMDB had returned it */
    int (*free_bytes)(void *arg, uint64_t *ret);
    void *arg;
};

struct store_options {
    bool create;                   /* make it if there is none; needs `meta` */
    bool allow_network_fs;         /* otherwise NFS, SMB, Lustre and the like are refused: LMDB is not safe there */
    uint64_t map_bytes;            /* 0: 1 TiB, or the largest that fits under the process's limits */
    uint64_t min_free_bytes;       /* store_commit refuses below this much free space; 0: 4 MiB */
    const struct store_meta *meta; /* of a new store; not looked at when there is one (compare store_info's) */
    const struct store_seam *seam; /* must live as long as the store */
};

/* Open for writing; creates when asked. A creation that crashed is adopted by the next one that asks to create.
 * ret_created (may be NULL): true when this call made the store. */
int store_open(const char *path, const struct store_options *options, struct store **ret, bool *ret_created,
               struct err *err) CHECK_RESULT;
/* NULL is fine. An open transaction is given up. */
void store_close(struct store *s);

const char *store_path(const struct store *s);
/* Valid until store_close; never changes. */
const struct store_meta *store_info(const struct store *s);
/* Owner thread only: as of the last commit, or with what store_begin ... added. */
const struct store_counters *store_counters(const struct store *s);
/* Free bytes on the store's filesystem. Any thread. */
int store_free_bytes(const struct store *s, uint64_t *ret_bytes) CHECK_RESULT;

/* -- one write transaction at a time: begin, any of the puts, commit
 * ------------------------------------------------------------------- */

int store_begin(struct store *s, struct err *err) CHECK_RESULT;
/* On failure everything since store_begin is undone, counters too, as it is by store_abort. */
int store_commit(struct store *s, struct err *err) CHECK_RESULT;
void store_abort(struct store *s);
bool store_in_txn(const struct store *s);
/* Payload bytes put since store_begin: commit before this grows past some ten MiB. */
size_t store_txn_bytes(const struct store *s);

/* A put that fails with another code than -EBADMSG, -EINVAL, -EALREADY or -ENOENT leaves the transaction fit only for
 * store_abort. With those four it has changed nothing. */

/* Append items: `rows` is a run of length-delimited Item rows (a row frame; proto/row.h), their numbers are given here.
 * Full units are put; what is left stays in memory, counted in n_items, until more rows fill it or store_seal puts a
 * short unit. Clears `sealed`. Rows are checked: key 1 ... STORE_MAX_KEY_BYTES of any bytes, path <=
 * STORE_MAX_PATH_BYTES. */
int store_append_rows(struct store *s, const uint8_t *rows, size_t size_bytes, size_t *ret_n_rows,
                      struct err *err) CHECK_RESULT;
/* Put the last, short unit if there is one; sets `sealed`. Sealing twice is fine. */
int store_seal(struct store *s, struct err *err) CHECK_RESULT;

/* The encoded Records of one unit, back to back, each with its CRC (proto/stored.h makes them), in item order. */
struct store_records {
    const uint8_t *data;
    const uint32_t *ends; /* [n] end offset of each */
    uint32_t n;
    uint32_t n_failed; /* how many of them are errors */
};
/* Records, done mark and counters together. -EALREADY: the unit is done, the first results stand.
 * -EINVAL: n is not the unit's number of items. -ENOENT: no such unit. */
int store_put_unit(struct store *s, uint32_t unit, const struct store_records *records, struct err *err) CHECK_RESULT;
/* Remember failed attempts (absolute count). -EALREADY: the unit is done. */
int store_put_attempts(struct store *s, uint32_t unit, uint32_t attempts, struct err *err) CHECK_RESULT;

/* -- the keys database, built in small steps between commits
 * --------------------------------------------------------------------------- */

/* Is there something to do? True when items exist that `keys` does not cover and the manifest is sealed. */
bool store_keys_wanted(const struct store *s);
/* One step of some 10 ms; opens and commits its own transaction (none may be open). Memory: up to 24 MiB until done.
 * Interrupted at any point, it starts again; nothing is wrong in between, `get` falls back to reading the manifest. */
int store_keys_step(struct store *s, struct err *err) CHECK_RESULT;

/* -- reading, in short read transactions; the owner and one other thread
 * ---------------------------------------------------------------- */

struct store_pending {
    uint32_t unit;
    uint32_t n_items;
    uint32_t attempts;
    uint64_t first_item;
};
/* Up to `max` units >= `from` that are not done, in order, from the manifest as committed. Looks at no more than 10 000
 * units: *ret_n may be 0 with more to come. *ret_next is where to go on; *ret_next == from: `from` is past the last
 * unit. */
int store_pending(const struct store *s, uint32_t from, size_t max, struct store_pending *ret, size_t *ret_n,
                  uint32_t *ret_next, struct err *err) CHECK_RESULT;

/* Append items first ... first+count-1 (counted within the unit) to `ret` as length-delimited Item rows with their
 * numbers set: a row frame of Work. count 0: to the end. *ret_n_rows rows were appended. Checks the CRC. */
int store_unit_items(const struct store *s, uint32_t unit, uint32_t first, uint32_t count, struct buf *ret,
                     uint32_t *ret_n_rows, struct err *err) CHECK_RESULT;

#endif
