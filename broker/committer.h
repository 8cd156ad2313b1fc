/* committer.h - the one thread that owns the write transactions of all open job stores.
 *
 * Requests go in, exactly one completion comes out for each, in the order of requests of one job. What waits together
 * is committed together: many units share one transaction a store, and completions leave only after mdb_txn_commit.
 * While it has nothing to do, the thread builds the `keys` database of sealed stores.
 *
 * Who may call: one thread, the broker's loop; it and the committer share nothing but requests and completions. Between
 * the completion of OPEN and the request CLOSE the loop may also call store_info, store_pending, store_unit_items and
 *         store_free_bytes on the store it was given; they read what is committed.
 * Units:  bytes, milliseconds.
 * Memory: a posted request belongs to the committer, a taken completion to the caller. Bounded: what was posted and not
 * yet taken back as a completion is at most max_requests and max_bytes; beyond that committer_post says -EAGAIN.
 * Errors: of a request: in its completion, see there. -ENOSPC fails every request of the group; each can be posted
 * again. */
#ifndef BLIPLINE_BROKER_COMMITTER_H
#define BLIPLINE_BROKER_COMMITTER_H

#include "base/buf.h"
#include "base/err.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

struct committer;

struct committer_conf {
    uint32_t max_requests;   /* 0: 4096 */
    uint64_t max_bytes;      /* 0: 128 MiB */
    uint32_t group_ms;       /* a group is committed no later than this after its first request was taken; 0: 10 */
    uint32_t group_requests; /* ... or with this many requests; 0: 1024 */
    uint64_t group_bytes;    /* ... or this much payload; 0: 16 MiB */
    bool allow_network_fs;
    uint64_t min_free_bytes;       /* as in struct store_options */
    const struct store_seam *seam; /* tests */
};

enum committer_op {
    COMMITTER_OPEN,     /* path, create, meta */
    COMMITTER_ROWS,     /* rows, first_item */
    COMMITTER_SEAL,     /* durable when completed */
    COMMITTER_UNIT,     /* unit, records, ends, n_failed */
    COMMITTER_ATTEMPTS, /* unit, attempts */
    COMMITTER_CLOSE,    /* completed when all earlier requests of this job are */
};

/* No check of the order of ROWS. */
#define COMMITTER_ANY_ITEM UINT64_MAX

struct committer_request {
    enum committer_op op;
    uint64_t job; /* the caller's name for the store, given at OPEN, free again after CLOSE */
    uint64_t tag; /* repeated in the completion */

    /* OPEN */
    char *path; /* malloc'ed, owned */
    bool create;
    struct buf recipe, nodes, source; /* of a new store */
    uint32_t unit_items;

    /* ROWS: length-delimited Item rows (one or more row frames back to back) */
    struct buf rows;
    uint64_t
        first_item; /* the number its first row must get: a request that overtakes a failed one fails too (-EAGAIN) */

    /* UNIT, ATTEMPTS */
    uint32_t unit;
    uint32_t attempts;
    struct buf records; /* stored Records with CRC, back to back, in item order */
    uint32_t *ends;     /* [n_records] end offset of each in `records`; malloc'ed, owned */
    uint32_t n_records;
    uint32_t n_failed;
};

struct committer_completion {
    enum committer_op op;
    uint64_t job, tag;
    uint32_t unit;
    /* 0: durable (ROWS: queued, durable after SEAL or, but for the last unit_items-1 rows, already now).
     * -ENOSPC: post it again when there is room. -EALREADY: UNIT, ATTEMPTS: the unit is done, the first results stand.
     * -EAGAIN: ROWS out of order (see first_item). -EINVAL, -ENOENT, -EBADMSG: the request itself is wrong.
     * -EIO: the store is unusable. OPEN: as store_open. -EBADF: no store is open under `job`; -EEXIST: OPEN: one is. */
    int rc;
    struct store_counters counters; /* of the store, after this group */
    /* OPEN */
    struct store *store; /* borrowed until CLOSE is posted; read functions only */
    bool created;
    /* A failed request that can be posted again: -ENOSPC, -EAGAIN. Otherwise NULL. Owned by the completion: take it
     * (and null it here) to post it again. */
    struct committer_request *request;
    char text[]; /* why rc < 0, else empty */
};

int committer_start(const struct committer_conf *conf, struct committer **ret, struct err *err) CHECK_RESULT;
/* Commit what was posted, close every store, join the thread, free. Completions not taken are dropped: who wants them
 * calls committer_finish and takes them first. */
void committer_free(struct committer *c);
/* No more posts (-EPIPE); the descriptor stays readable and committer_take goes on until it returns NULL at the end. */
void committer_finish(struct committer *c);

/* An empty request; NULL: no memory. */
struct committer_request *committer_request_new(enum committer_op op, uint64_t job, uint64_t tag);
void committer_request_free(struct committer_request *r); /* NULL is fine */

/* Takes *r and nulls it. -EAGAIN: full, the request stays the caller's; take completions first. -EPIPE: finished. */
int committer_post(struct committer *c, struct committer_request **r) CHECK_RESULT;

/* Readable while completions wait. */
int committer_fd(const struct committer *c);
/* The oldest completion, or NULL. */
struct committer_completion *committer_take(struct committer *c);
/* As committer_take, waits up to timeout_ms (-1: for ever). */
struct committer_completion *committer_take_wait(struct committer *c, int64_t timeout_ms);
void committer_completion_free(struct committer_completion *done); /* NULL is fine */

/* For the status page: requests posted and not yet taken back, transactions committed so far. */
struct committer_stats {
    uint32_t n_waiting;
    uint64_t bytes_waiting;
    uint64_t n_commits;
    uint64_t n_requests;
};
void committer_stats(const struct committer *c, struct committer_stats *ret);

#endif
