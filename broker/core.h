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
 *  - A worker that cannot see the pictures of a job (UNSEEN) gets no units of the job's first nodes for a while: 5 s at
 *    first, then twice as long each time, up to a minute. Neither the unit nor the worker is blamed.
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
    CORE_SHARE_ITEMS = 100 /* a share of failures counts once this many items are finished */
};

struct core;

struct core_limits {
    uint64_t memory_bytes;      /* tensors kept between nodes, all jobs */
    uint64_t row_bytes;         /* rows kept for commits, all jobs */
    int64_t lease_ms;           /* a lease not extended for this long is void */
    int64_t worker_ms;          /* a worker not heard for this long is forgotten; > lease_ms */
    int64_t stall_ms;           /* a lease may last this long, or longer if the measured speed asks for it */
    int64_t first_stall_ms;     /* until a speed is measured: this long without a finished item */
    uint32_t max_given_up;      /* this many quarantined items in a row pause a job without max_failures; 0: never */
    uint32_t max_attempts;      /* failures of a single item before quarantine */
    uint32_t max_unblamed;      /* RETURNs and lost payloads of a subunit without blame; later ones are failures */
    uint32_t window_units;      /* units of one job held in memory */
    uint32_t max_jobs;          /* open at once */
    uint32_t max_workers;       /* connected at once; more are refused */
    uint32_t max_pools;         /* distinct (stage, fingerprint) among connected workers */
    uint32_t max_worker_items;  /* a worker's window is cut to this */
    uint32_t max_worker_leases; /* held by one worker */
    enum core_bug bug;          /* CORE_BUG_NONE, except in the simulator */
};

/* All limits set: memory_bytes is 8 GiB, row_bytes 1 GiB. */
struct core_limits core_limits_default(void);

/* -- graph of a job -- */

/* Nodes are in topological order. A node gets the items that no earlier node has failed. */
struct core_node {
    enum stage stage;
    uint32_t needs;                 /* bit i: consumes the output of node i, i < this node; 0: a first node */
    uint64_t out_bytes;             /* tensor bytes an item leaves behind, at most 2^40; 0: rows only */
    uint64_t row_bytes;             /* an estimate of an item's kept rows; results raise it */
    struct fingerprint fingerprint; /* of the workers that may run it; none: any of the stage */
};

/* The most tensor bytes that one item may need at once on its way through the graph, in any order of completion. The
 * inputs and the output of a node that finishes exist at the same time. */
uint64_t core_graph_peak_bytes(const struct core_node *nodes, uint32_t n_nodes);
/* 0; -EINVAL: err names the first mistake. */
int core_graph_check(const struct core_node *nodes, uint32_t n_nodes, struct err *err) CHECK_RESULT;

/* -- events: what happened -- */

enum core_event_type {
    CORE_EVENT_TICK = 0,      /* time has passed; feed it after the messages that have arrived */
    CORE_EVENT_JOB_OPEN,      /* .job_open */
    CORE_EVENT_JOB_START,     /* .job: resume after JOB_STOP or CORE_DO_JOB_PAUSED */
    CORE_EVENT_JOB_STOP,      /* .job: no new first-node leases; CORE_DO_JOB_STOPPED follows */
    CORE_EVENT_JOB_PRIORITY,  /* .job_priority: from now on, its share of workers is another one */
    CORE_EVENT_JOB_CLOSE,     /* .job: forget it; leases void, payloads dropped; CORE_DO_JOB_CLOSED follows, after the
                                 answers to outstanding COMMITs and LOAD_UNITS */
    CORE_EVENT_JOB_FAILED,    /* .job: its store cannot be used; see CORE_JOB_FAILED */
    CORE_EVENT_JOB_SEALED,    /* .job: the manifest is complete, until UNITS_ADDED */
    CORE_EVENT_UNITS_ADDED,   /* .job: new units behind the last ones; the job is neither sealed nor done (any more) */
    CORE_EVENT_UNITS_AGAIN,   /* .units_again: units that were done have items to do again */
    CORE_EVENT_UNITS,         /* .units: the answer to CORE_DO_LOAD_UNITS */
    CORE_EVENT_HELLO,         /* .hello: answered by WELCOME or REFUSE */
    CORE_EVENT_CREDIT,        /* .credit */
    CORE_EVENT_HEARTBEAT,     /* .heartbeat */
    CORE_EVENT_GONE,          /* .gone */
    CORE_EVENT_RESULT,        /* .result */
    CORE_EVENT_FAILURE,       /* .failure: the worker could not do it */
    CORE_EVENT_RETURN,        /* .lease: returned without blame */
    CORE_EVENT_UNSEEN,        /* .lease: the same, because its worker cannot see the job's pictures */
    CORE_EVENT_PAYLOAD_LOST,  /* .payload: its tensors are gone; the subunit starts again, without blame */
    CORE_EVENT_COMMITTED,     /* .commit: durable */
    CORE_EVENT_COMMIT_FAILED, /* .commit: the disk is full; the job is blocked until DISK_OK, then COMMIT is repeated */
    CORE_EVENT_DISK_FULL,     /* .job: the same for anything else of the job that is to be written */
    CORE_EVENT_DISK_OK,       /* .job, or 0 for all jobs: there is room again */
    CORE_EVENT_SHUTDOWN,      /* no new leases; CORE_DO_DRAINED when leases and commits have ended */
    CORE_N_EVENTS
};

