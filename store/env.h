/* env.h - a store's folder and its LMDB environment: checks, locks, mapping, damage. Inside store/ only.
 *
 * Who may call: store.c and reader.c, each in the thread that opens. Memory: env_close frees all; an env that was not
 * opened is zeroed with owner_fd -1. Errors: as store.h. */
#ifndef BLIPLINE_STORE_ENV_H
#define BLIPLINE_STORE_ENV_H

#include "base/err.h"
#include "proto/row_source.h"
#include "proto/stored.h"
#include "store/pages.h"

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct env {
    MDB_env *mdb;
    char *path;                                 /* for LMDB's assertions */
    MDB_dbi meta, manifest, units, items, keys; /* open once env_open_tables succeeded */
    struct {
        bool open;
        MDB_dbi dbi;
    } embeddings[MSG_EMBEDDING_CLS + 1]; /* by kind; once env_open_embeddings succeeded */
    size_t page_bytes;
    bool pages_checked; /* by env_open */
    int owner_fd;       /* flock held: exclusive when writing, shared when reading without lock.mdb; else -1 */
};

/* Whether to check LMDB's pages before it reads them (pages.h). */
enum env_pages {
    ENV_PAGES_TRUST,
    ENV_PAGES_CHECK, /* skipped for a large store that was closed in order */
    ENV_PAGES_CHECK_ALL
};

struct env_options {
    bool write;
    bool create; /* with write: create a missing or unfinished store; then *ret_empty is true */
    bool allow_network_fs;
    enum env_pages pages;
};

/* Check the directory, take the lock, map, check length and pages. The tables are not open yet. */
int env_open(const char *path, const struct env_options *o, struct env *ret, bool *ret_empty,
             struct err *err) CHECK_RESULT;
void env_close(struct env *e);

/* env_pages.c: check every page in one read transaction, also while a broker writes. */
int env_check_pages(struct env *e, const char *path, const struct pages_report *report, struct err *err) CHECK_RESULT;
/* The same, but stop at the first problem. -EBADMSG: there is one. */
int env_find_damage(struct env *e, const char *path, struct err *err) CHECK_RESULT;
/* Returns -EBADMSG, and err says what to do. */
int env_damaged(const char *path, const char *what, struct err *err) CHECK_RESULT;
/* True if nothing has been written since store_close. */
bool env_is_closed_in_order(struct env *e);

/* Open the named databases in `txn` (commit it, so that they stay open); make them when `create`.
 * -EINVAL: this environment is not a job store. */
int env_open_tables(struct env *e, MDB_txn *txn, bool create, const char *path, struct err *err) CHECK_RESULT;

/* The same for the embeddings of the recipe. */
int env_open_embeddings(struct env *e, MDB_txn *txn, bool create, const struct msg_recipe *recipe, const char *path,
                        struct err *err) CHECK_RESULT;

/* Read and check meta "job". */
int env_read_meta(const struct env *e, MDB_txn *txn, const char *path, struct stored_job_meta *ret,
                  struct err *err) CHECK_RESULT;
int env_read_counters(const struct env *e, MDB_txn *txn, struct stored_job_counters *ret, struct err *err) CHECK_RESULT;
/* How many items `keys` covers. */
int env_read_keys_covered(const struct env *e, MDB_txn *txn, uint64_t *ret, struct err *err) CHECK_RESULT;
/* The sum over the entries of `keys` (keys.h). -ENOENT: the store has none, an older version made it. */
int env_read_keys_sum(const struct env *e, MDB_txn *txn, uint64_t *ret, struct err *err) CHECK_RESULT;

/* A named source. -ENOENT: no such source. */
int env_read_source(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint32_t number,
                    struct row_source *ret, struct err *err) CHECK_RESULT;
/* Its key in meta. */
enum { ENV_SOURCE_KEY_BYTES = 15 };
void env_source_key(uint32_t number, char ret[ENV_SOURCE_KEY_BYTES + 1]);

/* The manifest row of `unit`, checked and decoded into `memory`. -ENOENT: no such unit. */
int env_read_unit(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint32_t unit,
                  struct stored_manifest_unit *ret, struct err *err) CHECK_RESULT;
/* The state of a unit; zeroed if there is no row. */
int env_read_state(const struct env *e, MDB_txn *txn, uint32_t unit, struct stored_unit_state *ret,
                   struct err *err) CHECK_RESULT;
/* The unit that holds `item`, by bisection over n_units units. -ENOENT: none. */
int env_find_unit(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint64_t item, uint32_t n_units,
                  uint32_t *ret_unit, struct err *err) CHECK_RESULT;

/* The same for values that were read elsewhere; `v` NULL: it is missing. */
int env_decode_meta(const MDB_val *v, const char *path, struct stored_job_meta *ret, struct err *err) CHECK_RESULT;
int env_decode_counters(const MDB_val *v, struct stored_job_counters *ret, struct err *err) CHECK_RESULT;
int env_decode_source(struct row_memory *memory, const MDB_val *v, uint32_t number, struct row_source *ret,
                      struct err *err) CHECK_RESULT;
int env_decode_unit(struct row_memory *memory, const MDB_val *v, uint32_t unit, struct stored_manifest_unit *ret,
                    struct err *err) CHECK_RESULT;
int env_decode_state(const MDB_val *v, uint32_t unit, struct stored_unit_state *ret, struct err *err) CHECK_RESULT;

/* The bytes of a value. -ENOENT does not set err. */
int env_get_source(const struct env *e, MDB_txn *txn, uint32_t number, MDB_val *ret, struct err *err) CHECK_RESULT;
int env_get(MDB_txn *txn, MDB_dbi table, const void *key, size_t key_bytes, MDB_val *ret, struct err *err) CHECK_RESULT;
int env_begin_read(struct env *e, MDB_txn **ret, struct err *err) CHECK_RESULT;

/* map.c: maps data.mdb with some room, and more as it grows. */
/* Create the environment and map data.mdb, with room after it. Returns a code of LMDB. */
int env_map_open(struct env *e, unsigned flags, uint64_t data_bytes);
/* For the owner, while this process has no open transaction: map at least `least_bytes` after the last page in use.
 * -ENOSPC: not enough address space. -EIO: the environment is lost. */
int env_map_grow(struct env *e, uint64_t least_bytes, struct err *err) CHECK_RESULT;
/* The bytes mapped after the last page in use. */
uint64_t env_map_room(const struct env *e);
/* Begin a read transaction, or renew *txn if it is not NULL. If the owner has grown the file, maps more of it; no other
 * transaction of this environment may be open. Returns a code of LMDB. */
int env_map_begin_read(struct env *e, MDB_txn **txn);

/* Convert a code of LMDB to a negative errno. */
int env_errno(int mdb_rc);

void env_put_be32(uint8_t ret[4], uint32_t v);
void env_put_be64(uint8_t ret[8], uint64_t v);
uint32_t env_get_be32(const void *p);
uint64_t env_get_be64(const void *p);

#endif
