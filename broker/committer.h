/* committer.h - the one thread that owns the write transactions of all open job stores.
 *
 * Requests go in, exactly one completion comes out for each; those of one job complete in the order of their requests.
 * What waits together is committed together: many units share a transaction, and completions leave only after it is
 * durable. While nothing waits, the thread builds the `keys` databases of sealed stores.
 *
 * Who may call: one thread, the broker's loop. Between the completion of OPEN and the posting of CLOSE it may call
 *         store_info, store_path, store_pending, store_unit_items and store_free_bytes on the store of the completion.
 * Units:  bytes, milliseconds.
 * Memory: a posted request belongs to the committer, a taken completion to the caller. What was posted and has not been
 *         taken back as a completion is at most max_requests and max_bytes (but always one): then committer_post says
 *         -EAGAIN.
 * Errors: those of a request are in its completion. A commit that fails, fails every request of its group. */
#ifndef BLIPLINE_BROKER_COMMITTER_H
#define BLIPLINE_BROKER_COMMITTER_H

#include "base/buf.h"
#include "base/err.h"
#include "broker/load.h"
#include "proto/model_contents.h"
#include "proto/stored.h"
#include "store/compare.h"
#include "store/job_table.h"
#include "store/store.h"
#include "wire/tensor.h"

#include <stdbool.h>
#include <stdint.h>

struct committer;

struct committer_conf {
    uint32_t max_requests;   /* 0: 4096 */
    uint64_t max_bytes;      /* 0: 128 MiB */
    uint32_t group_ms;       /* a group is committed this long after its first request, or sooner; 0: 10 */
    uint32_t group_requests; /* or with this many; 0: 1024 */
    uint64_t group_bytes;    /* or with this much payload; 0: 16 MiB */
    bool allow_network_fs;
    uint64_t min_free_bytes;       /* as in struct store_options */
    const struct store_seam *seam; /* for tests */
    const char *models;            /* the folder of models (model_folder.h); borrowed; NULL: none */
    struct job_table *table;       /* borrowed; only the thread uses it once an ENTRY was posted. NULL: none */
};

enum committer_op {
    COMMITTER_OPEN,    /* path, create, check, meta */
    COMMITTER_ROWS,    /* rows, n_rows, first_item */
    COMMITTER_COMPARE, /* rows, n_rows, begin: of a walk; new items are appended, others done again (store/compare.h) */
    COMMITTER_SOURCES, /* rows, n_rows: those of sources */
    COMMITTER_AGAIN,   /* rows, n_rows: as store_again; the completion's unit is the first that is concerned */
    COMMITTER_RETRY,   /* unit, control.codes: as store_retry; the completion's unit is the first that is concerned */
    COMMITTER_PUSH, /* rows, n_rows, pictures, offset: as store_push. Without rows, as store_push_wanted. A completion
                          with -EAGAIN comes from pictures that follow others which failed */
    COMMITTER_SEAL, /* first_item, disk_bytes. -EDQUOT: there is no room for what the job will take */
    COMMITTER_UNIT, /* unit, again, records, ends, n_records, n_failed, embeddings */
    COMMITTER_ATTEMPTS, /* unit, attempts, parts */
    COMMITTER_FIND,     /* sources, or rows, n_rows: as store_find. Answered like LOAD */
    COMMITTER_LOAD,     /* unit, max_units, max_bytes: as units_read; answered before those of the group that is open,
                           since it sees what is committed */
    COMMITTER_ENTRY, /* entry: a row of the job table; NULL: change the job's row as `control` says. Done at once, and
                           never given back */
    COMMITTER_LIST,  /* first_job, of_owner, owner: rows of the job table. Done at once */
    COMMITTER_MODEL, /* model: keep it, or read its files. Done at once, and never given back */
    COMMITTER_CLOSE, /* nothing more; after all earlier requests of the job */
};

/* first_item of a ROWS or SEAL request that may come in any order */
#define COMMITTER_ANY_ITEM UINT64_MAX

struct committer_model {
    struct model model;
    bool read;      /* read the files, else write the model, */
    bool has_files; /* and the files, too */
    struct model_contents files;
};

/* Fields of other operations stay as committer_request_new left them. */
struct committer_request {
    enum committer_op op;
    uint64_t job; /* the caller's name of the store, given at OPEN, free again after CLOSE */
    uint64_t tag; /* repeated in the completion */

    char *path; /* malloc'ed, owned */
    bool create, check;
    struct stored_job_meta *meta; /* malloc'ed, owned; of a new store, may be NULL without `create` */

    /* malloc'ed, owned. ENTRY: the row. OPEN: that of a job which may have none; it is put once the store is made */
    struct stored_job_entry *entry;

    struct msg_job_control control; /* ENTRY, RETRY */
    uint64_t first_job;             /* LIST: this one and larger ones; */
    bool of_owner;                  /* only those of `owner` */
    char owner[MSG_NAME_SIZE];