struct core_unit_row {
    uint32_t unit;
    uint32_t n_items;  /* 1..CORE_MAX_UNIT_ITEMS */
    uint32_t attempts; /* as last made durable, and so is `subunits` */
    /* Of a unit that was split: 1 + the failures of the subunit that begins at item i; 0: none begins there. All 0: the
     * unit is whole. */
    uint8_t subunits[CORE_MAX_UNIT_ITEMS];
    bool is_again; /* it was done before; now only the items of `again`, at least one */
    uint64_t again[CORE_MASK_WORDS];
    uint64_t bad[CORE_MASK_WORDS]; /* items known to fail, which say nothing about the source */
    uint64_t picture_bytes;        /* that travel with leases of first nodes; 0: workers read the pictures themselves */
};

/* A peer and the lease that it names. From the wire; only `peer` is trusted. */
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
            bool stopped;                  /* open it as if JOB_STOP had followed */
            uint32_t max_failures;         /* this many failed items in a row pause the job; 0: no limit */
            uint32_t max_failed_per_mille; /* a larger share of all finished items pauses it, once there
                                              are CORE_SHARE_ITEMS; 0: no limit */
            uint32_t n_nodes;
            const struct core_node *nodes; /* core_graph_check has returned 0 */
        } job_open;
        struct {
            uint64_t job;
            uint32_t priority; /* as in job_open */
        } job_priority;
        struct {
            uint64_t job;
            uint32_t from_unit; /* the first of them */
        } units_again;
        struct {
            uint64_t job;
            uint32_t n;                 /* at most `max` of the action */
            struct core_unit_row *rows; /* units to do, ascending, from `from_unit` on */
            bool exhausted;             /* there are no more units to do now */
        } units;
        struct {
            uint64_t peer;  /* the shell's handle of the connection, never reused */
            uint64_t host;  /* hash of the host's name; tensors are near on the same host */
            uint64_t nonce; /* identifies the process on its host; it replaces the same process under another peer */
            enum stage stage;
            struct fingerprint fingerprint; /* none: device null */
            uint32_t window_items;
            uint64_t window_bytes; /* of input tensors */
            uint64_t epoch;        /* of the leases that it holds; 0: it does not name them */
            const uint64_t *leases;
            uint32_t n_leases;
        } hello;
        struct {
            uint64_t peer;
            uint32_t window_items; /* absolute, not an increase; 0: no new work */
            uint64_t window_bytes;
        } credit;
        struct {
            uint64_t peer, epoch;
            const uint64_t *leases; /* exactly these are extended */
            uint32_t n;
            uint64_t items; /* finished items, by its own count */
        } heartbeat;
        struct {
            uint64_t peer;
            bool clean; /* BYE: what it still held is returned without blame */
            bool ended; /* its process has ended: what it held has failed. May follow a GONE without `ended` */
        } gone;
        struct {
            struct core_lease_ref lease;
            uint64_t payload;   /* rows and tensors; a new handle each time, not 0 */
            uint32_t n_rows;    /* rows in the result; must be the number of items of the WORK */
            const uint64_t *ok; /* bit r: row r is no error; (n_rows + 63) / 64 words; NULL: no row is */
            bool keep_rows;     /* the rows hold something for the store: keep them until the commit. Errors are always
                                   kept. Other rows are kept until the last consumer is done, as tensors are */
            uint64_t row_bytes; /* memory that the kept rows take */
        } result;
        struct {
            struct core_lease_ref lease;
            const char
                *code; /* a word, and a sentence for people; cut to CORE_CODE_BYTES and CORE_TEXT_BYTES; NULL: "" */
            const char *text;
            bool bad_result;  /* it sent a malformed result */
            uint32_t refused; /* bit k: the tensors that it got of node k do not match their checksum; not its fault */
        } failure;
        struct {
            uint64_t job;
            uint32_t unit;
        } commit;
    };
};

