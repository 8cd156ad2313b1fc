/* reader_state.h - struct reader. Inside store/ only; who may call and errors: as reader.h. */
#ifndef BLIPLINE_STORE_READER_STATE_H
#define BLIPLINE_STORE_READER_STATE_H

#include "base/buf.h"
#include "proto/row_value.h"
#include "store/env.h"
#include "store/reader.h"

struct reader_span {
    size_t offset;     /* in reader.bytes */
    size_t size_bytes; /* 0: there is no row */
};

struct reader {
    char *path;
    struct env env;
    const struct env *shared; /* env is a copy of this one, of a store open here; NULL: the reader owns env */
    struct remote *remote;    /* NULL: the store is here; otherwise env and txn are not used */
    struct stored_job_meta meta;
    MDB_txn *txn; /* reset between calls */

    /* the unit that is loaded: manifest, state and records as of one transaction */
    bool loaded;
    uint32_t unit;
    struct stored_manifest_unit manifest; /* lies in unit_memory */
    struct stored_unit_state state;
    int state_rc; /* not 0: the state row is damaged, so says state_err */
    struct err state_err;
    struct reader_span *records; /* [MSG_MAX_UNIT_ITEMS] */
    struct buf bytes;
    struct row_memory unit_memory, record_memory, embedding_memory;

    uint64_t position; /* item that reader_next gives */
    bool seek;         /* the unit of `position` is not known yet */
    uint32_t next_unit;
    uint32_t i_item; /* in the loaded unit */
    /* while reader_next has gone from item 0 on and met no damage: how many records there had to be, and were */
    bool begun, whole;
    uint64_t n_expected, n_records;

    struct row_source *sources; /* [n_sources], that of number i + 1 at i */
    uint32_t n_sources;
    size_t sources_capacity;
    struct buf path_bytes; /* of the item that reader_next gave */

    uint64_t *found;
    size_t n_found, found_capacity;
};

/* A reader of what is committed, in the thread of the store that has `env` open; to be closed before that. */
int reader_attach(const struct env *env, const struct stored_job_meta *meta, const char *path, struct reader **ret,
                  struct err *err) CHECK_RESULT;

/* Of a store that is not open yet, with `path` as its name in messages. */
int reader_new(const char *path, struct reader **ret, struct err *err) CHECK_RESULT;

/* Use r->txn only between these two. */
int reader_begin(struct reader *r, struct err *err) CHECK_RESULT;
void reader_end(struct reader *r);
/* The next source, from the bytes of its value. */
int reader_add_source(struct reader *r, struct row_memory *memory, const MDB_val *v, struct err *err) CHECK_RESULT;
/* Make the item's path absolute, in path_bytes. */
int reader_resolve(struct reader *r, struct row_item *item, struct err *err) CHECK_RESULT;
/* Load the unit of r->position. 1: it is there, 0: there is none. */
int reader_find_position(struct reader *r, struct err *err) CHECK_RESULT;
/* Load one unit, all of it from one transaction. -ENOENT: no such unit. -EBADMSG: its manifest row is damaged. */
int reader_load(struct reader *r, uint32_t unit, struct err *err) CHECK_RESULT;
/* The same within a read transaction, without marking it as loaded. */
int reader_load_now(struct reader *r, uint32_t unit, struct err *err) CHECK_RESULT;
/* Its parts: nothing but the manifest row is known; keep the bytes of an item's record. */
void reader_clear_unit(struct reader *r);
int reader_keep_record(struct reader *r, uint32_t unit, uint64_t item, const void *data, size_t size_bytes,
                       struct err *err) CHECK_RESULT;
/* Decode record i of the loaded unit. 1: *ret is it, 0: there is none, -EBADMSG: damaged. */
int reader_record(struct reader *r, uint32_t i, struct row_record *ret, struct err *err) CHECK_RESULT;

/* The unit that holds `item`, of a store that is here. -ENOENT: none. */
int reader_find_unit(struct reader *r, uint64_t item, uint32_t *ret, struct err *err) CHECK_RESULT;
/* The table `keys` has the items below *ret. */
int reader_keys_covered(struct reader *r, uint64_t *ret, struct err *err) CHECK_RESULT;
/* Append those of them that have this key to r->found. Moves the position. */
int reader_find_covered(struct reader *r, const void *key, size_t size_bytes, uint64_t covered,
                        struct err *err) CHECK_RESULT;
/* Append a number to r->found. */
int reader_found(struct reader *r, uint64_t number, struct err *err) CHECK_RESULT;
/* Append EMBEDDING rows from *item on, until they are max_bytes or the end. *item: the first that they do not cover. */
int reader_embedding_values(struct reader *r, enum msg_embedding kind, uint64_t *item, size_t max_bytes,
                            struct buf *rows, uint32_t *n_rows, struct err *err) CHECK_RESULT;

/* Within a read transaction: how many units there are; where the counters are damaged, at most so many: what the
 * manifest says of itself, which is no more than the file has room for. -EIO: nothing can be said. */
int reader_count_units(struct reader *r, uint32_t *ret, struct err *err) CHECK_RESULT;

#endif
