/* core_job.h - jobs, their units, subunits and tasks.
 *
 * Who may call: broker/core*.c. Units: as in core.h. Memory: jobs own units, units own subunits, and those their tasks.
 * Errors: as in core_private.h. */
#ifndef BLIPLINE_BROKER_CORE_JOB_H
#define BLIPLINE_BROKER_CORE_JOB_H

#include "broker/core_private.h"

enum {
    CORE_PIECES = 8,     /* of a subunit that is split */
    CORE_MAX_FAILERS = 4 /* remembered for a task */
};

/* A task is one node of one subunit. */
enum core_task_state {
    CORE_TASK_WAITING, /* for its inputs */
    CORE_TASK_READY,   /* in a queue of its job's node */
    CORE_TASK_LEASED,
    CORE_TASK_DONE
};

/* Fresh: the subunit holds no memory yet; this lease would start it. Exclusive: the subunit is suspect, see core.h. */
enum core_queue_kind {
    CORE_QUEUE_READY,
    CORE_QUEUE_READY_EXCLUSIVE,
    CORE_QUEUE_FRESH,
    CORE_QUEUE_FRESH_EXCLUSIVE,
    CORE_N_QUEUES,
    CORE_QUEUE_NONE = CORE_N_QUEUES
};

struct core_task {
    struct core_subunit *subunit;
    uint32_t node;
    enum core_task_state state;
    enum core_queue_kind queue;    /* CORE_QUEUE_NONE unless ready */
    struct core_task *prev, *next; /* in the queue */
    struct core_lease *lease;      /* leased */
    uint64_t payload;              /* done: its output, 0 once dropped */
    bool has_tensors, has_rows;    /* what of the payload is still there */
    uint64_t row_bytes;            /* kept rows */
    uint64_t host, maker;          /* done: where the output was made, and by whom (core_worker.name_key) */
    uint64_t *rows;                /* leased, done: the items that went in */
    uint64_t *ok;                  /* done: the items that came out */
    uint32_t n_rows, n_ok;
    uint64_t failers[CORE_MAX_FAILERS]; /* the last workers that failed it (core_worker.name_key): a ring */
    uint32_t n_failers;                 /* ever */
};

/* A run of items of a unit that goes through the graph as one. */
struct core_subunit {
    struct core_unit *unit;
    struct core_subunit *next; /* by first item */
    uint32_t first, count, n_words;
    uint32_t n_wanted; /* items to do: all of them, unless only some items of the unit are done again */
    uint32_t n_alive;
    uint32_t failures, unblamed;
    uint32_t n_done;         /* tasks */
    bool split;              /* not the whole unit as it was loaded */
    bool failed_before;      /* a lease of it ended badly, or of the subunit that it is a piece of */
    bool finished;           /* all nodes done, or no item left */
    bool quarantined;        /* finished because it was given up */
    uint64_t reserved_bytes; /* 0: holds no memory (see is_reserved) */
    uint64_t reserved_row_bytes;
    bool is_reserved;
    uint64_t pass;     /* reserved: what core_job.pass was before */
    char *code, *text; /* last failure; NULL: none. One allocation, at code */
    uint64_t *alive;   /* wanted items that no node has failed */
    struct core_task tasks[];
};

enum core_unit_state {
    CORE_UNIT_WAITING,
    CORE_UNIT_STARTED,
    CORE_UNIT_COMMIT,
    CORE_UNIT_COMMIT_FAILED,
    CORE_UNIT_HELD, /* finished; its items failed, so its commit waits (core_surge.c) */
    CORE_N_UNIT_STATES
};

struct core_unit {
    struct core_job *job;
    uint32_t number, n_items;
    uint32_t attempts; /* failed attempts, all subunits, earlier runs included */
    uint32_t n_subunits, n_finished;
    enum core_unit_state state;
    uint64_t *again;   /* only these items are wanted; NULL: all. Lies behind the unit, as `bad` */
    uint64_t *bad;     /* items that are known to fail; NULL: none */
    uint32_t n_wanted; /* items */
    uint64_t picture_bytes;
    bool load_again; /* more of its items are to be done again than were known when it was loaded */
    struct core_subunit *subunits;
    struct core_unit *prev, *next; /* in its job's list of units in this state */
};

