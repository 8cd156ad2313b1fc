/* Answers to questions about leases, jobs and numbers. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <errno.h>
#include <string.h>

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
    ret->memory_limit = c->limits.memory_bytes;
    ret->row_limit = c->limits.row_bytes;
}

int core_worker_get(const struct core *c, uint64_t peer, int64_t now_ms, struct core_worker_info *ret)
{
    const struct core_worker *w = core_map_get(&c->workers_by_peer, peer);

    if (!w)
        return -ENOENT;
    *ret = (struct core_worker_info){
        .silent = w->silent,
        .benched = w->benched,
        .n_bad = core_worker_n_in_row(w),
        .n_leases = w->n_leases,
        .held_items = w->held_items,
        .window_items = w->window_items,
        .held_bytes = w->held_bytes,
        .window_bytes = w->window_bytes,
        .busy_ms = w->busy_ms,
        .turned_ms = w->turned_ms + c->stood_still_ms,
        .heard_ms = w->heard_ms + c->stood_still_ms,
        .why = w->why,
    };
    if (w->n_leases && now_ms > ret->turned_ms)
        ret->busy_ms += (uint64_t)(now_ms - ret->turned_ms);
    return 0;
}

int core_job_stats_get(const struct core *c, uint64_t job, struct core_job_stats *ret)
{
    const struct core_job *j = core_map_get(&c->jobs_by_id, job);

    if (!j)
        return -ENOENT;
    *ret = (struct core_job_stats){
        .state = core_job_state(j),
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
