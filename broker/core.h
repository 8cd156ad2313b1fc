/* core.h - the scheduler state machine: jobs, units, leases and workers.
 *
 * The shell (sockets, committer, clock) turns what happens into events. core_step() takes one event and appends the
 * actions that the shell carries out, in order. The core has no sockets, files, clocks, randomness or logs, so that the
 * simulator can replay every fault from a seed.
 *
 * The life of a unit: the shell loads it from the store (CORE_DO_LOAD_UNITS -> CORE_EVENT_UNITS). It becomes one
 * subunit, or several once it was split. A subunit runs through every node of its job's graph, one lease a node, and
 * every node leaves a payload. When all subunits are finished, CORE_DO_COMMIT names the payloads to write, and
 * CORE_EVENT_COMMITTED ends the unit.
 *
 * Rules that the shell may rely on:
 *  - A result counts only under its own (epoch, lease, peer). Every other result is counted and its payload dropped.
 *  - A lease that ends otherwise than by RESULT, RETURN or a clean GONE raises the unit's attempts, durably. If several
 *    leases of a subunit end that way, only the first one counts. From then on the subunit is suspect and runs
 *    exclusively: its worker holds nothing else, so no neighbour takes the blame. A suspect subunit that fails again is
 *    split, and its pieces run exclusively, too, down to the bad item, which is quarantined after max_attempts. The
 *    pieces of a unit and the failures of each are as durable as its attempts.
 *  - A lost connection (GONE, neither clean nor ended) is no failure. The leases go on until they expire, or until the
 *    process says HELLO under another connection and names the leases that it still holds. The others are returned
 *    without blame.
 *  - A first-node lease reserves the subunit's peak tensor bytes for its whole way through the graph, so that no later
 *    node waits for memory. A subunit larger than the whole budget runs when nothing else holds memory.
 *  - Rows kept for commits are bounded in the same way: a subunit that starts reserves what its rows will take,
 *    estimated from earlier results of its job. Nothing starts beyond row_bytes unless nothing else is going on. At
 *    most row_bytes are kept; one subunit may be larger, and subunits that started before their job's first results
 *    may exceed the limit once.
 *  - A worker whose lease expired, or that was not heard for lease_ms, gets no work until it is heard again. After
 *    worker_ms it is forgotten, so workers send heartbeats even when they hold nothing. A worker that is heard but lets
 *    leases expire is on trial: one lease at a time, with growing pauses, until it ends a lease itself. Units are not
 *    blamed for what expires on trial.
 *  - A worker that keeps failing or returning leases, or whose tensors are refused, gets one lease at a time, with
 *    growing pauses, until it gives a good result. Units are not blamed for its failures while another worker could do
 *    them. A failed subunit goes to another worker if there is one, and no item is quarantined before two workers have
 *    failed it.
 *  - A lease that lasts far longer than others did ends in any case (stall_ms, first_stall_ms), and its worker is cut
 *    off. CORE_DO_HUNG names workers that make no progress, so that whoever started them can end them.
 *  - A surge of failures (so many items in a row, or so large a share of them: see JOB_OPEN) pauses the job before the
 *    failures are written: CORE_DO_JOB_PAUSED. Units that end with failed items are held until a good item follows or
 *    until nothing else is left to do. A surge puts the held units, and those that fail afterwards, back among the
 *    units to do. Items that are done again do not count, since they lose nothing; nor do items known to fail.
 *  - A payload handed over with RESULT belongs to the core until CORE_DO_DROP_PAYLOAD names it, which happens once.
 *  - If the shell steps the core later than a thirtieth of lease_ms after core_next_deadline, the process was stopped:
 *    the core's clock stood still meanwhile, and the next deadline is a third of lease_ms away, so that workers can be
 *    heard first.
 *
 * Who may call: one thread, the broker's loop. Units: times are monotonic milliseconds that never go back, sizes bytes.
 * Memory: what events point to is read during the call only. What actions point to is valid until the next core_step or
 * core_actions_clear. Errors: see core_step. Bytes of peers never trip an assertion; misuse by the shell does. */
