/* env.h - a store's directory and its LMDB environment: checks, locks, map, damage. Inside store/ only.
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

/* Whether LMDB's pages are looked at before it reads them (pages.h). */
enum env_pages {
    ENV_PAGES_TRUST,
    ENV_PAGES_CHECK, /* unless the store is large and its last owner closed it in order */
    ENV_PAGES_CHECK_ALL
};

struct env_options {
    bool write;
    bool create; /* with write: a missing or unfinished store is made; then *ret_empty is true */
    bool allow_network_fs;
    enum env_pages pages;
};

/* Check the directory, take the lock, map, check length and pages. The tables are not open yet. */
int env_open(const char *path, const struct env_options *o, struct env *ret, bool *ret_empty,
             struct err *err) CHECK_RESULT;
void env_close(struct env *e);

/* env_pages.c: every page as of now, also while a broker writes; one read transaction is open meanwhile. */
int env_check_pages(struct env *e, const char *path, const struct pages_report *report, struct err *err) CHECK_RESULT;
/* The same up to the first problem. -EBADMSG: there is one. */
int env_find_damage(struct env *e, const char *path, struct err *err) CHECK_RESULT;
/* -EBADMSG, with a text that says what to do. */
int env_damaged(const char *path, const char *what, struct err *err) CHECK_RESULT;
/* Has nothing been written since an owner closed it (store_close)? */
bool env_is_closed_in_order(struct env *e);

/* Open the named databases in `txn` (commit it, so that they stay open); make them when `create`.
 * -EINVAL: this environment is not a job store. */
int env_open_tables(struct env *e, MDB_txn *txn, bool create, const char *path, struct err *err) CHECK_RESULT;

/* The same for the embeddings that the recipe asks for. */
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

/* The named source of this number. -ENOENT: there is none. */
int env_read_source(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint32_t number,
                    struct row_source *ret, struct err *err) CHECK_RESULT;
/* Its key in meta. */
enum { ENV_SOURCE_KEY_BYTES = 15 };
void env_source_key(uint32_t number, char ret[ENV_SOURCE_KEY_BYTES + 1]);

/* The manifest row of `unit`, checked and decoded into `memory`. -ENOENT: no such unit. */
int env_read_unit(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint32_t unit,
                  struct stored_manifest_unit *ret, struct err *err) CHECK_RESULT;
/* Its state; zeroes where there is no row. */
int env_read_state(const struct env *e, MDB_txn *txn, uint32_t unit, struct stored_unit_state *ret,
                   struct err *err) CHECK_RESULT;
/* The unit that holds `item`, by bisection over n_units units. -ENOENT: none. */
int env_find_unit(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint64_t item, uint32_t n_units,
                  uint32_t *ret_unit, struct err *err) CHECK_RESULT;

/* -ENOENT stays silent: err is written for other failures. */
int env_get(MDB_txn *txn, MDB_dbi table, const void *key, size_t key_bytes, MDB_val *ret, struct err *err) CHECK_RESULT;
int env_begin_read(struct env *e, MDB_txn **ret, struct err *err) CHECK_RESULT;

/* map.c: only part of the address space is mapped, and more as data.mdb grows. */
/* Create the environment and map what data.mdb has, with room behind it. Returns what LMDB did. */
int env_map_open(struct env *e, unsigned flags, uint64_t data_bytes);
/* The owner's, with no transaction of this process open: see that there is room behind the last page that is in use, at
 * least `least_bytes`. -ENOSPC: this process cannot have so much address space. -EIO: the environment is lost. */
int env_map_grow(struct env *e, uint64_t least_bytes, struct err *err) CHECK_RESULT;
/* How much there is. */
uint64_t env_map_room(const struct env *e);
/* Begin a read transaction, or renew *txn where it is not NULL; a reader's map follows a file that its owner has grown.
 * No other transaction of this environment may be open then. Returns what LMDB did. */
int env_map_begin_read(struct env *e, MDB_txn **txn);

/* What LMDB returned, as a negative errno. */
int env_errno(int mdb_rc);

void env_put_be32(uint8_t ret[4], uint32_t v);
void env_put_be64(uint8_t ret[8], uint64_t v);
uint32_t env_get_be32(const void *p);
uint64_t env_get_be64(const void *p);

#endif
