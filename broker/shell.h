/* shell.h - what the parts of the broker's shell share; nobody outside broker/ includes this.
 *
 *   server.c    start, loop, shutdown: the only place that sleeps
 *   messages.c  what peers say becomes core events or job requests
 *   jobs.c      open, import, seal, progress
 *   requests.c  what is asked of the committer, and its answers
 *   actions.c   what the core decides becomes messages and commits
 *   work.c      the message of a lease
 *   results.c   a worker's result is checked against its lease and its job
 *   units.c     units in hand, with the rows of their items
 *   watch.c     units that nobody here can compute
 *   lost.c      workers whose connection is lost: do their processes live?
 *   failures.c  which items failed, and why a job pauses
 *   progress.c  what is said of a job; hung workers; counters
 *   payloads.c  results between their arrival and their commit
 *
 * Who may call: the loop thread. Units: in the names. Memory: struct broker owns everything.
 * Errors: negative errno where a call can fail; -ENOMEM and -EIO end the loop. */
#ifndef BLIPLINE_BROKER_SHELL_H
#define BLIPLINE_BROKER_SHELL_H

#include "broker/committer.h"
#include "broker/core.h"
#include "broker/core_table.h"
#include "broker/payloads.h"
#include "broker/server.h"
#include "proto/msg.h"
#include "proto/row.h"
#include "wire/broker_socket.h"

#include <sys/types.h>

enum { BROKER_DEFAULT_UNIT_ITEMS = 32, BROKER_MAX_JOBS = 4096 };

struct broker_peer {
    uint64_t number;
    enum msg_role role; /* 0: has not said HELLO */
    enum stage stage;
    enum dtype dtype;
    struct fingerprint fingerprint;
    char model[MSG_NAME_SIZE], host[MSG_NAME_SIZE];
    uint32_t hello_pid;          /* of the process, as it says */
    char benched[MSG_TEXT_SIZE]; /* why; "": it is not */
    uint32_t n_bad;
    pid_t pid;          /* of a worker on this machine; 0: not known */
    uint32_t n_refused; /* within the time that began at refused_at_ms */
    int64_t refused_at_ms;
    bool drop; /* it is to be dropped, once its message is dealt with */
    /* of a client's rows: those without an answer yet; some were refused, and it has not opened the job again since */
    uint32_t n_unanswered;
    uint64_t unanswered_bytes;
    bool rows_refused;
};

/* A worker whose connection is lost, on this machine. */
struct broker_lost {
    struct broker_lost *next;
    uint64_t peer;
    pid_t pid;
};

/* Failed items of this run, to say why it pauses. */
struct broker_failures {
    struct broker_failed_code {
        char code[MSG_CODE_SIZE];
        uint64_t n;
    } codes[8];          /* "": free; those that find no place are not counted */
    uint32_t unit, item; /* the last one, counted within its unit */
    char text[256];      /* what it said */
};

/* A client that has a job open, or waits for the answer to JOB_CLOSE. */
struct broker_holder {
    struct broker_holder *next;
    uint64_t peer, seq;
};

/* A JOB_OPEN that waits for the store to be closed. */
struct broker_reopen {
    uint64_t peer;
    struct msg message;
};

/* Of the store. What the job is at, the core knows. */
enum broker_job_phase { BROKER_JOB_OPENING, BROKER_JOB_OPEN, BROKER_JOB_CLOSING };

struct broker_job {
    struct broker_job *next;
    uint64_t id;
    struct msg_job_open open; /* as asked for; recipe and nodes are those of the store once it is open */
    enum broker_job_phase phase;
    struct store *store; /* while it is open */
    struct broker_holder *holders, *closers;
    struct broker_reopen *reopen; /* NULL: none */
    struct stored_job_counters counters;
    uint64_t next_item;         /* number of the next row that is posted */
    uint32_t n_comparing;       /* messages of rows that may become items, and get their numbers then */
    uint32_t rows_refused;      /* how often; what was posted before the last time and comes behind it is refused too */
    struct core_map units;      /* unit + 1 -> struct unit_rows, for units that the core holds */
    bool load_held;             /* it waits with its next ones */
    uint32_t load_from, load_max;
    char blocked[MSG_TEXT_SIZE]; /* why the disk is full, while it is */
    char failed[MSG_TEXT_SIZE];  /* why the store cannot be used */
    char pause[MSG_TEXT_SIZE]; /* why paused */
    struct broker_failures failures;
    int64_t starved_at_ms;       /* units wait that nobody here can compute, since then; 0: not so */
    uint64_t items_seen;         /* of all nodes, when the job was last looked at */
    int64_t moved_at_ms;         /* when they had grown */
    char waiting[MSG_TEXT_SIZE]; /* what the job waits for, once that has lasted; "" otherwise */
    struct msg_timing totals[MSG_MAX_NODES];
};

