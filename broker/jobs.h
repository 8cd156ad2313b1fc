/* jobs.h - the jobs of a broker: they are opened, filled, sealed, queried, stopped, closed.
 *
 * The core knows the state of a job (core_job_state_get). struct broker_job has what the core need not know: the job's
 * store, which clients have it open, and texts for people. A job is found by its id, and by the path of its store.
 *
 * Who may call: the loop's thread. Units: in the names. Memory: struct jobs owns the jobs and borrows the parts that it
 * points to. Errors: the client is told what is wrong; a failed job (broker_job_fail) does not affect other jobs. */
#ifndef BLIPLINE_BROKER_JOBS_H
#define BLIPLINE_BROKER_JOBS_H

#include "base/err.h"
#include "broker/committer.h"
#include "broker/core_table.h"
#include "broker/answers.h"
#include "broker/failures.h"
#include "broker/hung.h"
#include "broker/rate.h"
#include "broker/readings.h"
#include "broker/requests.h"
#include "broker/submissions.h"
#include "broker/units.h"
#include "proto/msg.h"
#include "wire/keys.h"
#include "wire/message.h"

#include <stdbool.h>
#include <stdint.h>

enum { JOBS_MAX = 4096, JOBS_DEFAULT_UNIT_ITEMS = 32 };

/* A client that has a job open, or that waits for the answer to JOB_CLOSE. */
struct job_holder {
    struct job_holder *next;
    uint64_t peer, seq;
};

/* A JOB_OPEN that waits for the store to be closed. */
struct job_reopen {
    uint64_t peer;
    struct msg message;
};

/* Of the store. */
enum broker_job_phase { BROKER_JOB_OPENING, BROKER_JOB_OPEN, BROKER_JOB_CLOSING };

struct broker_job {
    struct broker_job *next;
    uint64_t id;
    char owner[KEY_NAME_SIZE];      /* name of the peer that opened it first */
    struct stored_job_entry *entry; /* its row of the job table; NULL: a client's store */
    struct msg_job_open open;       /* as asked for; recipe and nodes are those of the store once it is open */
    enum broker_job_phase phase;
    struct store *store; /* while it is open */
    struct job_holder *holders, *closers;
    uint64_t sender;           /* of a submission: the client that opened it last and sends its items; 0: none so far */
    struct job_reopen *reopen; /* NULL: none */
    struct job_retry {
        bool begun;         /* failed items are being marked (jobs_retry.h) */
        uint32_t from_unit; /* the first with such an item; UINT32_MAX: none so far */
        uint64_t peer, seq; /* of the client that waits for the end; 0: none */
    } retry;
    bool resume; /* once the store is closed, open it again, without a client */
    struct stored_job_counters counters;
    uint64_t next_item;          /* number of the next row that is posted */
    uint64_t n_pushed;           /* items whose pictures the client has sent */
    char no_room[MSG_TEXT_SIZE]; /* why there is no room for more of them, while that is so */
    uint32_t n_comparing;        /* messages of rows that are being compared; their new items have no numbers yet */
    uint32_t rows_refused; /* how often; rows that were posted before a refusal and complete after it are refused too */
    struct job_units units;      /* those that the core holds */
    char blocked[MSG_TEXT_SIZE]; /* why the disk is full, while it is */
    char failed[MSG_TEXT_SIZE];  /* why the store cannot be used */
    char pause[MSG_TEXT_SIZE];   /* why paused */
    char unseen[MSG_TEXT_SIZE];  /* the latest worker that could not see its pictures, which, and why */
    struct failures failures;
    int64_t unschedulable_at_ms; /* since when no connected worker can do its units; 0: some can */
    uint64_t items_seen;         /* of all nodes, when the job was last looked at */
    int64_t moved_at_ms;         /* when they had grown */
    char waiting[MSG_TEXT_SIZE]; /* what the job waits for, once that has lasted; "" otherwise */
    struct msg_timing totals[MSG_MAX_NODES];
    struct rate finished; /* items done and redone */
};

/* What may be refused as too much. */
struct job_limits {
    size_t n_jobs, n_open;        /* of one owner: jobs in the table; jobs that are open */
    uint32_t n_messages;          /* of one client: messages of rows without an answer */
    uint64_t bytes, bytes_of_all; /* of their rows; and of the rows of all clients */
    uint64_t min_free_bytes;      /* on the disk */
};

struct jobs {
    struct driver *driver;
    struct requests *requests;
    struct answers *answers;
    struct peers *peers;
    struct units units;
    struct hung hung;
    const struct job_table *table; /* whose jobs these are; only the paths are asked of it. NULL: clients name stores */
    struct submissions submissions;
    struct job_limits limits;
    bool shutting_down;  /* no more jobs are opened */
    int64_t watch_at_ms; /* when watch.c looks at the jobs again */
    struct broker_job *first;
    struct core_map by_id;
    uint64_t last_id;
};

void broker_jobs_init(struct jobs *jobs, struct driver *driver, struct requests *requests, struct answers *answers,
                      struct peers *peers);
