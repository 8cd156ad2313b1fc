#include "broker/core.h"

#include "base/grow.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core_private.h"

struct core_limits core_limits_default(void)
{
    return (struct core_limits){
        .memory_bytes = (uint64_t)8 << 30,
        .row_bytes = (uint64_t)1 << 30,
        .lease_ms = 30000,
        .worker_ms = 90000,
        .stall_ms = 300000,
        .first_stall_ms = 1800000,
        .max_given_up = 32,
        .max_attempts = 3,
        .max_unblamed = 16,
        .window_units = 1024,
        .max_jobs = 64,
        .max_workers = 4096,
        .max_pools = 64,
        .max_worker_items = 65536,
        .max_worker_leases = 1024,
    };
}

/* -- actions ------------------------------------------------------------------------------------------------------- */

void core_actions_init(struct core_actions *a)
{
    *a = (struct core_actions){0};
    arena_init(&a->arena, 0);
}

void core_actions_clear(struct core_actions *a)
{
    a->n = 0;
    arena_reset(&a->arena);
}

void core_actions_release(struct core_actions *a)
{
    free(a->items);
    arena_release(&a->arena);
    *a = (struct core_actions){0};
}

void core_break(struct core *c)
{
    c->broken = true;
}

struct core_action *core_emit(struct core *c, enum core_action_type type)
{
    struct core_actions *a = c->out;
    struct core_action *action = &c->dummy;

    if (grow_array(&a->items, &a->capacity, a->n, sizeof(*a->items), 64) == 0)
        action = &a->items[a->n++];
    else
        core_break(c);
    memset(action, 0, sizeof(*action));
    action->type = type;
    return action;
}

void core_emit_id(struct core *c, enum core_action_type type, uint64_t id)
{
    core_emit(c, type)->job = id; /* job, peer and payload share their place */
}

void *core_emit_alloc(struct core *c, size_t bytes)
{
    void *p = arena_alloc(&c->out->arena, bytes);

    if (!p)
        core_break(c);
    return p;
}

/* -- graph --------------------------------------------------------------------------------------------------------- */

int core_graph_check(const struct core_node *nodes, uint32_t n_nodes, struct err *err)
{
    if (n_nodes == 0 || n_nodes > CORE_MAX_NODES)
        return err_set(err, -EINVAL, "a job of %u nodes; 1 to %d are possible", n_nodes, CORE_MAX_NODES);
    for (uint32_t i = 0; i < n_nodes; i++) {
        if (nodes[i].stage == 0 || nodes[i].stage >= N_STAGES)
            return err_set(err, -EINVAL, "node %u: unknown stage %u", i, nodes[i].stage);
        if (nodes[i].needs >> i)
            return err_set(err, -EINVAL, "node %u needs a node that does not come before it (0x%x)", i, nodes[i].needs);
        if (nodes[i].out_bytes > (uint64_t)1 << 40)
            return err_set(err, -EINVAL, "node %u: %llu bytes an item", i, (unsigned long long)nodes[i].out_bytes);
        if (nodes[i].row_bytes > (uint64_t)1 << 40)
            return err_set(err, -EINVAL, "node %u: rows of %llu bytes an item", i,
                           (unsigned long long)nodes[i].row_bytes);
    }
    return 0;
}

uint64_t core_graph_peak_bytes(const struct core_node *nodes, uint32_t n_nodes)
{
    uint64_t peak = 0;

    /* Every set of finished nodes that a run can reach, and every node that may finish next: its output arrives before
     * its inputs go. At most 256 x 8 cases. */
    for (uint32_t done = 0; done < 1u << n_nodes; done++) {
        uint64_t live = 0;
        bool reachable = true;

        for (uint32_t i = 0; i < n_nodes; i++) {
            bool wanted = false;

            if (!(done >> i & 1))
                continue;
            reachable = reachable && (nodes[i].needs & ~done) == 0;
            for (uint32_t k = i + 1; k < n_nodes; k++)
                wanted = wanted || ((nodes[k].needs >> i & 1) && !(done >> k & 1));
            live += wanted ? nodes[i].out_bytes : 0;
        }
        for (uint32_t k = 0; reachable && k < n_nodes; k++)
            if (!(done >> k & 1) && (nodes[k].needs & ~done) == 0 && live + nodes[k].out_bytes > peak)
                peak = live + nodes[k].out_bytes;
    }
    return peak;
}

/* -- life ---------------------------------------------------------------------------------------------------------- */

struct core *core_new(const struct core_limits *limits, uint64_t epoch)
{
    struct core *c;