/* A client that waits for an answer of the committer. */
struct broker_question {
    uint64_t peer, seq;
    uint32_t rows_refused; /* of the job, when it was asked */
    bool is_rows;
    uint64_t n_bytes; /* of its rows */
};

/* A request that the committer could not take or could not do yet. */
struct broker_backlog {
    struct broker_backlog *next;
    struct committer_request *request;
};

/* A worker that does not get anywhere, to be told to whoever started it. */
struct broker_hung {
    struct msg_hung_worker worker;
    int64_t at_ms; /* 0: none */
};

struct broker {
    const struct broker_conf *conf;
    struct broker_socket *socket;
    struct committer *committer;
    struct core *core;
    struct core_actions actions;
    uint64_t epoch;
    int64_t now_ms;
    struct core_map peers;     /* number -> struct broker_peer */
    struct payloads payloads;
    struct core_map questions; /* tag -> struct broker_question */
    uint64_t unanswered_bytes; /* of rows, all clients */
    uint64_t unit_rows_bytes;  /* of units in hand, all jobs */
    uint32_t n_loads_held;
    uint64_t next_tag, next_job;
    struct broker_job *jobs;
    struct broker_backlog *backlog, **backlog_end; /* to be posted now */
    struct broker_backlog *retry;                  /* to be posted when the disk has room, by first_item */
    int64_t retry_at_ms, watch_at_ms, watchdog_at_ms;
    struct broker_lost *lost;
    struct broker_hung hung[MSG_MAX_HUNG]; /* the latest, in a ring */
    uint32_t n_hung;
    uint64_t n_refusals, n_bad_messages;
    struct core_event *pending; /* events that actions gave rise to */
    size_t n_pending, pending_capacity;
    bool shutting_down, drained;
    int failed; /* -EIO, -ENOMEM: ends the loop */
    struct err why;
};