    struct committer_model *model; /* MODEL; malloc'ed, owned */

    struct msg_comparison *begin; /* malloc'ed, owned; of the first rows of a walk, else NULL */
    bool compared;                /* the committer's: what becomes of the rows is known, and at which turn */
    struct compared_rows walk_rows;
    struct msg_compared counts;
    uint64_t turn;

    struct buf rows; /* Item rows (proto/row.h) or Source rows (proto/row_source.h), row frames back to back */
    uint32_t n_rows;
    bool sources; /* FIND: those, not items */
    uint64_t
        first_item; /* the number its first row is to get, or would; another one: -EAGAIN (an earlier request failed) */

    uint64_t disk_bytes; /* of the whole store, estimated; 0: not to be checked */

    struct wire_tensor *pictures; /* U8, at most one frame; owned; NULL: no bytes */
    uint64_t offset;

    uint32_t unit;
    uint32_t max_units;
    size_t max_bytes;
    uint32_t attempts;
    struct buf parts;   /* as store_put_attempts has them */
    uint64_t *again;    /* as struct store_records has it; malloc'ed, owned; NULL: all items */
    struct buf records; /* stored Records (stored_record_encode) back to back, in item order */
    uint32_t *ends;     /* [n_records] end offset of each; malloc'ed, owned */
    uint32_t n_records;
    uint32_t n_failed;
    struct buf embeddings;                  /* as struct store_records has them */
    struct store_embedding *embedding_list; /* [n_embeddings]; malloc'ed, owned; NULL: none */
    uint32_t n_embeddings;
};

struct committer_completion {
    enum committer_op op;
    uint64_t job, tag;
    uint32_t unit;
    /* 0: durable. ROWS: but for the last items, which wait for their unit to fill or for SEAL.
     * -ENOSPC: post it again when there is room (`request`).
     * -EALREADY: UNIT, ATTEMPTS: the unit is done, the first results stand.
     * -EAGAIN: ROWS, SEAL: see first_item; COMPARE, SEAL: earlier rows of the walk have failed. Post it again after the
     * one that failed (`request`).
     * -EINVAL, -ENOENT, -EBADMSG, -EMSGSIZE, -EPERM, -EDQUOT: this request is wrong, nothing changed.
     * -EIO: the store is unusable until it is closed and opened again.
     * -EEXIST: OPEN: the job has a store already. -EBADF: the job has none. OPEN also: all of store_open. */
    int rc;
    const char *text;                    /* why rc < 0; "" otherwise. Lies in the completion */
    struct stored_job_counters counters; /* of the store, as committed; not of PUSH */
    uint64_t next_item;                  /* n_items and those that wait for their unit to fill */
    struct store *store;                 /* OPEN: to read from until CLOSE is posted; the committer's */
    bool created;                        /* OPEN */
    struct stored_job_entry *entry;      /* OPEN with a job table, ENTRY: the job's row; take it and null it here */
    uint32_t n_added, n_again;           /* COMPARE: items of this request that are new, and that are done again */
    struct msg_compared compared;        /* COMPARE: of all rows since `begin` */
    uint32_t next_unit;                  /* RETRY: go on with this one; UINT32_MAX: there are no more */
    struct units_read *load;             /* LOAD */
    uint64_t n_pushed;                   /* OPEN, PUSH: items whose pictures are here */
    struct buf found; /* FIND, PUSH: row frames back to back; take them and leave it empty. LIST: an array of
                                            struct stored_job_entry; of a damaged row only job and text */
    uint32_t n_found;
    struct committer_model *model;     /* MODEL: that of the request */
    uint64_t next_job;                 /* LIST: go on with this one; 0: there are no more */
    struct committer_request *request; /* with -ENOSPC and -EAGAIN: to be posted again; take it and null it here */
};

int committer_start(const struct committer_conf *conf, struct committer **ret, struct err *err) CHECK_RESULT;
/* No more posts. What was posted is still done, and its completions can be taken: committer_fd is readable without one
 * after the last. */
void committer_finish(struct committer *c);
/* committer_finish, wait, drop the completions that nobody took, close all stores, join the thread. NULL is fine. */
void committer_free(struct committer *c);

/* NULL: no memory. */
struct committer_request *committer_request_new(enum committer_op op, uint64_t job, uint64_t tag);
void committer_request_free(struct committer_request *r); /* NULL is fine */

/* Takes *r and nulls it. -EAGAIN: full, *r stays the caller's; take completions first. -EPIPE: finished. */
int committer_post(struct committer *c, struct committer_request **r) CHECK_RESULT;

/* Readable while completions wait (and once all is done after committer_finish). */
int committer_fd(const struct committer *c);
/* The oldest completion, or NULL. */
struct committer_completion *committer_take(struct committer *c);
void committer_completion_free(struct committer_completion *done); /* NULL is fine */

#endif
