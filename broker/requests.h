/* requests.h - requests to the committer, and the clients that wait for their answers.
 *
 * Who may call: the loop's thread. Units: bytes, milliseconds. Memory: struct requests owns the questions, and the
 * requests that the committer has not taken yet. Errors: lack of memory fails the driver. */
#ifndef BLIPLINE_BROKER_REQUESTS_H
#define BLIPLINE_BROKER_REQUESTS_H

#include "broker/committer.h"
#include "broker/core_table.h"
#include "broker/driver.h"
#include "broker/peers.h"

#include <stdbool.h>
#include <stdint.h>

/* A client that waits for an answer from the committer. */
struct question {
    uint64_t peer, seq;
    uint32_t rows_refused; /* the job's count when the request was posted */
    bool is_rows;
    uint64_t n_bytes; /* of its rows */
    struct msg_job_control control;
    bool had_row; /* the job was open; so far its row had these: */
    enum stored_wanted wanted;
    int64_t ended_ms;
    bool retrying;
    uint32_t priority;
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

/* A request with a client that waits for its answer; `q` is copied. NULL: no memory. */
struct committer_request *requests_new(struct requests *r, enum committer_op op, uint64_t job,
                                       const struct question *q);
/* Post to the committer, now or as soon as it has room. Takes the request; NULL (no memory) fails the driver. */
void requests_post(struct requests *r, struct committer_request *request);
/* Post the requests that the committer had no room for. */
void requests_flush(struct requests *r);

/* The client that waits for this answer; NULL: none. */
const struct question *requests_question(const struct requests *r, uint64_t tag);
/* The same, and forget it, since it is being answered. False: none waits. */
bool requests_answered(struct requests *r, uint64_t tag, struct question *ret);

/* Keep a request until the disk has room: rows in the order of their items, other requests behind them. Takes it. */
void requests_retry_later(struct requests *r, struct committer_request **request);
/* Note that something waits for room on the disk. */
void requests_await_room(struct requests *r);
/* Post the requests that wait for room again. */
void requests_retry(struct requests *r);
/* Drop the job's requests that wait for room. */
void requests_drop(struct requests *r, uint64_t job);

#endif