/* -- actions: what to do -- */

enum core_action_type {
    CORE_DO_WELCOME,      /* .peer */
    CORE_DO_REFUSE,       /* .refuse: then forget the peer */
    CORE_DO_BENCH,        /* .bench: this worker keeps failing and is benched; or it is trusted again */
    CORE_DO_HUNG,         /* .hung: this worker makes no progress */
    CORE_DO_HELLO_AGAIN,  /* .peer: it is not known (timed out, replaced, refused); make it say HELLO again */
    CORE_DO_FORGET_PEER,  /* .peer: silent too long, lost or replaced; the core has forgotten it */
    CORE_DO_WORK,         /* .work: send it */
    CORE_DO_DROP_TENSORS, /* .payload: its tensors are not needed any more, its rows are until the commit */
    CORE_DO_DROP_PAYLOAD, /* .payload: nothing of it is needed any more; the handle is void */
    CORE_DO_LOAD_UNITS,   /* .load: answer with CORE_EVENT_UNITS; at most one is outstanding for each job */
    CORE_DO_ATTEMPTS,     /* .attempts: make them durable; no answer */
    CORE_DO_COMMIT,       /* .commit: answer with COMMITTED or COMMIT_FAILED */
    CORE_DO_JOB_DONE,     /* .job: sealed, and every unit committed */
    CORE_DO_JOB_PAUSED,   /* .paused: failures surge; the job stops as if by JOB_STOP; CORE_DO_JOB_STOPPED follows */
    CORE_DO_JOB_STOPPED,  /* .job: nothing is in flight any more, except commits that failed on a full disk */
    CORE_DO_JOB_CLOSED,   /* .job: the id may be used again */
    CORE_DO_DRAINED,      /* shutdown is complete */
    CORE_N_ACTIONS
};

enum core_refuse_reason { CORE_REFUSE_LIMIT, CORE_REFUSE_BAD_MESSAGE, CORE_REFUSE_DRAINING, CORE_REFUSE_STALLED };

