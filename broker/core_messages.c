/* Messages of workers about their leases. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <assert.h>
#include <stdio.h>

int core_on_heartbeat(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_peer_heard(c, e->heartbeat.peer);
    uint32_t n = e->heartbeat.n;

    if (!w)
        return 0;
    if (e->heartbeat.epoch != c->epoch && !core_planted(c, CORE_BUG_HEARTBEAT_OF_ANY_EPOCH))
        return 0;
    core_pace_heard(c, w, e->heartbeat.items);
    if (n > c->limits.max_worker_leases) {
        c->counters.dropped_bad++;
        n = c->limits.max_worker_leases;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct core_lease *l = core_map_get(&c->leases, e->heartbeat.leases[i]);

        if (l && (l->worker == w || core_planted(c, CORE_BUG_HEARTBEAT_OF_ANY_PEER)))
            core_lease_extend(c, l);
    }
    if (core_planted(c, CORE_BUG_HEARTBEAT_EXTENDS_ALL))
        for (struct core_lease *l = w->leases; l; l = l->next)
            core_lease_extend(c, l);
    return 0;
}

/* The lease that a peer names, if it belongs to that peer and to this epoch. Counts as a sign of life. */
static struct core_lease *find_lease(struct core *c, const struct core_lease_ref *ref)
{
    struct core_lease *l = core_map_get(&c->leases, ref->lease);
    const bool any = core_planted(c, CORE_BUG_SKIP_FENCE);

    (void)core_peer_heard(c, ref->peer);
    if (l && (any || ref->epoch == c->epoch || core_planted(c, CORE_BUG_LEASE_OF_ANY_EPOCH)) &&
        (any || l->worker->peer == ref->peer || core_planted(c, CORE_BUG_LEASE_OF_ANY_PEER)))
        return l;
    c->counters.dropped_stale++;
    return NULL;
}

/* The worker ended a lease itself, so it works: its trial is over. */
static void not_late(struct core_worker *w, struct core *c)
{
    if (w->n_late == 0 || core_planted(c, CORE_BUG_TRIAL_WITHOUT_END))
        return;
    w->n_late = 0;
    if (!core_worker_is_careful(w))
        core_heap_remove(&c->rests, &w->rest_place);
    w->silent = w->lost;
    core_worker_update(w, c);
}

int core_on_result(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->result.lease);
    struct core_task *t;
    uint64_t host, maker;
    char text[96];

    assert(e->result.payload != 0 && !core_map_get(&c->payloads, e->result.payload));
    if (!l) { /* also if the peer is unknown */
        core_emit_id(c, CORE_DO_DROP_PAYLOAD, e->result.payload);
        return 0;
    }
    t = l->task;
    host = l->worker->host;
    maker = l->worker->name_key;
    not_late(l->worker, c);
    if (e->result.n_rows == t->n_rows || core_planted(c, CORE_BUG_SHORT_RESULT_TAKEN)) {
        core_pace_measure(c, l);
        core_worker_did_well(c, l);
        core_worker_saw(c, l);
        core_lease_end(c, l);
        c->counters.results++;
        t->host = host;
        t->maker = maker;
        core_task_result(t, e);
        return 0;
    }
    c->counters.dropped_bad++;
    core_emit_id(c, CORE_DO_DROP_PAYLOAD, e->result.payload);
    snprintf(text, sizeof(text), "the result has %u rows, %u were expected", e->result.n_rows, t->n_rows);
    t->subunit->unit->job->nodes[t->node].failures++;
    t->subunit->unit->job->nodes[t->node].bad_results++;
    c->counters.failures++;
    if (core_planted(c, CORE_BUG_BAD_RESULT_UNBLAMED))
        core_lease_give_back(c, l);
    else
        core_lease_fails(c, l, "bad_result", text);
    return 0;
}

int core_on_failure(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->failure.lease);

    if (!l)
        return 0;
    not_late(l->worker, c);
    if (e->failure.refused) {
        core_lease_inputs_refused(c, l, e->failure.refused, e->failure.text ? e->failure.text : "");
        return 0;
    }
    l->task->subunit->unit->job->nodes[l->task->node].failures++;
    l->task->subunit->unit->job->nodes[l->task->node].bad_results += e->failure.bad_result;
    c->counters.failures++;
    if (core_planted(c, CORE_BUG_FAILURE_UNBLAMED))
        core_lease_give_back(c, l);
    else
        core_lease_fails(c, l, e->failure.code ? e->failure.code : "", e->failure.text ? e->failure.text : "");
    return 0;
}

int core_on_return(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->lease);

    if (!l)
        return 0;
    not_late(l->worker, c);
    if (core_planted(c, CORE_BUG_RETURN_BLAMED))
        core_lease_fails(c, l, "returned", "handed back");
    else
        core_lease_returned(c, l);
    return 0;
}

int core_on_unseen(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->lease);

    if (!l)
        return 0;
    not_late(l->worker, c);
    core_lease_unseen(c, l);
    return 0;
}
