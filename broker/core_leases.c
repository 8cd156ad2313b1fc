/* Leases: who holds which task, what ends it, and when. */
#include "broker/core_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe_inputs(struct core_work *work, struct core_task *t)
{
    struct core_subunit *p = t->subunit;

    for (uint32_t k = 0; k < t->node; k++) {
        const struct core_task *in = &p->tasks[k];

        if (p->unit->job->nodes[t->node].spec.needs >> k & 1)
            work->inputs[work->n_inputs++] =
                (struct core_input){.payload = in->payload, .node = k, .n_tensor = in->n_ok, .ok = in->ok};
    }
}

static void emit_work(struct core *c, const struct core_lease *l)
{
    struct core_task *t = l->task;
    struct core_work *work = &core_emit(c, CORE_DO_WORK)->work;

    *work = (struct core_work){
        .peer = l->worker->peer,
        .epoch = c->epoch,
        .lease = l->id,
        .job = t->subunit->unit->job->id,
        .unit = t->subunit->unit->number,
        .node = t->node,
        .attempt = t->subunit->failures,
        .first = t->subunit->first,
        .count = t->subunit->count,
        .n_items = t->n_rows,
        .items = t->rows,
        .exclusive = l->exclusive,
    };
    describe_inputs(work, t);
}

static void extend(struct core *c, struct core_lease *l)
{
    const int64_t stall_ms = core_stall_at(c, l);

    l->until_ms = c->now_ms + c->limits.lease_ms;
    if (core_heap_set(&c->lease_deadlines, &l->deadline_place, l->until_ms < stall_ms ? l->until_ms : stall_ms, l) < 0)
        core_break(c);
}

void core_lease_grant(struct core *c, struct core_task *t, struct core_worker *w)
{
    struct core_job *j = t->subunit->unit->job;
    struct core_lease *l = calloc(1, sizeof(*l));

    if (!l || core_map_put(&c->leases, c->next_lease, l) < 0) {
        free(l);
        core_break(c);
        return;
    }
    memcpy(t->rows, t->subunit->alive, t->subunit->n_words * sizeof(t->rows[0]));
    t->n_rows = t->subunit->n_alive;
    t->state = CORE_TASK_LEASED;
    t->lease = l;
    *l = (struct core_lease){
        .id = c->next_lease++,
        .task = t,
        .worker = w,
        .next = w->leases,
        .n_items = t->n_rows,
        .attempt = t->subunit->failures,
        .n_bytes = core_planted(c, CORE_BUG_INPUT_BYTES_FORGOTTEN) ? 0 : j->nodes[t->node].in_bytes * t->n_rows,
        .granted_ms = c->now_ms,
        .held_at_grant = w->held_items + t->n_rows,
        .exclusive = core_subunit_is_exclusive(t->subunit),
        .on_trial = w->n_late > 0,
    };
    if (l->next)
        l->next->prev = l;
    w->leases = l;
    w->n_leases++;
    w->held_items += l->n_items;
    w->held_bytes += l->n_bytes;
    w->holds_exclusive = l->exclusive && !core_planted(c, CORE_BUG_EXCLUSIVE_IN_NAME);
    core_worker_update(w, c);
    j->nodes[t->node].n_leased++;
    j->n_leases++;
    c->counters.leases_granted++;
    extend(c, l);
    emit_work(c, l);
}

void core_lease_end(struct core *c, struct core_lease *l)
{
    struct core_worker *w = l->worker;
    struct core_job *j = l->task->subunit->unit->job;

    core_map_take(&c->leases, l->id);
    core_heap_remove(&c->lease_deadlines, &l->deadline_place);
    *(l->prev ? &l->prev->next : &w->leases) = l->next;
    if (l->next)
        l->next->prev = l->prev;
    w->n_leases--;
    w->held_items -= l->n_items;
    w->held_bytes -= l->n_bytes;
    if (l->exclusive)
        w->holds_exclusive = false;
    core_worker_update(w, c);
    j->nodes[l->task->node].n_leased--;
    j->n_leases--;
    core_job_touch(j);
    l->task->lease = NULL;
    l->task->state = CORE_TASK_WAITING;
    free(l);
}

static void lease_fails(struct core *c, struct core_lease *l, const char *code, const char *text)
{
    struct core_task *t = l->task;
    const uint32_t attempt = l->attempt;

    core_lease_end(c, l);
    core_task_failed(t, attempt, code, text);
}

/* Its worker is no more. */
void core_lease_lost(struct core *c, struct core_lease *l, const char *text)
{
    struct core_job_node *n = &l->task->subunit->unit->job->nodes[l->task->node];

    n->failures++;
    n->isolations += l->exclusive || core_planted(c, CORE_BUG_ISOLATION_IN_COMPANY);
    c->counters.failures++;
    core_task_failed_on(l->task, l->worker);
    if (core_planted(c, CORE_BUG_DEATH_UNBLAMED))
        core_lease_give_back(c, l);
    else
        lease_fails(c, l, "worker_lost", text);
}