struct core_queue {
    struct core_task *first, *last;
    uint32_t n;
};

struct core_job_node {
    struct core_node spec;
    bool any_fingerprint;
    uint64_t pictures_of; /* first nodes: the job, whose pictures they read; others: 0 */
    uint32_t rank;        /* nodes after it on the longest path: 0 is a last node */
    uint32_t consumers;   /* bit i: node i needs this one */
    uint64_t in_bytes;    /* of an item, all inputs */
    uint64_t row_bytes;   /* of an item's kept rows, the most so far */
    struct core_queue queues[CORE_N_QUEUES];
    uint32_t n_leased;
    uint64_t items_done, failures, expiries, isolations, bad_results, returns, stalls, tensors_refused;
    struct core_pace pace; /* of a worker at this node */
};

struct core_job {
    struct core *core;
    uint64_t id;
    uint32_t priority;
    uint64_t pass; /* stride scheduling: items started / priority */
    uint32_t n_nodes;
    uint64_t peak_bytes;   /* of an item */
    uint64_t row_bytes;    /* of an item: the sum of its nodes' */
    struct core_map units; /* number + 1 -> unit */
    struct core_unit *by_state[CORE_N_UNIT_STATES];
    uint32_t n_by_state[CORE_N_UNIT_STATES];
    uint64_t cursor;               /* first unit number not loaded yet */
    uint64_t back_from;            /* first unit before the cursor that must be loaded again; UINT64_MAX: none */
    uint32_t n_reserved, n_leases; /* subunits holding memory; leases */
    uint32_t load_from;            /* of the load under way */
    bool load_is_stale;            /* a unit was committed meanwhile that the answer may still contain */
    bool sealed, exhausted, loading, added_meanwhile;
    bool stopped, paused; /* paused: stopped by the core itself, since failures surged */
    bool stop_told;       /* CORE_DO_JOB_STOPPED was said */
    bool done, blocked, failed, closing;
    uint32_t max_failures, max_failed_per_mille;
    uint64_t n_in_row;             /* failed items since the last good one */
    uint64_t n_finished, n_failed; /* since the job was opened or started again */
    bool touched;                  /* in core.touched */
    struct core_job *next_touched;
    uint64_t units_done, items_done, items_failed, items_quarantined;
    struct core_job_node nodes[CORE_MAX_NODES];
};

static inline struct core *core_of_subunit(const struct core_subunit *p)
{
    return p->unit->job->core;
}

static inline struct core_job_node *core_node_of(const struct core_task *t)
{
    return &t->subunit->unit->job->nodes[t->node];
}

/* Input tensors of a lease: those of earlier nodes, or the pictures, for which those of the whole unit are reckoned. */
static inline uint64_t core_task_input_bytes(const struct core_task *t, uint32_t n_items)
{
    const struct core_job_node *n = core_node_of(t);

    return n->in_bytes * n_items + (n->spec.needs ? 0 : t->subunit->unit->picture_bytes);
}

/* Memory of tensors that the subunit takes, at most, until it is finished. */
static inline uint64_t core_subunit_need(const struct core_subunit *p)
{
    return p->unit->job->peak_bytes * p->n_wanted + p->unit->picture_bytes;
}

/* core_job_state.c */
enum core_job_state core_job_state(const struct core_job *j);
bool core_job_may_start(const struct core_job *j);
void core_job_wake(struct core_job *j);  /* it was idle: it does not catch up on its share */
void core_job_touch(struct core_job *j); /* settle it at the end of the step */
/* Find and touch the open job of an event. 0 and NULL: the job has failed and ignores the event. -ENOENT and NULL: the
 * job is not open, or is closing. */
int core_job_find(struct core *c, uint64_t id, struct core_job **ret) CHECK_RESULT;

