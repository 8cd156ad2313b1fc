/* The circuit breaker: how far a worker is trusted.
 *
 * A worker that fails fast always has room and would take most of the work. So every lease that ends badly counts
 * against its worker, until the worker gives a good result. From the second in a row on, the worker gets one lease at a
 * time, with growing pauses. From the third on, its failures are not held against a unit while other workers could do
 * that unit. From the sixth on, the worker is benched and the shell is told why. A benched worker is still tried again
 * after each pause.
 *
 * A failed task does not go to the same worker again while another worker could do it. The second failure of a subunit,
 * or of a piece of it, therefore says more about the subunit than about the worker, and counts against the subunit
 * only. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <stdio.h>
#include <string.h>

enum {
    BENCHED_FROM = 6, /* bad ends in a row */
    FIRST_REST_MS = 100,
    LONGEST_REST_OF_ONLY_MS = 1000, /* if no other worker could do its work */
};

/* -- who failed a task -- */

static bool has_failed(const struct core_task *t, const struct core_worker *w)
{
    for (uint32_t i = 0; i < t->n_failers && i < CORE_MAX_FAILERS; i++)
        if (t->failers[i] == w->name_key)
            return true;
    return false;
}

void core_task_failed_on(struct core_task *t, const struct core_worker *w)
{
    if (!has_failed(t, w))
        t->failers[t->n_failers++ % CORE_MAX_FAILERS] = w->name_key;
    if (t->subunit->failed_before)
        return;
    t->subunit->failed_before = true;
    core_subunit_suspect(t->subunit);
}

/* Is there another worker in good standing that could do the task and has not failed it? */
static bool has_others(const struct core *c, const struct core_task *t, const struct core_worker *but)
{
    const struct core_job_node *n = &t->subunit->unit->job->nodes[t->node];
    uint32_t n_good = 0;

    for (uint32_t i = 0; i < c->n_pools; i++)
        n_good += core_pool_matches(c, c->pools[i], n) ? c->pools[i]->n_good : 0;
    for (uint32_t i = 0; i < t->n_failers && i < CORE_MAX_FAILERS; i++) {
        const struct core_worker *w = core_map_get(&c->workers_by_name, t->failers[i]);

        n_good -= w && w != but && w->good && core_pool_matches(c, w->pool, n);
    }
    return n_good > (but && but->good);
}

bool core_task_avoids(const struct core *c, const struct core_task *t, const struct core_worker *w)
{
    return !core_planted(c, CORE_BUG_SAME_WORKER_AGAIN) && has_failed(t, w) && has_others(c, t, NULL);
}

bool core_task_needs_another(const struct core *c, const struct core_task *t)
{
    return !core_planted(c, CORE_BUG_SAME_WORKER_AGAIN) && t->n_failers < 2 && has_others(c, t, NULL);
}

/* Does a failure of this worker count against the subunit? */
bool core_task_is_to_blame(const struct core *c, const struct core_task *t, const struct core_worker *w)
{
    return core_worker_n_in_row(w) < CORE_TRUSTED_BELOW || !has_others(c, t, w);
}

/* -- what a bad end costs a worker -- */

static void set_benched(struct core *c, struct core_worker *w, bool benched)
{
    struct core_action *a;
    char *why;

    if (w->benched == benched)
        return;
    w->benched = benched;
    c->n_benched[w->pool->stage] += (uint32_t)benched - (uint32_t)!benched;
    why = core_emit_alloc(c, sizeof(w->why));
    if (!why)
        return;
    memcpy(why, w->why, sizeof(w->why));
    a = core_emit(c, CORE_DO_BENCH);
    a->bench.peer = w->peer;
    a->bench.n_bad = benched ? core_worker_n_in_row(w) : 0;
    a->bench.why = why;
}

/* `count` points to the worker's n_bad or n_refused. */
void core_worker_charge(struct core *c, struct core_worker *w, uint32_t *count, const char *code, const char *text)
{
    const bool only = w->pool->n_good <= w->good;
    const int64_t most_ms = only ? LONGEST_REST_OF_ONLY_MS : c->limits.lease_ms;
    int64_t rest_ms = FIRST_REST_MS;

    if (core_planted(c, CORE_BUG_NEVER_BENCH))
        return;
    ++*count;
    (void)snprintf(w->why, sizeof(w->why), "%s%s%s", code, *code && *text ? ": " : "", text);
    core_worker_update(w, c);
    if (!core_worker_is_careful(w))
        return;
    for (uint32_t n = CORE_CAREFUL_FROM; n < core_worker_n_in_row(w) && rest_ms < most_ms; n++)
        rest_ms *= 2;
    core_worker_rest(c, w, rest_ms < most_ms ? rest_ms : most_ms);
    if (core_worker_n_in_row(w) < BENCHED_FROM || w->benched)
        return;
    c->counters.benches++;
    set_benched(c, w, true);
}

static void acquit(struct core *c, struct core_worker *w, uint32_t *count)
{
    if (*count == 0)
        return;
    *count = 0;
    if (!core_worker_is_careful(w)) {
        core_heap_remove(&c->rests, &w->rest_place);
        set_benched(c, w, false);
    }
    core_worker_update(w, c);
}

void core_worker_did_well(struct core *c, const struct core_lease *l)
{
    const struct core_subunit *p = l->task->subunit;

    acquit(c, l->worker, &l->worker->n_bad);
    for (uint32_t k = 0; k < l->task->node; k++) {
        struct core_worker *maker = NULL;

        if (p->unit->job->nodes[l->task->node].spec.needs >> k & 1 && p->unit->job->nodes[k].spec.out_bytes)
            maker = core_map_get(&c->workers_by_name, p->tasks[k].maker);
        if (maker)
            acquit(c, maker, &maker->n_refused);
    }
}