void core_lease_give_back(struct core *c, struct core_lease *l)
{
    struct core_task *t = l->task;
    const uint32_t attempt = l->attempt;

    c->counters.returns++;
    core_lease_end(c, l);
    core_task_returned(t, attempt);
}

/* The worker has a new connection and says which leases it holds: those go on. The others never reached it, or what it
 * made of them was lost on the way. */
void core_leases_confirm(struct core *c, struct core_worker *w, const uint64_t *leases, uint32_t n)
{
    struct core_lease *l;

    for (uint32_t i = 0; i < n; i++) {
        l = core_map_get(&c->leases, leases[i]);
        if (!l || l->worker != w)
            continue;
        l->confirmed = true;
        extend(c, l);
    }
    for (l = w->leases; l;) {
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): core_lease_end takes what it frees off the list */
        if (l->confirmed || core_planted(c, CORE_BUG_LOST_LEASES_STAY)) {
            l = l->next;
            continue;
        }
        core_lease_give_back(c, l);
        l = w->leases; /* that may have ended others, too */
    }
    for (l = w->leases; l; l = l->next)
        l->confirmed = false;
}

/* -- messages ------------------------------------------------------------------------------------------------------ */

int core_on_heartbeat(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_worker_heard(c, e->heartbeat.peer);
    uint32_t n = e->heartbeat.n;

    if (!w)
        return 0;
    if (e->heartbeat.epoch != c->epoch && !core_planted(c, CORE_BUG_HEARTBEAT_OF_ANY_EPOCH))
        return 0;
    core_stall_heard(c, w, e->heartbeat.items);
    if (n > c->limits.max_worker_leases) {
        c->counters.dropped_bad++;
        n = c->limits.max_worker_leases;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct core_lease *l = core_map_get(&c->leases, e->heartbeat.leases[i]);

        if (l && (l->worker == w || core_planted(c, CORE_BUG_HEARTBEAT_OF_ANY_PEER)))
            extend(c, l);
    }
    if (core_planted(c, CORE_BUG_HEARTBEAT_EXTENDS_ALL))
        for (struct core_lease *l = w->leases; l; l = l->next)
            extend(c, l);
    return 0;
}

/* The lease that a peer speaks of, if it is its own and of this epoch. The peer is heard. */
static struct core_lease *find_lease(struct core *c, const struct core_lease_ref *ref)
{
    struct core_lease *l = core_map_get(&c->leases, ref->lease);
    const bool any = core_planted(c, CORE_BUG_SKIP_FENCE);

    (void)core_worker_heard(c, ref->peer);
    if (l && (any || ref->epoch == c->epoch || core_planted(c, CORE_BUG_LEASE_OF_ANY_EPOCH)) &&
        (any || l->worker->peer == ref->peer || core_planted(c, CORE_BUG_LEASE_OF_ANY_PEER)))
        return l;
    c->counters.dropped_stale++;
    return NULL;
}

/* It ended a lease itself: it works. */
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
    if (!l) { /* also of strangers: the payload must go */
        core_emit_id(c, CORE_DO_DROP_PAYLOAD, e->result.payload);
        return 0;
    }
    t = l->task;
    host = l->worker->host;
    maker = l->worker->name_key;
    not_late(l->worker, c);
    if (e->result.n_rows == t->n_rows || core_planted(c, CORE_BUG_SHORT_RESULT_TAKEN)) {
        core_stall_measure(c, l);
        core_worker_did_well(c, l);
        core_lease_end(c, l);
        c->counters.results++;
        t->host = host;
        t->maker = maker;
        core_task_result(t, e);
        return 0;
    }
    c->counters.dropped_bad++;
    core_emit_id(c, CORE_DO_DROP_PAYLOAD, e->result.payload);
    snprintf(text, sizeof(text), "a result of %u rows where %u were asked for", e->result.n_rows, t->n_rows);
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
        core_lease_refuses(c, l, e->failure.refused, e->failure.text ? e->failure.text : "");
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

/* -- time ---------------------------------------------------------------------------------------------------------- */

/* A worker that lets leases expire may still send heartbeats (its device hangs, say). From then on it is on trial: one
 * lease at a time, longer and longer pauses, and what expires on trial is the worker's fault, not the unit's. */
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
        core_emit_hung(c, w, "it is heard, and lets its units wait");
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

/* It was not extended; or it lasted too long; or too long by what was known when it was extended. */
static void lease_is_due(struct core *c, struct core_lease *l)
{
    const int64_t stall_ms = core_stall_at(c, l);

    if (l->until_ms <= c->now_ms)
        lease_expires(c, l);
    else if (stall_ms <= c->now_ms)
        core_worker_stalls(c, l->worker);
    else if (core_heap_set(&c->lease_deadlines, &l->deadline_place, l->until_ms < stall_ms ? l->until_ms : stall_ms,
                           l) < 0)
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
    while (workers->n && workers->entries[0].key <= c->now_ms && !c->broken)
        core_worker_is_late(c, workers->entries[0].item);
    return 0;
}