#ifndef BLIPLINE_BROKER_CORE_H
#define BLIPLINE_BROKER_CORE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/fingerprint.h"
#include "base/stage.h"
#include "broker/core_bugs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CORE_MAX_NODES = 8,
    CORE_MAX_UNIT_ITEMS = 1024, /* items of one unit */
    CORE_MASK_WORDS = CORE_MAX_UNIT_ITEMS / 64,
    CORE_CODE_BYTES = 32,  /* longest kept failure code, NUL included */
    CORE_TEXT_BYTES = 256, /* longest kept failure text, NUL included */
    CORE_SHARE_ITEMS = 100 /* a share of failures is looked at from so many finished items on */
};

struct core;

struct core_limits {
    uint64_t memory_bytes;  /* tensors kept between nodes, all jobs */
    uint64_t row_bytes;     /* rows kept for commits, all jobs */
    int64_t lease_ms;       /* a lease not extended for this long is void */
    int64_t worker_ms;      /* a worker not heard for this long is forgotten; > lease_ms */
    int64_t stall_ms;       /* a lease may last so long, and as much longer as the others' speed says */
    int64_t first_stall_ms; /* the same while there is no speed to measure by: so long without an item done */
    uint32_t max_given_up;  /* so many quarantined items in a row pause a job that lets any number fail; 0: none does */
    uint32_t max_attempts;  /* failures of a single item before quarantine */
    uint32_t
        max_unblamed; /* RETURNs and lost payloads of a subunit that go without blame; later ones count as failures */
    uint32_t window_units;      /* units of one job held in memory */
    uint32_t max_jobs;          /* open at once */
    uint32_t max_workers;       /* connected at once; more are refused */
    uint32_t max_pools;         /* distinct (stage, fingerprint) among connected workers */
    uint32_t max_worker_items;  /* a worker's window is cut to this */
    uint32_t max_worker_leases; /* held by one worker */
    enum core_bug bug;          /* none but in the simulator's planted-bug tests */
};

/* Everything set; memory_bytes is 8 GiB, row_bytes 1 GiB. */
struct core_limits core_limits_default(void);

/* -- graph of a job ------------------------------------------------------------------------------------------------ */

/* Nodes are in topological order. Every node reaches the items that no earlier node has failed. */
struct core_node {
    enum stage stage;
    uint32_t needs;     /* bit i: consumes the output of node i, i < this node; 0: a first node */
    uint64_t out_bytes; /* tensor bytes an item leaves behind; at most 2^40. 0: rows alone */
    uint64_t row_bytes; /* what an item's kept rows will take, as far as known; results correct it upwards */
    struct fingerprint fingerprint; /* of the workers that may run it; none: any of the stage */
};

/* Most tensor bytes that one item may keep alive at once on its way through the graph, a finished node's output and
 * inputs counted together. Any order of completion is allowed for. */
uint64_t core_graph_peak_bytes(const struct core_node *nodes, uint32_t n_nodes);
/* 0, or -EINVAL with the first thing that is wrong. */
int core_graph_check(const struct core_node *nodes, uint32_t n_nodes, struct err *err) CHECK_RESULT;

/* -- events: what happened ----------------------------------------------------------------------------------------- */

