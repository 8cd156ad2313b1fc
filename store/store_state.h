/* store_state.h - struct store. Inside store/ only; who may call and errors: as store.h. */
#ifndef BLIPLINE_STORE_STORE_STATE_H
#define BLIPLINE_STORE_STORE_STATE_H

#include "base/arena.h"
#include "base/buf.h"
#include "store/env.h"
#include "store/store.h"

#include <pthread.h>

/* Items that wait for their unit to fill. The arena has their bytes. */
struct store_tail {
    struct arena arena;
    struct row_item *items; /* [meta.unit_items] */
    uint32_t n;
    size_t bytes;
    uint64_t picture_bytes;
};

/* Of a job whose client sends the pictures: push.c. */
struct store_push {
    uint64_t n_items, part_bytes;     /* items whose pictures are here; of the next picture: what is here of it */
    uint64_t saved_items, saved_part; /* the same, as of the last commit */
    int fd;                           /* of the unit to which the next picture belongs; -1: not open */
    uint32_t unit, unit_items;        /* that unit */
    uint64_t first_item, unit_bytes;  /* unit_bytes: of its whole pictures */
    bool dirty, is_new;               /* something was written; a file is new in the folder */
};

/* The numbers at the beginning of a unit's file; zeroed: not read yet. */
struct store_push_head {
    int fd; /* less one */
    uint8_t error[MSG_CODE_SIZE + ROW_MAX_MESSAGE_BYTES];
};

struct keys_build;

/* Always left free, by default. */
#define STORE_MIN_FREE_BYTES ((uint64_t)4 << 20)

struct store {
    /* fixed once store_open returns; the other thread reads only these */
    char *path;
    struct env env;
    struct stored_job_meta meta;
    const struct store_seam *seam;
    uint64_t min_free_bytes;
    pthread_mutex_t map_lock; /* held by the other thread while it reads, by the owner while the map changes */

    /* used by the owner only */
    struct stored_job_counters counters;
    struct stored_job_counters committed; /* the counters to restore if a commit fails */
    struct store_tail tail, saved_tail;   /* saved_tail: as of store_begin, while tail_saved */
    bool tail_saved;
    MDB_txn *txn;
    size_t txn_bytes;
    uint64_t room_bytes; /* that the map must have behind the last page: one transaction has outgrown it */
    bool written;        /* a transaction was committed */
    uint32_t n_commits;
    bool lost;           /* a guarded call was left: LMDB's environment must not be touched */
    struct err lost_err; /* why */
    bool damaged;        /* a write failed in a way that says so: the next owner looks at every page */
    uint64_t file_bytes; /* length of data.mdb: space is reserved ahead of commits */
    uint64_t end_item;   /* one more than the largest key of `items`: behind it rows are appended */
    uint64_t saved_end_item;
    struct row_memory memory, old_memory;
    struct buf row; /* scratch: the value being put */

    struct store_push push;
    uint64_t keys_covered; /* as committed */
    struct keys_build *keys;
};

/* txn.c */
/* Within a transaction. -ENOBUFS: the map is full. */
int store_put(struct store *s, MDB_dbi table, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
              unsigned flags, struct err *err) CHECK_RESULT;
int store_put_counters(struct store *s, const char *name, const struct stored_job_counters *c,
                       struct err *err) CHECK_RESULT;

/* A read transaction of the other thread's, which keeps the map as it is. */
int store_begin_read(struct store *s, MDB_txn **ret, struct err *err) CHECK_RESULT;
void store_end_read(struct store *s, MDB_txn *txn);

/* For a store that is to be made: room is looked for before anything is there that would be left behind. */
int store_check_room(const struct store *s, struct err *err) CHECK_RESULT;
/* -ENOSPC: there is no room for so many bytes more. */
int store_check_free(const struct store *s, uint64_t n_bytes, struct err *err) CHECK_RESULT;
/* Of data.mdb, as far as LMDB has taken it. */
uint64_t store_used_bytes(const struct store *s);

int store_put_state(struct store *s, uint32_t unit, const struct stored_unit_state *state,
                    struct err *err) CHECK_RESULT;

/* again.c: put the state of a done unit in which n_marked items more are marked to be redone. */
int store_put_marks(struct store *s, uint32_t unit, struct stored_unit_state *state, uint32_t n_marked,
                    struct err *err) CHECK_RESULT;
/* store_put_unit for a unit that is done. *u: what the manifest says of it. */
int store_put_again(struct store *s, uint32_t unit, const struct stored_manifest_unit *u,
                    struct stored_unit_state *state, const struct store_records *records, struct err *err) CHECK_RESULT;

/* source.c: -EINVAL: the store has no source of this number (0: an item without). `last` remembers; 0 at first. */
int store_check_source(struct store *s, uint32_t number, uint32_t *last, struct err *err) CHECK_RESULT;

/* push.c */
int store_push_open(struct store *s, MDB_txn *txn, struct err *err) CHECK_RESULT;
void store_push_close(struct store *s);
int store_push_commit(struct store *s, struct err *err) CHECK_RESULT; /* sync the files, before the commit */
void store_push_committed(struct store *s);
void store_push_undo(struct store *s);
/* Say in the row of item `i` of a unit of n_items where its picture is, or why there is none. */
void store_push_describe(const struct store *s, uint32_t unit, uint32_t n_items, uint32_t i, struct store_push_head *h,
                         struct row_item *item);
void store_push_head_release(struct store_push_head *h);
/* manifest.c: append the rows of the unit's items from the first-th on, with absolute paths. */
int store_append_paths(struct store *s, MDB_txn *txn, const struct stored_manifest_unit *u, uint32_t first,
                       struct buf *ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;

/* keys.c */
void keys_build_free(struct keys_build *k);

/* The tail: manifest.c */
int store_tail_init(struct store_tail *t, uint32_t unit_items) CHECK_RESULT;
void store_tail_release(struct store_tail *t);
/* Undo what was appended since store_begin. */
void store_tail_restore(struct store *s);

#endif