struct broker_job *broker_job_find(const struct jobs *jobs, uint64_t id);
/* -ENOMEM; it stays the caller's then. */
int broker_jobs_add(struct jobs *jobs, struct broker_job *job) CHECK_RESULT;
void broker_jobs_remove(struct jobs *jobs, struct broker_job *job);
void broker_jobs_release(struct jobs *jobs);
/* The client has the job open from now on, if it is still connected. */
void broker_job_hold(struct jobs *jobs, struct broker_job *job, uint64_t peer);
/* A job that is not sealed and that no client has open any more gets no more rows: stop it, so that it is closed. */
void broker_job_stop_if_abandoned(struct jobs *jobs, struct broker_job *job);
bool broker_job_is_cancelled(const struct broker_job *job);
/* Put the job's counts into its row. */
void broker_job_count(const struct broker_job *job, struct stored_job_entry *entry);
/* Write the job's row of the job table as it is; it must have one. */
void broker_job_put_entry(struct jobs *jobs, const struct broker_job *job);
/* Write the job's row of the job table, if it has one and is not cancelled. `ended_ms` 0: it has not ended. `text`: why
 * it does not go on. */
void broker_job_record(struct jobs *jobs, const struct broker_job *job, enum stored_wanted wanted, int64_t ended_ms,
                       const char *text);
/* The job that `m` names. NULL: it is not open here, and the peer has been told. */
struct broker_job *broker_job_or_refuse(struct jobs *jobs, uint64_t peer, const struct msg *m);
/* Its store is closed: answer the clients that wait for that. */
void broker_job_tell_closers(struct jobs *jobs, const struct broker_job *job);
/* In any state; its leases become void. Doing so again is fine. */
void broker_job_begin_close(struct jobs *jobs, struct broker_job *job);

/* Open the jobs of the table that have not ended, at the start. */
int broker_jobs_resume(struct jobs *jobs, struct job_table *table, struct err *err) CHECK_RESULT;

/* Bytes that may still be written where the broker keeps its jobs; 0 without a job table. */
uint64_t jobs_disk_room(const struct jobs *jobs);

/* What clients ask. */
void broker_job_open(struct jobs *jobs, uint64_t peer, const struct msg *m);
/* JOB_ROWS, JOB_AGAIN, JOB_PUSH */
void broker_job_rows(struct jobs *jobs, uint64_t peer, struct wire_message *message);
void broker_job_seal(struct jobs *jobs, uint64_t peer, const struct msg *m);
void broker_job_find_rows(struct jobs *jobs, uint64_t peer, struct wire_message *message); /* JOB_FIND */
void broker_job_close(struct jobs *jobs, uint64_t peer, const struct msg *m);
void broker_job_read(struct jobs *jobs, struct readings *readings, const struct peer *p,
                     const struct msg *m); /* STORE_READ */
/* JOB_LIST, JOB_CONTROL */
void broker_jobs_list(struct jobs *jobs, const struct peer *p, const struct msg *m);
void broker_job_control(struct jobs *jobs, const struct peer *p, const struct msg *m);
/* The peer is gone: it has no job open any more. */
void broker_jobs_let_go(struct jobs *jobs, uint64_t peer);

/* Completions of the committer for these requests. */
void broker_job_on_open(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                        const struct question *q);
void broker_job_on_rows(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done,
                        const struct question *q);
void broker_job_on_pushed(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                          const struct question *q);
void broker_job_on_seal(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done,
                        const struct question *q);
void broker_job_on_found(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                         const struct question *q);
void broker_jobs_on_listed(struct jobs *jobs, struct committer_completion *done, const struct question *q);
/* `job` NULL: it is not open. */
void broker_job_on_controlled(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                              const struct question *q);
void broker_job_on_closed(struct jobs *jobs, struct broker_job *job);

/* The job has ended: close it, unless a client has it open. */
void broker_job_ended(struct jobs *jobs, struct broker_job *job);
/* The core has forgotten the job: close its store. */
void broker_job_close_store(struct jobs *jobs, struct broker_job *job);
/* The job's store cannot be used. */
void broker_job_fail(struct jobs *jobs, struct broker_job *job, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* JOB_PUSH, once it may be posted. */
void broker_job_push(struct jobs *jobs, struct peer *p, struct broker_job *job, struct wire_message *message);
/* The disk is too full for the pictures that the client sends. */
void broker_job_no_room(struct jobs *jobs, struct broker_job *job, const char *text);
/* Write why pictures do not come, unless the core holds units (n_loaded) that have theirs. */
void broker_job_explain_push(const struct broker_job *job, uint32_t n_loaded, char *text, size_t size);
/* The pictures for these rows of a WORK, as a tensor; NULL: they have none. */
int push_tensor(const struct broker_job *job, const struct core_work *work, const struct row_frame *rows,
                struct wire_tensor **ret, struct err *err) CHECK_RESULT;
/* The worker cannot see the pictures of the lease's job. Call before the core learns of it. */
void broker_job_unseen(struct jobs *jobs, const struct peer *p, const struct core_lease_ref *lease, const char *what);
/* The disk is too full for what the job has to write. */
void broker_job_block(struct jobs *jobs, struct broker_job *job, const char *text);

#endif