enum core_event_type {
    CORE_EVENT_TICK = 0,    /* what is due; after all that has come from peers, so that it counts */
    CORE_EVENT_JOB_OPEN,    /* .job_open */
    CORE_EVENT_JOB_START,   /* .job: resume after JOB_STOP or CORE_DO_JOB_PAUSED */
    CORE_EVENT_JOB_STOP,    /* .job: no new first-node leases; CORE_DO_JOB_STOPPED follows */
    CORE_EVENT_JOB_CLOSE,   /* .job: forget it; leases void, payloads dropped; CORE_DO_JOB_CLOSED follows, after the
                                 answers to outstanding COMMITs and LOAD_UNITS */
    CORE_EVENT_JOB_FAILED,  /* .job_failed: its store cannot be used; see CORE_JOB_FAILED */
    CORE_EVENT_JOB_SEALED,  /* .job: the manifest is complete, until UNITS_ADDED */
    CORE_EVENT_UNITS_ADDED, /* .job: new units after the last ones loaded; the job is not sealed (any more), nor done */
    CORE_EVENT_UNITS_AGAIN, /* .units_again: units that were done have items to be done again */
    CORE_EVENT_UNITS,       /* .units: the answer to CORE_DO_LOAD_UNITS */
    CORE_EVENT_HELLO,       /* .hello: answered by WELCOME or REFUSE */
    CORE_EVENT_CREDIT,      /* .credit */
    CORE_EVENT_HEARTBEAT,   /* .heartbeat */
    CORE_EVENT_GONE,        /* .gone */
    CORE_EVENT_RESULT,      /* .result */
    CORE_EVENT_FAILURE,     /* .failure: the worker could not do it */
    CORE_EVENT_RETURN,      /* .lease: returned without blame */
    CORE_EVENT_PAYLOAD_LOST, /* .payload: its tensors cannot be had any more; the subunit starts again, without blame */
    CORE_EVENT_COMMITTED,    /* .commit: durable */
    CORE_EVENT_COMMIT_FAILED, /* .commit: not durable; the job is blocked until DISK_OK, then COMMIT comes again */
    CORE_EVENT_DISK_FULL,     /* .job: something else of it could not be written; the job is blocked until DISK_OK */
    CORE_EVENT_DISK_OK,       /* .job, or 0 for all jobs: worth trying again */
    CORE_EVENT_SHUTDOWN,      /* no new leases at all; CORE_DO_DRAINED when leases and commits have ended */
    CORE_N_EVENTS
};

struct core_unit_row {
    uint32_t unit;
    uint32_t n_items;  /* 1..CORE_MAX_UNIT_ITEMS */
    uint32_t attempts; /* as last made durable, and so is `subunits` */
    /* Of a unit that was split: 1 + the failures of the subunit that begins at item i; 0: none begins there. All 0: the
     * unit is whole. */
    uint8_t subunits[CORE_MAX_UNIT_ITEMS];
    bool is_again; /* it was done before: now only the items of `again`, at least one */
    uint64_t again[CORE_MASK_WORDS];
    uint64_t bad[CORE_MASK_WORDS]; /* items whose own list says that they fail: they say nothing about the source */
};

/* Who says something about which lease. All from the wire, all untrusted but `peer`. */
struct core_lease_ref {
    uint64_t peer, epoch, lease;
};

