/* requests.h - what is asked of the committer, and who waits for the answer.
 *
 * Who may call: the loop's thread. Units: bytes, milliseconds. Memory: struct requests owns what was posted and has not
 * been taken by the committer, and the questions. Errors: what cannot be kept fails the driver. */
#ifndef BLIPLINE_BROKER_REQUESTS_H
#define BLIPLINE_BROKER_REQUESTS_H

#include "broker/committer.h"
#include "broker/core_table.h"
#include "broker/driver.h"
#include "broker/peers.h"

#include <stdbool.h>
#include <stdint.h>

/* A client that waits for an answer of the committer. */
struct question {
    uint64_t peer, seq;
    uint32_t rows_refused; /* of the job, when it was asked */
    bool is_rows;
    uint64_t n_bytes; /* of its rows */
};

struct requests {
    struct committer *committer;
    struct driver *driver;
    struct peers *peers;
    struct core_map questions; /* tag -> struct question */
    uint64_t last_tag;
    uint64_t unanswered_bytes;              /* of rows, all clients */
    struct waiting_request *backlog, **end; /* to be posted now */
    struct waiting_request *retry;          /* to be posted when the disk has room, by first_item */
    int64_t retry_at_ms;                    /* INT64_MAX: nothing waits for room */
};

void requests_init(struct requests *r, struct driver *driver, struct peers *peers);
void requests_release(struct requests *r);

/* A request whose answer somebody waits for: takes nothing of `q`. NULL: no memory. */
struct committer_request *requests_new(struct requests *r, enum committer_op op, uint64_t job,
                                       const struct question *q);
/* Post to the committer now or as soon as it takes it. Takes the request; NULL (no memory) fails the driver. */
void requests_post(struct requests *r, struct committer_request *request);
/* Post what waits only for the committer. */
void requests_flush(struct requests *r);

/* Who waits for this answer, NULL: nobody. */
const struct question *requests_question(const struct requests *r, uint64_t tag);
/* The same, and it waits no more: its rows have their answer. False: nobody. */
bool requests_answered(struct requests *r, uint64_t tag, struct question *ret);

/* Keep a request for later: in the order of their items, the rest behind. Takes it. */
void requests_retry_later(struct requests *r, struct committer_request **request);
/* Something waits for room on the disk. */
void requests_await_room(struct requests *r);
/* Post again what waits for room. */
void requests_retry(struct requests *r);
/* Forget what waits for room. */
void requests_drop(struct requests *r, uint64_t job);

#endif
