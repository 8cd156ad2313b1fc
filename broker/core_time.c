/* Deadlines: leases that expire or last too long, pauses that end, silent workers. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <stdio.h>

/* A worker that lets leases expire may still send heartbeats, for instance if its device hangs. From then on it is on
 * trial: one lease at a time, with growing pauses. Units are not blamed for what expires on trial. */
static void lease_expires(struct core *c, struct core_lease *l)
{
    struct core_worker *w = l->worker;
    struct core_task *t = l->task;
    const uint32_t attempt = l->attempt;
    const bool on_trial = l->on_trial;

    t->subunit->unit->job->nodes[core_planted(c, CORE_BUG_EXPIRY_AT_FIRST_NODE) ? 0 : t->node].expiries++;
    c->counters.expiries++;
    if (on_trial || w->n_late == 0)
        w->n_late++;
    if (on_trial)
        core_worker_rest(c, w, c->limits.lease_ms << (w->n_late < 6 ? w->n_late - 2 : 4));
    if (on_trial && w->n_late == 2)
        core_emit_hung(c, w->peer, "the worker sends heartbeats but lets its units expire");
    w->silent = true;
    core_task_failed_on(t, w);
    core_lease_end(c, l);
    if ((on_trial && !core_planted(c, CORE_BUG_TRIAL_BLAMED)) || core_planted(c, CORE_BUG_EXPIRY_UNBLAMED))
        core_task_returned(t, attempt);
    else if (w->lost)
        core_task_failed(t, attempt, "worker_lost", "its worker was lost and did not come back");
    else
        core_task_failed(t, attempt, "expired", "its worker did not answer in time");
    if (w->lost && !w->leases)
        core_worker_forget(c, w);
}

/* The lease held longest has failed, since most workers do one unit after the other. The others are returned. */
static void worker_stalls(struct core *c, struct core_worker *w)
{
    struct core_lease *l = w->leases;
    struct core_task *t;
    uint32_t attempt;
    char text[CORE_TEXT_BYTES];

    while (l->next)
        l = l->next;
    t = l->task;
    attempt = l->attempt;
    (void)snprintf(text, sizeof(text), "no result for %u items in %lld s", l->n_items,
                   (long long)(c->now_ms - l->granted_ms) / 1000);
    t->subunit->unit->job->nodes[t->node].stalls++;
    c->counters.stalls++;
    c->cut_off[c->n_cut_off++ % CORE_MAX_CUT_OFF] = w->name_key;
    core_emit_hung(c, w->peer, text);
    core_refuse(c, w->peer, CORE_REFUSE_STALLED, text);
    core_task_failed_on(t, w);
    core_lease_end(c, l);
    core_task_failed(t, attempt, "stalled", text);
    core_worker_remove(c, w, true, text);
}

/* The lease was not extended in time, or it lasts too long, or its limit has changed since it was extended. */
static void lease_is_due(struct core *c, struct core_lease *l)
{
    const int64_t stall_ms = core_lease_stalls_at(c, l);

    if (l->until_ms <= c->now_ms)
        lease_expires(c, l);
    else if (stall_ms <= c->now_ms)
        worker_stalls(c, l->worker);
    else if (core_heap_set(&c->lease_deadlines, &l->deadline_place, l->until_ms < stall_ms ? l->until_ms : stall_ms,
                           l) < 0)
        core_break(c);
}

/* Not heard for lease_ms: it gets no work. Not heard for worker_ms: it is forgotten. */
static void worker_is_late(struct core *c, struct core_worker *w)
{
    int64_t forget_at = w->heard_ms + c->limits.worker_ms;

    if (forget_at <= c->now_ms && !core_planted(c, CORE_BUG_SILENT_STAYS)) {
        if (!w->lost)
            core_emit_hung(c, w->peer, "the worker sends no heartbeats");
        core_emit_id(c, CORE_DO_FORGET_PEER, w->peer);
        core_worker_remove(c, w, false, "its worker sent no heartbeats");
        return;
    }
    w->silent = true;
    core_worker_update(w, c);
    if (core_heap_set(&c->worker_deadlines, &w->deadline_place, forget_at, w) < 0)
        core_break(c);
}

int core_on_tick(struct core *c, const struct core_event *e)
{
    struct core_heap *leases = &c->lease_deadlines, *workers = &c->worker_deadlines, *rests = &c->rests;

    (void)e;
    while (leases->n && leases->entries[0].key <= c->now_ms && !c->broken)
        lease_is_due(c, leases->entries[0].item);
    while (rests->n && rests->entries[0].key <= c->now_ms) {
        struct core_worker *w = rests->entries[0].item;

        core_heap_remove(rests, &w->rest_place);
        core_worker_update(w, c);
    }
    while (c->unseen_ends.n && c->unseen_ends.entries[0].key <= c->now_ms && !c->broken)
        core_worker_looks_again(c, c->unseen_ends.entries[0].item);
    while (workers->n && workers->entries[0].key <= c->now_ms && !c->broken)
        worker_is_late(c, workers->entries[0].item);
    return 0;
}