struct core_event {
    enum core_event_type type;
    union {
        uint64_t job;
        uint64_t payload;
        struct core_lease_ref lease;
        struct {
            uint64_t job;                  /* not 0, not open */
            uint32_t priority;             /* share of workers; 0: 100 */
            bool sealed;                   /* the manifest is complete */
            bool stopped;                  /* begin as after JOB_STOP */
            uint32_t max_failures;         /* so many failed items in a row pause the job; 0: any number may fail */
            uint32_t max_failed_per_mille; /* so do more than this of all finished ones, once there are
                                              CORE_SHARE_ITEMS; 0: any share may fail */
            uint32_t n_nodes;
            const struct core_node *nodes; /* core_graph_check said 0 */
        } job_open;
        struct {
            uint64_t job;
            const char *text; /* why; cut to CORE_TEXT_BYTES */
        } job_failed;
        struct {
            uint64_t job;
            uint32_t from_unit; /* the first of them */
        } units_again;
        struct {
            uint64_t job;
            uint32_t n;                 /* at most `max` of the action */
            struct core_unit_row *rows; /* to be done, ascending, from `from_unit` on */
            bool exhausted;             /* the manifest holds no further ones now */
        } units;
        struct {
            uint64_t peer;  /* the shell's handle of the connection, never reused */
            uint64_t host;  /* hash of the host's name: where tensors are near */
            uint64_t nonce; /* of the process: (host, nonce) known under another peer: that one is replaced */
            enum stage stage;
            struct fingerprint fingerprint; /* none: device null */
            uint32_t window_items;
            uint64_t window_bytes; /* of input tensors */
            uint64_t epoch;        /* of the leases that it holds; 0: it does not say which */
            const uint64_t *leases;
            uint32_t n_leases;
        } hello;
        struct {
            uint64_t peer;
            uint32_t window_items; /* absolute; 0: nothing new */
            uint64_t window_bytes;
        } credit;
        struct {
            uint64_t peer, epoch;
            const uint64_t *leases; /* extends exactly these */
            uint32_t n;
            uint64_t items; /* that it has done, as it says */
        } heartbeat;
        struct {
            uint64_t peer;
            bool clean; /* BYE: what it still held is returned without blame */
            bool ended; /* its process is no more: what it held has failed. May follow a GONE that did not know */
        } gone;
        struct {
            struct core_lease_ref lease;
            uint64_t payload;   /* rows and tensors, not 0, a new handle each time */
            uint32_t n_rows;    /* rows in the result; must be the number of items of the WORK */
            const uint64_t *ok; /* bit r: row r is no error, (n_rows + 63) / 64 words; NULL: all are */
            bool keep_rows;     /* the rows hold something for the store: keep them until the commit. Errors are always
                                   kept. Others live as long as tensors would: until the last consumer is done */
            uint64_t row_bytes; /* what keeping them takes */
        } result;
        struct {
            struct core_lease_ref lease;
            const char *code; /* a word, and a sentence for people; cut to CORE_CODE_BYTES, CORE_TEXT_BYTES; NULL: "" */
            const char *text;
            bool bad_result; /* what it sent was not what was asked for */
            uint32_t
                refused; /* bit k: the tensors of node k that it got are not what their maker said: not its fault */
        } failure;
        struct {
            uint64_t job;
            uint32_t unit;
        } commit;
    };
};

/* -- actions: what to do ------------------------------------------------------------------------------------------- */

enum core_action_type {
    CORE_DO_WELCOME,     /* .peer */
    CORE_DO_REFUSE,      /* .refuse: then forget the peer */
    CORE_DO_BENCH,       /* .bench: what this worker did went wrong again and again; or it is trusted again */
    CORE_DO_HUNG,        /* .hung: this worker gets nowhere */
    CORE_DO_HELLO_AGAIN, /* .peer: it speaks but is not known (timed out, replaced, refused): make it say HELLO again */
    CORE_DO_FORGET_PEER, /* .peer: silent too long, lost or replaced; the core knows it no more */
    CORE_DO_WORK,        /* .work: send it */
    CORE_DO_DROP_TENSORS, /* .payload: tensors had their last consumer; rows are needed until the commit */
    CORE_DO_DROP_PAYLOAD, /* .payload: all of it; the handle is dead */
    CORE_DO_LOAD_UNITS,   /* .load: answer with CORE_EVENT_UNITS; one outstanding a job */
    CORE_DO_ATTEMPTS,     /* .attempts: make durable; no answer */
    CORE_DO_COMMIT,       /* .commit: answer with COMMITTED or COMMIT_FAILED */
    CORE_DO_JOB_DONE,     /* .job: sealed, and every unit committed */
    CORE_DO_JOB_PAUSED,   /* .paused: as if by JOB_STOP, since failures surge; CORE_DO_JOB_STOPPED follows */
    CORE_DO_JOB_STOPPED,  /* .job: nothing in flight any more (commits that failed on a full disk excepted) */
    CORE_DO_JOB_CLOSED,   /* .job: the id may be used again */
    CORE_DO_DRAINED,      /* shutdown is complete */
    CORE_N_ACTIONS
};

enum core_refuse_reason { CORE_REFUSE_LIMIT, CORE_REFUSE_BAD_MESSAGE, CORE_REFUSE_DRAINING, CORE_REFUSE_STALLED };