/* server.c */
/* Feed the core and carry out what it says, and what follows from that. Returns what core_step said of the event. */
int broker_feed(struct broker *b, const struct core_event *event);
/* Feed it after the actions at hand are through; what it points to must live until then. */
void broker_feed_later(struct broker *b, const struct core_event *event);
/* Feed it what is left for later. */
void broker_feed_rest(struct broker *b);
void broker_fail(struct broker *b, int rc, const char *fmt, ...) PRINTF_LIKE(3, 4);
void broker_send(struct broker *b, uint64_t peer, const struct msg *m);
/* WELCOME, to a worker that the core took in or a client; seq 0 for workers. */
void broker_welcome(struct broker *b, uint64_t peer, uint64_t seq);
/* No new leases; the loop ends when the core says DRAINED. Asking again does nothing. */
void broker_begin_shutdown(struct broker *b);
void broker_refuse(struct broker *b, uint64_t peer, uint64_t seq, enum msg_reason reason, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

/* messages.c */
void broker_handle(struct broker *b, struct broker_socket_event *event);
void broker_forget_peer(struct broker *b, uint64_t number);
/* A message of this peer was refused. */
void broker_note_refusal(struct broker *b, uint64_t number);

/* jobs.c */
struct broker_job *broker_job_find(struct broker *b, uint64_t id);
void broker_job_open(struct broker *b, uint64_t peer, const struct msg *m);
void broker_job_rows(struct broker *b, uint64_t peer, struct wire_message *message); /* JOB_ROWS, JOB_AGAIN */
void broker_job_seal(struct broker *b, uint64_t peer, const struct msg *m);
void broker_job_query(struct broker *b, uint64_t peer, const struct msg *m);
void broker_job_stop(struct broker *b, uint64_t peer, const struct msg *m);
void broker_job_close(struct broker *b, uint64_t peer, const struct msg *m);
/* The peer has no job open any more. */
void broker_jobs_let_go(struct broker *b, uint64_t peer);
/* It has come to an end: close it, unless a client has it open. */
void broker_job_ended(struct broker *b, struct broker_job *job);
/* Its store cannot be used. */
void broker_job_fail(struct broker *b, struct broker_job *job, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* What it asked for could not be written. */
void broker_job_block(struct broker *b, struct broker_job *job, const char *text);
void broker_jobs_free(struct broker *b);
/* Answers of the committer, to what a client asked. */
void broker_on_open(struct broker *b, struct broker_job *job, const struct committer_completion *done,
                    const struct broker_question *q);
void broker_on_rows(struct broker *b, struct broker_job *job, const struct committer_completion *done,
                    const struct broker_question *q);
void broker_on_seal(struct broker *b, struct broker_job *job, const struct committer_completion *done,
                    const struct broker_question *q);
/* Its store is closed. */
void broker_on_closed(struct broker *b, struct broker_job *job);

/* units.c */
/* What CORE_DO_LOAD_UNITS asks for, now or when other units are through. */
void broker_units_load(struct broker *b, struct broker_job *job, uint32_t from_unit, uint32_t max_units);
/* Those that wait, if they may go on. */
void broker_units_held(struct broker *b);
void broker_on_load(struct broker *b, struct broker_job *job, struct units_load *load);
/* NULL: the core does not hold it. */
const struct unit_rows *broker_unit(const struct broker_job *job, uint32_t unit);
void broker_unit_drop(struct broker *b, struct broker_job *job, uint32_t unit);
void broker_units_free(struct broker *b, struct broker_job *job);

/* requests.c */
/* A request whose answer somebody waits for; n_bytes: of the rows of `message`, where it has some. NULL: no memory. */
struct committer_request *broker_request_for(struct broker *b, enum committer_op op, const struct broker_job *job,
                                             uint64_t peer, const struct msg *m, uint64_t n_bytes);
void broker_requests_free(struct broker *b);
/* Something waits for room on the disk. */
void broker_requests_retry(struct broker *b);
/* Forget what waits for room on the disk. */
void broker_requests_drop(struct broker *b, uint64_t job);
/* Post to the committer now or as soon as it takes it. Takes the request; NULL (no memory) fails the broker. */
void broker_post(struct broker *b, struct committer_request *request);
void broker_completions(struct broker *b);
/* Requests that wait for room on the disk; blocked jobs. Returns when to be called again. */
int64_t broker_retry_due(struct broker *b);

/* actions.c */
void broker_act(struct broker *b, const struct core_action *action);

/* failures.c */
void broker_note_failure(struct broker_job *job, uint32_t unit, uint32_t item, const struct row_record *record);
/* Why the core paused the job, into job->pause. `given_up`: why no worker could do the last one; NULL: one could. */
void broker_explain_pause(struct broker_job *job, uint64_t n_failed, uint64_t n_finished, const char *given_up);

/* progress.c */
void broker_progress(const struct broker *b, const struct broker_job *job, struct msg_job_progress *ret);
void broker_note_hung(struct broker *b, uint64_t peer, const char *text);
void broker_log_counters(const struct broker *b, const struct broker_job *job);

/* watch.c */
/* Look at jobs that stand still, if it is time. Returns when to be called again. */
int64_t broker_watch(struct broker *b);

/* lost.c */
/* The process of a worker that says HELLO, if it can be seen from here; otherwise 0. */
pid_t broker_lost_pid(const struct msg_hello *hello);
/* The worker's connection is lost. */
void broker_lost_add(struct broker *b, uint64_t peer, pid_t pid);
void broker_lost_forget(struct broker *b, uint64_t peer);
/* Tell the core of those that have ended. Returns when to be called again. */
int64_t broker_lost_look(struct broker *b);
void broker_lost_free(struct broker *b);

/* work.c */
int broker_work_message(struct broker *b, const struct core_work *work, struct wire_message **ret,
                        struct err *err) CHECK_RESULT;

/* graph.c */
/* Can the graph be done as the recipe says? -EINVAL, err says what cannot. */
int broker_check_graph(const struct msg_job_open *open, struct err *err) CHECK_RESULT;

/* results.c */
/* Does the graph give the embeddings that the recipe asks for, each once, and no others? -EINVAL. */
int broker_check_embeddings(const struct msg_job_open *open, struct err *err) CHECK_RESULT;
/* Which tensors that the lease was given are not what their makers said: bit k, those of node k. */
uint32_t broker_refused_inputs(struct broker *b, const struct core_lease_ref *ref);
/* A worker's RESULT becomes an event for the core. Takes the message. */
void broker_result(struct broker *b, uint64_t peer, struct wire_message **message);

#endif