/* Masks have `count` bits: bit i % 64 of word i / 64 is item `first + i`; items are counted within the unit. */
struct core_input {
    uint64_t payload;
    uint32_t node;      /* that made it */
    uint32_t n_tensor;  /* bits set in ok */
    const uint64_t *ok; /* items that have a row in its tensors, in order; may be more than the items of the WORK */
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
    const struct core_quarantined *quarantined; /* their rows in the payloads do not count */
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
            const char *text; /* what was expected and what was found */
        } refuse;
        struct {
            uint64_t peer;
            uint32_t n_bad;  /* failures in a row; 0: it is no longer benched */
            const char *why; /* the last failure */
        } bench;
        struct {
            uint64_t peer;
            const char *text;
        } hung;
        struct {
            uint64_t job;
            uint32_t from_unit; /* the first that may be loaded */
            uint32_t max;
        } load;
        struct {
            uint64_t job;
            uint32_t unit, attempts, n_items;
            const uint8_t *subunits; /* as in core_unit_row, n_items of them; NULL: the unit is whole */
        } attempts;
        struct {
            uint64_t job;
            uint64_t n_failed;
            uint64_t n_finished;  /* out of this many; 0: n_failed items in a row */
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

/* -- the machine -- */

/* `epoch` is different at every start of the broker. No limit may be 0. NULL: no memory. */
struct core *core_new(const struct core_limits *limits, uint64_t epoch);
void core_free(struct core *c);

/* Take the event, hand out work, append actions to ret_actions. Returns 0, or:
 * -EINVAL, -EEXIST, -ENOENT, -ENOSPC  an event of a job is invalid (bad graph, already open, not open or closing, too
 *                                     many jobs); nothing has changed
 * -ENOMEM                             the core is broken and every later call returns the same; end the process, since
 *                                     nothing durable is lost */
int core_step(struct core *c, const struct core_event *event, int64_t now_ms,
              struct core_actions *ret_actions) CHECK_RESULT;

/* When the next TICK is due at the latest; INT64_MAX: never. */
int64_t core_next_deadline(const struct core *c);

/* What the shell needs to check the rows of a result before it feeds RESULT. */
struct core_lease_info {
    uint64_t job;
    uint32_t unit, node, first, count, n_items;
    const uint64_t *items;           /* valid until the next core_step */
    uint64_t inputs[CORE_MAX_NODES]; /* payloads whose tensors it got, by node; 0: none */
};
/* -ESTALE: the peer has no such lease in this epoch; its RESULT would be dropped and counted. */
int core_lease_get(const struct core *c, const struct core_lease_ref *ref, struct core_lease_info *ret) CHECK_RESULT;

/* -- numbers -- */

/* The state of a job; nothing else keeps it. If several of these apply, the last one in this list is the state. */
enum core_job_state {
    CORE_JOB_NONE,      /* not open */
    CORE_JOB_IMPORTING, /* runs, and is not sealed: more units may come */
    CORE_JOB_RUNNING,
    CORE_JOB_STOPPING, /* it was stopped or has paused itself, and leases or commits are still in flight */
    CORE_JOB_STOPPED,  /* and nothing is in flight: CORE_DO_JOB_STOPPED was said */
    CORE_JOB_PAUSED,   /* the same, since failures surged */
    CORE_JOB_DONE,     /* sealed, and every unit committed; until UNITS_ADDED or UNITS_AGAIN */
    CORE_JOB_BLOCKED,  /* the disk is full; nothing new starts until DISK_OK */
    CORE_JOB_FAILED,   /* by JOB_FAILED: its leases are void, its payloads dropped. It waits for no answers and ignores
                          those that come, and every other event but JOB_CLOSE */
    CORE_JOB_CLOSING
};

struct core_node_stats {
    enum stage stage;
    uint32_t subunits_ready, subunits_leased;
    uint64_t items_done;
    uint64_t failures, expiries; /* FAILURE and GONE; expired leases */
    uint64_t isolations;         /* of the failures: workers lost with a suspect subunit that ran exclusively */
    uint64_t bad_results;        /* of the failures */
    uint64_t returns, stalls;    /* RETURN; leases that lasted too long */
    uint64_t tensors_refused;    /* made at this node, and refused by a later one */
};

/* Counts since the job was opened; the store knows what was done before. */
struct core_job_stats {
    enum core_job_state state;
    uint32_t priority;
    uint32_t units_loaded;  /* in memory */
    uint32_t units_started; /* of those, with a subunit under way */
    uint32_t units_commit;  /* of those, with a COMMIT not answered yet */
    uint64_t units_done, items_done, items_failed, items_quarantined;
    uint32_t n_nodes;
    struct core_node_stats nodes[CORE_MAX_NODES];
};

struct core_stats {
    uint32_t n_jobs, n_workers, n_leases;
    uint32_t workers[N_STAGES]; /* by stage */
    uint32_t benched[N_STAGES]; /* of those */
    uint32_t n_reserved;        /* subunits under way */
    uint64_t reserved_bytes, memory_limit;
    uint64_t row_bytes, row_limit; /* rows kept for commits */
    uint64_t events, leases_granted, results, failures, expiries, returns, payloads_lost, splits, quarantined;
    uint64_t benches, stalls, tensors_refused;
    uint64_t dropped_stale;   /* results, failures and returns of void leases */
    uint64_t dropped_unknown; /* messages of peers that are not known */
    uint64_t dropped_bad;     /* malformed results and heartbeats; unexpected answers */
};

/* A connected worker. Times are those of the caller. */
struct core_worker_info {
    bool silent, benched;
    uint32_t n_bad; /* leases in a row that ended badly */
    uint32_t n_leases, held_items, window_items;
    uint64_t held_bytes, window_bytes;
    uint64_t busy_ms;  /* how long it has held leases, until now_ms */
    int64_t turned_ms; /* when it last began or ceased to hold any */
    int64_t heard_ms;
    const char *why; /* the last thing that went wrong, or ""; valid until the next core_step */
};

void core_stats_get(const struct core *c, struct core_stats *ret);
/* -ENOENT: the core does not know it. */
int core_worker_get(const struct core *c, uint64_t peer, int64_t now_ms, struct core_worker_info *ret) CHECK_RESULT;
enum core_job_state core_job_state_get(const struct core *c, uint64_t job);
/* Does any open job have a node that this worker may run? If not, the worker waits for such a job. */
bool core_worker_is_wanted(const struct core *c, uint64_t peer);
/* False from UNSEEN on, until the worker gives a result at a first node of the job. */
bool core_worker_sees(const struct core *c, uint64_t peer, uint64_t job);
/* -ENOENT: not open. */
int core_job_stats_get(const struct core *c, uint64_t job, struct core_job_stats *ret) CHECK_RESULT;

/* Assert every invariant; slow, for tests. */
void core_validate(const struct core *c);

#endif