/* Masks: bit i of word i / 64 is the subunit's item `first + i` (items are counted within the unit); `count` bits. */
struct core_input {
    uint64_t payload;
    uint32_t node;      /* whose output it is */
    uint32_t n_tensor;  /* bits set in ok */
    const uint64_t *ok; /* items with a row in its tensors, in order; may be more than the WORK's items */
};

struct core_work {
    uint64_t peer, epoch, lease, job;
    uint32_t unit, node;
    uint32_t attempt; /* 0, 1, ..: failures of this subunit so far */
    uint32_t first, count;
    uint32_t n_items;      /* bits set in items: the rows of the WORK */
    const uint64_t *items; /* those that no earlier node has failed */
    uint32_t n_inputs;
    struct core_input inputs[CORE_MAX_NODES]; /* in node order */
    bool exclusive;                           /* the worker holds nothing else */
};

struct core_commit_payload {
    uint64_t payload;
    uint32_t node, first, count;
    uint32_t n_items;
    const uint64_t *items; /* which items its rows are, in order */
};

struct core_quarantined {
    uint32_t item;           /* within the unit */
    const char *code, *text; /* of its last failure */
};

struct core_commit {
    uint64_t job;
    uint32_t unit, n_items;
    uint32_t n_failed; /* items with an error or quarantined */
    uint32_t attempts; /* failed attempts of the unit, all subunits */
    uint32_t n_payloads, n_quarantined;
    const struct core_commit_payload *payloads; /* kept rows, by (first, node); an item's rows in node order */
    const struct core_quarantined *quarantined; /* no row of these counts, whatever the payloads hold */
    const uint64_t *again;                      /* the unit was done before: only these items; NULL: all */
};

struct core_action {
    enum core_action_type type;
    union {
        uint64_t peer;
        uint64_t payload;
        uint64_t job;
        struct {
            uint64_t peer;
            enum core_refuse_reason reason;
            const char *text; /* names what was wanted and what was found */
        } refuse;
        struct {
            uint64_t peer;
            uint32_t n_bad;  /* in a row; 0: it is benched no more */
            const char *why; /* what came last */
        } bench;
        struct {
            uint64_t peer;
            const char *text;
        } hung;
        struct {
            uint64_t job;
            uint32_t from_unit; /* the first to look at */
            uint32_t max;
        } load;
        struct {
            uint64_t job;
            uint32_t unit, attempts, n_items;
            const uint8_t *subunits; /* as in core_unit_row, n_items of them; NULL: the unit was not cut */
        } attempts;
        struct {
            uint64_t job;
            uint64_t n_failed;
            uint64_t n_finished;  /* of so many; 0: in a row */
            const char *given_up; /* why the last one was quarantined; NULL: it was not */
        } paused;
        struct core_work work;
        struct core_commit commit;
    };
};

struct core_actions {
    struct core_action *items;
    size_t n, capacity;
    struct arena arena; /* lists and texts that items point to */
};

void core_actions_init(struct core_actions *a);
void core_actions_clear(struct core_actions *a); /* before each core_step; memory kept */
void core_actions_release(struct core_actions *a);

/* -- the machine --------------------------------------------------------------------------------------------------- */

/* `epoch` differs at every start of the broker. NULL: no memory. Limits of 0 are an error of the caller. */
struct core *core_new(const struct core_limits *limits, uint64_t epoch);
void core_free(struct core *c);

/* Take the event, hand out work. Actions are appended to ret_actions.
 * 0; -EINVAL, -EEXIST, -ENOENT, -ENOSPC: a job event that makes no sense (bad graph, open already, unknown, too many
 * jobs), nothing has changed. -ENOMEM: the core is broken and every later call says the same; end the process, the
 * store is the truth. */
int core_step(struct core *c, const struct core_event *event, int64_t now_ms,
              struct core_actions *ret_actions) CHECK_RESULT;

/* When the next TICK has something to do, at the latest; INT64_MAX: never. */
int64_t core_next_deadline(const struct core *c);