    assert(limits->memory_bytes && limits->row_bytes && limits->lease_ms > 0 && limits->worker_ms > limits->lease_ms);
    assert(limits->stall_ms > 0 && limits->first_stall_ms > 0);
    assert(limits->max_attempts && limits->window_units && limits->max_jobs);
    assert(limits->max_workers && limits->max_pools && limits->max_worker_items && limits->max_worker_leases);
    c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->limits = *limits;
    c->epoch = epoch;
    c->now_ms = INT64_MIN;
    c->next_lease = 1;
    c->jobs = calloc(limits->max_jobs, sizeof(c->jobs[0]));
    c->pools = calloc(limits->max_pools, sizeof(c->pools[0]));
    if (!c->jobs || !c->pools) {
        free(c->jobs);
        free(c->pools);
        free(c);
        return NULL;
    }
    return c;
}

void core_free(struct core *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->leases.capacity; i++)
        free(c->leases.slots[i].value);
    for (uint32_t i = 0; i < c->n_jobs; i++)
        core_job_free(c->jobs[i]);
    for (size_t i = 0; i < c->workers_by_peer.capacity; i++)
        free(c->workers_by_peer.slots[i].value);
    for (size_t i = 0; i < c->groups.capacity; i++) {
        struct core_group *g = c->groups.slots[i].value;

        if (g)
            core_heap_release(&g->room);
        free(g);
    }
    for (uint32_t i = 0; i < c->n_pools; i++) {
        core_heap_release(&c->pools[i]->room);
        free(c->pools[i]);
    }
    core_map_release(&c->jobs_by_id);
    core_map_release(&c->workers_by_peer);
    core_map_release(&c->workers_by_name);
    core_map_release(&c->groups);
    core_map_release(&c->leases);
    core_map_release(&c->payloads);
    core_heap_release(&c->lease_deadlines);
    core_heap_release(&c->worker_deadlines);
    core_heap_release(&c->rests);
    free(c->jobs);
    free(c->pools);
    free(c);
}

static int (*const handlers[CORE_N_EVENTS])(struct core *, const struct core_event *) = {
    [CORE_EVENT_TICK] = core_on_tick,
    [CORE_EVENT_JOB_OPEN] = core_on_job_open,
    [CORE_EVENT_JOB_START] = core_on_job_start,
    [CORE_EVENT_JOB_STOP] = core_on_job_stop,
    [CORE_EVENT_JOB_CLOSE] = core_on_job_close,
    [CORE_EVENT_JOB_FAILED] = core_on_job_failed,
    [CORE_EVENT_JOB_SEALED] = core_on_job_sealed,
    [CORE_EVENT_UNITS_ADDED] = core_on_units_added,
    [CORE_EVENT_UNITS_AGAIN] = core_on_units_again,
    [CORE_EVENT_UNITS] = core_on_units,
    [CORE_EVENT_HELLO] = core_on_hello,
    [CORE_EVENT_CREDIT] = core_on_credit,
    [CORE_EVENT_HEARTBEAT] = core_on_heartbeat,
    [CORE_EVENT_GONE] = core_on_gone,
    [CORE_EVENT_RESULT] = core_on_result,
    [CORE_EVENT_FAILURE] = core_on_failure,
    [CORE_EVENT_RETURN] = core_on_return,
    [CORE_EVENT_PAYLOAD_LOST] = core_on_payload_lost,
    [CORE_EVENT_COMMITTED] = core_on_committed,
    [CORE_EVENT_COMMIT_FAILED] = core_on_commit_failed,
    [CORE_EVENT_DISK_FULL] = core_on_disk_full,
    [CORE_EVENT_DISK_OK] = core_on_disk_ok,
    [CORE_EVENT_SHUTDOWN] = core_on_shutdown,
};

/* The earliest deadline, in our time. */
static int64_t next_due(const struct core *c)
{
    int64_t at = INT64_MAX;

    if (c->lease_deadlines.n && c->lease_deadlines.entries[0].key < at)
        at = c->lease_deadlines.entries[0].key;
    if (c->worker_deadlines.n && c->worker_deadlines.entries[0].key < at)
        at = c->worker_deadlines.entries[0].key;
    return at;
}

/* Who comes late to a deadline was stopped, or starved, and has not heard what others said meanwhile: time stood still
 * for it, and all get the time to be heard, or to connect again. */
static void set_clock(struct core *c, int64_t now_ms)
{
    const int64_t due = next_due(c);
    int64_t ours = now_ms - c->stood_still_ms;

    if (due != INT64_MAX && ours - due > c->limits.lease_ms / 30 && !core_planted(c, CORE_BUG_STOP_BLAMED)) {
        ours = due - c->limits.lease_ms / 3;
        if (ours < c->now_ms)
            ours = c->now_ms;
        c->stood_still_ms = now_ms - ours;
    }
    if (ours > c->now_ms)
        c->now_ms = ours;
}