/* core_queues.c */
bool core_subunit_is_exclusive(const struct core_subunit *p);
void core_queue_push(struct core_task *t, bool front);
void core_queue_remove(struct core_task *t);
void core_subunit_suspect(struct core_subunit *p); /* from now on it is suspect: its ready tasks change their queue */

/* core_subunits.c */
uint32_t core_mask_count(const uint64_t *m, uint32_t n_words);
bool core_unit_wants_any(const struct core_unit *u, uint32_t first, uint32_t end); /* items first .. end - 1 */
/* A subunit of these items, cut to the first and last wanted one; at least one is wanted. NULL: no memory. */
struct core_subunit *core_subunit_new(struct core_unit *u, uint32_t first, uint32_t count);
void core_subunit_free(struct core_subunit *p);
void core_subunit_reserve(struct core_subunit *p);
void core_subunit_unreserve(struct core_subunit *p);
uint32_t core_subunit_limit(const struct core_subunit *p);   /* at this many failures it is split or given up */
void core_subunit_ready(struct core_subunit *p, bool front); /* queue the nodes whose inputs exist */
/* Take it out of all queues, end its leases and drop its payloads; rows for the store stay if `keep_rows`. */
void core_subunit_stop(struct core_subunit *p, bool keep_rows);
void core_subunit_restart(struct core_subunit *p);
bool core_subunit_split(struct core_subunit *p); /* into CORE_PIECES at most; false: no memory, nothing has changed */
void core_task_drop_payload(struct core_task *t);
void core_task_drop_tensors(struct core_task *t);

/* core_units.c */
struct core_unit *core_unit_new(struct core_job *j, const struct core_unit_row *row);
void core_unit_free(struct core_unit *u);
void core_unit_set_state(struct core_unit *u, enum core_unit_state state); /* moves the list entry too */
void core_unit_drop(struct core_unit *u); /* void its leases, drop its payloads, give memory back */
bool core_unit_is_split(const struct core_unit *u);
void core_unit_describe_subunits(const struct core_unit *u, uint8_t *ret_subunits); /* as in core_unit_row, n_items */

/* core_window.c */
int core_on_units(struct core *c, const struct core_event *e);
int core_on_units_added(struct core *c, const struct core_event *e);
int core_on_units_again(struct core *c, const struct core_event *e);
void core_job_load_more(struct core_job *j);
void core_job_go_back(struct core_job *j, uint64_t unit); /* load again from this unit on */

/* core_commits.c */
int core_on_committed(struct core *c, const struct core_event *e);
int core_on_commit_failed(struct core *c, const struct core_event *e);
int core_on_disk_full(struct core *c, const struct core_event *e);
int core_on_disk_ok(struct core *c, const struct core_event *e);
void core_unit_commit(struct core_unit *u);
void core_unit_forget(struct core_unit *u);
void core_unit_put_back(struct core_unit *u); /* forget it, and load it again later */

/* core_surge.c */
void core_unit_finished(struct core_unit *u); /* all its subunits are finished: commit, hold, or put back */
void core_job_commit_held(struct core_job *j);
void core_job_reset_failures(struct core_job *j); /* start counting failures anew */

/* core_tasks.c */
void core_task_result(struct core_task *t, const struct core_event *e);
/* The lease ended badly, or was returned. `attempt`: the subunit's failures when the lease was granted. */
void core_task_failed(struct core_task *t, uint32_t attempt, const char *code, const char *text);
void core_task_returned(struct core_task *t, uint32_t attempt);
void core_task_requeue(struct core_task *t); /* queue it again */
int core_on_payload_lost(struct core *c, const struct core_event *e);

/* core_jobs.c */
int core_on_job_open(struct core *c, const struct core_event *e);
int core_on_job_start(struct core *c, const struct core_event *e);
int core_on_job_stop(struct core *c, const struct core_event *e);
int core_on_job_priority(struct core *c, const struct core_event *e);
int core_on_job_close(struct core *c, const struct core_event *e);
int core_on_job_failed(struct core *c, const struct core_event *e);
int core_on_job_sealed(struct core *c, const struct core_event *e);
void core_jobs_settle(struct core *c);
void core_job_free(struct core_job *j);

#endif