/* What the shell needs to check a result's rows before it makes a RESULT of it. */
struct core_lease_info {
    uint64_t job;
    uint32_t unit, node, first, count, n_items;
    const uint64_t *items;           /* valid until the next core_step */
    uint64_t inputs[CORE_MAX_NODES]; /* payloads whose tensors it was given; 0: none of this node */
};
/* -ESTALE: no such lease of that peer in this epoch (RESULT would be dropped and counted). */
int core_lease_get(const struct core *c, const struct core_lease_ref *ref, struct core_lease_info *ret) CHECK_RESULT;

/* -- numbers ------------------------------------------------------------------------------------------------------- */

/* The state of a job: the only place that knows it. Where several hold, the last one of this list is told. */
enum core_job_state {
    CORE_JOB_NONE,      /* not open */
    CORE_JOB_IMPORTING, /* runs, and is not sealed: more units may come */
    CORE_JOB_RUNNING,
    CORE_JOB_STOPPING, /* it was stopped or has paused itself, and leases or commits are still in flight */
    CORE_JOB_STOPPED,  /* and nothing is in flight: CORE_DO_JOB_STOPPED was said */
    CORE_JOB_PAUSED,   /* the same, since failures surged */
    CORE_JOB_DONE,     /* sealed, and every unit committed; until UNITS_ADDED or UNITS_AGAIN */
    CORE_JOB_BLOCKED,  /* the disk is full; nothing new starts until DISK_OK */
    CORE_JOB_FAILED,   /* by JOB_FAILED: its leases are void, its payloads dropped; no answers are awaited, those that
                          come are ignored, and so is every event of it but JOB_CLOSE */
    CORE_JOB_CLOSING
};

struct core_node_stats {
    enum stage stage;
    uint32_t subunits_ready, subunits_leased;
    uint64_t items_done;
    uint64_t failures, expiries; /* FAILURE and GONE; leases that ran out */
    uint64_t isolations;         /* of the failures: workers lost with a suspect subunit that ran exclusively */
    uint64_t bad_results;        /* of the failures */
    uint64_t returns, stalls;    /* RETURN; leases that lasted too long */
    uint64_t tensors_refused;    /* made here, and not what their maker said */
};

/* Of this process; what was done before it started the store knows. */
struct core_job_stats {
    enum core_job_state state;
    const char *failed_text; /* why it failed, until the next core_step; "": it has not */
    uint32_t priority;
    uint32_t units_loaded;  /* in memory */
    uint32_t units_started; /* of those, with a subunit on its way */
    uint32_t units_commit;  /* of those, commit asked for and not answered */
    uint64_t units_done, items_done, items_failed, items_quarantined;
    uint32_t n_nodes;
    struct core_node_stats nodes[CORE_MAX_NODES];
};

struct core_stats {
    uint32_t n_jobs, n_workers, n_leases;
    uint32_t workers[N_STAGES]; /* by stage */
    uint32_t benched[N_STAGES]; /* of those */
    uint32_t n_reserved;        /* subunits on their way */
    uint64_t reserved_bytes;
    uint64_t row_bytes; /* rows kept for commits */
    uint64_t events, leases_granted, results, failures, expiries, returns, payloads_lost, splits, quarantined;
    uint64_t benches, stalls, tensors_refused;
    uint64_t dropped_stale;   /* results, failures, returns under no lease of theirs */
    uint64_t dropped_unknown; /* messages of peers that are not known */
    uint64_t dropped_bad; /* results whose rows do not fit the WORK, heartbeats too long; answers nobody waits for */
};

void core_stats_get(const struct core *c, struct core_stats *ret);
enum core_job_state core_job_state_get(const struct core *c, uint64_t job);
/* Does any open job have a node that this worker may run? If not, the worker waits for one. */
bool core_worker_is_wanted(const struct core *c, uint64_t peer);
/* -ENOENT: not open. */
int core_job_stats_get(const struct core *c, uint64_t job, struct core_job_stats *ret) CHECK_RESULT;

/* Assert every invariant. O(everything): for tests. */
void core_validate(const struct core *c);

#endif