int core_step(struct core *c, const struct core_event *event, int64_t now_ms, struct core_actions *ret_actions)
{
    int rc;

    if (c->broken)
        return -ENOMEM;
    c->out = ret_actions;
    set_clock(c, now_ms);
    c->counters.events++;
    assert(event->type < CORE_N_EVENTS);
    rc = handlers[event->type](c, event);
    if ((!c->shutdown || core_planted(c, CORE_BUG_SHUTDOWN_GRANTS)) && !c->broken)
        core_schedule(c);
    core_jobs_settle(c);
    if (c->shutdown && !c->drained_told && (c->leases.n == 0 || core_planted(c, CORE_BUG_DRAINED_WITH_LEASES)) &&
        (c->n_commits == 0 || core_planted(c, CORE_BUG_DRAINED_WITH_COMMITS))) {
        c->drained_told = true;
        core_emit(c, CORE_DO_DRAINED);
    }
    c->out = NULL;
    return c->broken ? -ENOMEM : rc;
}

int64_t core_next_deadline(const struct core *c)
{
    int64_t due = next_due(c);

    if (c->rests.n && c->rests.entries[0].key < due)
        due = c->rests.entries[0].key;
    return due == INT64_MAX ? due : due + c->stood_still_ms;
}

/* -- numbers ------------------------------------------------------------------------------------------------------- */

int core_lease_get(const struct core *c, const struct core_lease_ref *ref, struct core_lease_info *ret)
{
    const struct core_lease *l = core_map_get(&c->leases, ref->lease);
    const struct core_task *t;

    if (!l || ref->epoch != c->epoch || l->worker->peer != ref->peer)
        return -ESTALE;
    t = l->task;
    *ret = (struct core_lease_info){
        .job = t->subunit->unit->job->id,
        .unit = t->subunit->unit->number,
        .node = t->node,
        .first = t->subunit->first,
        .count = t->subunit->count,
        .n_items = t->n_rows,
        .items = t->rows,
    };
    for (uint32_t k = 0; k < t->node; k++)
        if (t->subunit->unit->job->nodes[t->node].spec.needs >> k & 1 && t->subunit->tasks[k].has_tensors)
            ret->inputs[k] = t->subunit->tasks[k].payload;
    return 0;
}

void core_stats_get(const struct core *c, struct core_stats *ret)
{
    *ret = c->counters;
    ret->n_jobs = c->n_jobs;
    ret->n_workers = (uint32_t)c->workers_by_peer.n - c->n_lost;
    ret->n_leases = (uint32_t)c->leases.n;
    memcpy(ret->workers, c->n_workers, sizeof(ret->workers));
    memcpy(ret->benched, c->n_benched, sizeof(ret->benched));
    ret->reserved_bytes = c->reserved_bytes;
    ret->n_reserved = c->n_reserved;
    ret->row_bytes = c->row_bytes;
}

enum core_job_state core_job_state_get(const struct core *c, uint64_t job)
{
    const struct core_job *j = core_map_get(&c->jobs_by_id, job);

    return j ? core_job_state(j) : CORE_JOB_NONE;
}

int core_job_stats_get(const struct core *c, uint64_t job, struct core_job_stats *ret)
{
    const struct core_job *j = core_map_get(&c->jobs_by_id, job);

    if (!j)
        return -ENOENT;
    *ret = (struct core_job_stats){
        .state = core_job_state(j),
        .failed_text = j->failed_text,
        .priority = j->priority,
        .units_loaded = (uint32_t)j->units.n,
        .units_started = j->n_by_state[CORE_UNIT_STARTED],
        .units_commit = j->n_by_state[CORE_UNIT_COMMIT],
        .units_done = j->units_done,
        .items_done = j->items_done,
        .items_failed = j->items_failed,
        .items_quarantined = j->items_quarantined,
        .n_nodes = j->n_nodes,
    };
    for (uint32_t i = 0; i < j->n_nodes; i++) {
        const struct core_job_node *n = &j->nodes[i];
        struct core_node_stats *s = &ret->nodes[i];

        s->stage = n->spec.stage;
        for (uint32_t k = 0; k < CORE_N_QUEUES; k++)
            s->subunits_ready += n->queues[k].n;
        s->subunits_leased = n->n_leased;
        s->items_done = n->items_done;
        s->failures = n->failures;
        s->expiries = n->expiries;
        s->isolations = n->isolations;
        s->bad_results = n->bad_results;
        s->returns = n->returns;
        s->stalls = n->stalls;
        s->tensors_refused = n->tensors_refused;
    }
    return 0;
}
