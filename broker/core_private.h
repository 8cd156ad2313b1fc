/* core_private.h - the state of the core, and what all of its files use. The contract is in core.h.
 *
 * The files, lowest first: each calls functions of files that come before it in this list, and of no others.
 *
 *   core_table.c      a hash map and a heap
 *   core_actions.c    the actions of a step
 *   core_graph.c      the graph of a job
 *   core_job_state.c  the state of a job
 *   core_pools.c      workers that compute the same, and which of them have room
 *   core_sight.c      workers that cannot see the pictures of a job
 *   core_queues.c     tasks that are ready
 *   core_trust.c      how far a worker is trusted; who failed a task
 *   core_pace.c       how long a lease may take
 *   core_leases.c     leases: granted, extended, ended
 *   core_subunits.c   subunits: memory, start, restart, split
 *   core_units.c      units: made from a row of the store, listed by state
 *   core_window.c     which units of a job are in memory
 *   core_commits.c    commits and their answers; a full disk
 *   core_surge.c      finished units: committed, held, or put back when failures surge
 *   core_tasks.c      what a result or a failure does to a task and its subunit
 *   core_endings.c    leases that end badly: who is to blame
 *   core_workers.c    workers: HELLO, CREDIT, GONE
 *   core_messages.c   HEARTBEAT, RESULT, FAILURE, RETURN
 *   core_time.c       TICK: what is due
 *   core_schedule.c   who gets what next
 *   core_jobs.c       jobs: opened, sealed, stopped, started, failed, closed
 *   core_stats.c      what is told on request
 *   core.c            the machine: new, step, free
 *   core_validate.c   every invariant, for tests
 *
 * Who may call: those files. Units: as in core.h. Memory: jobs own units, units own subunits; workers own leases.
 * Errors: a function that finds no memory calls core_break() and leaves everything fit for core_free(), no more. */
#ifndef BLIPLINE_BROKER_CORE_PRIVATE_H
#define BLIPLINE_BROKER_CORE_PRIVATE_H

#include "broker/core.h"
#include "broker/core_table.h"

enum { CORE_MAX_CUT_OFF = 64 };

struct core_job;
struct core_task;
struct core_unit;
struct core_lease;
struct core_subunit;
struct core_worker;
struct core_pool;

/* How long items take. */
struct core_pace {
    uint64_t ms, n_items;
};

struct core {
    struct core_limits limits;
    uint64_t epoch;
    int64_t now_ms;
    bool broken, shutdown, drained_told;
    struct core_actions *out; /* of the step in progress */
    struct core_job **jobs;
    uint32_t n_jobs;
    struct core_job *touched;
    struct core_map jobs_by_id, workers_by_peer, workers_by_name, groups, leases, payloads /* -> task */;
    struct core_heap lease_deadlines, worker_deadlines, rests, unseen_ends;
    uint64_t cut_off[CORE_MAX_CUT_OFF]; /* names of workers; a ring */
    uint32_t n_cut_off;
    struct core_pool **pools;
    uint32_t n_pools;
    uint64_t next_lease, next_pool_serial, vtime;
    uint64_t reserved_bytes, reserved_row_bytes, row_bytes;
    uint32_t n_reserved, n_commits, n_lost;
    int64_t stood_still_ms; /* the caller's time less ours */
    uint32_t n_ready[N_STAGES], n_ready_exclusive[N_STAGES], n_workers[N_STAGES];
    uint32_t n_benched[N_STAGES];
    struct core_stats counters; /* only its uint64_t counters */
    struct core_action dummy;   /* what core_emit returns when there is no memory */
};

static inline bool core_planted(const struct core *c, enum core_bug bug)
{
    return c->limits.bug == bug;
}

/* core_actions.c */
void core_break(struct core *c);
/* A zeroed action at the end of the list; never NULL (a dummy when memory is out). */
struct core_action *core_emit(struct core *c, enum core_action_type type);
void core_emit_id(struct core *c, enum core_action_type type, uint64_t id); /* job, peer or payload */
void *core_emit_alloc(struct core *c, size_t bytes);                        /* NULL: core is broken */
void core_emit_hung(struct core *c, uint64_t peer, const char *text);
void core_refuse(struct core *c, uint64_t peer, enum core_refuse_reason reason, const char *text);

/* core_schedule.c */
void core_schedule(struct core *c);
/* core_time.c */
int core_on_tick(struct core *c, const struct core_event *e);

#endif
