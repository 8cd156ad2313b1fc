/* Who gets what next: started subunits before fresh ones, then the deepest node, then the job that had the least. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

enum {
    ROOM_LOOKED_AT = 8,       /* workers of a pool tried for a task; bounds the cost of a grant */
    EXCLUSIVE_LOOKED_AT = 64, /* exclusive tasks of a queue tried in one round */
};

static bool rows_allow(const struct core *c, const struct core_subunit *p)
{
    uint64_t need = p->unit->job->row_bytes * p->n_wanted, taken = c->row_bytes + c->reserved_row_bytes;

    /* Commits free the rows that are kept, and subunits under way lead to commits. Without either, only this subunit
     * can make progress. */
    return need == 0 || (c->n_reserved == 0 && c->n_commits == 0) || core_planted(c, CORE_BUG_IGNORE_ROW_LIMIT) ||
           (need <= c->limits.row_bytes && taken <= c->limits.row_bytes - need);
}

static bool memory_allows(const struct core *c, const struct core_subunit *p)
{
    uint64_t need = core_subunit_need(p);

    if (!rows_allow(c, p))
        return false;
    return need == 0 || c->reserved_bytes == 0 || core_planted(c, CORE_BUG_IGNORE_MEMORY) ||
           (need <= c->limits.memory_bytes && c->reserved_bytes <= c->limits.memory_bytes - need);
}

static void grant(struct core *c, struct core_task *t, struct core_worker *w)
{
    struct core_subunit *p = t->subunit;
    struct core_job *j = p->unit->job;

    core_queue_remove(t);
    if (!p->is_reserved) {
        core_subunit_reserve(p);
        p->pass = j->pass;
        j->pass += ((uint64_t)p->n_wanted << 20) / (core_planted(c, CORE_BUG_PRIORITY_IGNORED) ? 100 : j->priority) + 1;
        if (j->pass > c->vtime)
            c->vtime = j->pass;
        if (p->unit->state == CORE_UNIT_WAITING)
            core_unit_set_state(p->unit, CORE_UNIT_STARTED);
        /* This subunit's other first nodes are no longer fresh. */
        for (uint32_t k = 0; k < j->n_nodes; k++)
            if (p->tasks[k].state == CORE_TASK_READY) {
                core_queue_remove(&p->tasks[k]);
                core_queue_push(&p->tasks[k], true);
            }
    }
    core_lease_grant(c, t, w);
}

/* -- shared workers -- */

/* A worker of the pool that has room: on the host of its input if possible, otherwise the emptiest. */
static struct core_worker *find_worker(const struct core *c, const struct core_pool *p, const struct core_task *t)
{
    const struct core_job_node *n = core_node_of(t);
    uint32_t n_items = t->subunit->n_alive;
    uint64_t n_bytes = core_task_input_bytes(t, n_items);

    if (n->spec.needs) {
        uint32_t input = (uint32_t)__builtin_ctz(n->spec.needs);
        const struct core_group *g = core_map_get(&c->groups, core_group_key(p, t->subunit->tasks[input].host));

        if (g && g->room.n && core_worker_fits(g->room.entries[0].item, c, n_items, n_bytes))
            return g->room.entries[0].item;
    }
    for (size_t i = 0; i < p->room.n && i < ROOM_LOOKED_AT; i++)
        if (core_worker_fits(p->room.entries[i].item, c, n_items, n_bytes))
            return p->room.entries[i].item;
    return NULL;
}

static bool any_pool_open(const struct core *c, const struct core_job_node *n)
{
    for (uint32_t i = 0; i < c->n_pools; i++)
        if (core_pool_matches(c, c->pools[i], n) && !c->pools[i]->blocked)
            return true;
    return false;
}

/* Jobs start work by fair share; later nodes keep that order, however much waits for them. */
static uint64_t pass_of(const struct core_task *t)
{
    return t->subunit->is_reserved ? t->subunit->pass : t->subunit->unit->job->pass;
}

/* Started before fresh, deep nodes before shallow ones, then by fair share. */
static bool goes_first(const struct core_task *a, const struct core_task *b)
{
    bool fresh_a = a->queue == CORE_QUEUE_FRESH, fresh_b = b->queue == CORE_QUEUE_FRESH;

    if (fresh_a != fresh_b)
        return fresh_b;
    if (core_node_of(a)->rank != core_node_of(b)->rank)
        return core_node_of(a)->rank < core_node_of(b)->rank;
    return pass_of(a) < pass_of(b);
}

static struct core_task *pick(const struct core *c, uint32_t stage, bool memory_wait)
{
    struct core_task *best = NULL;

    for (uint32_t i = 0; i < c->n_jobs; i++) {
        struct core_job *j = c->jobs[i];

        for (uint32_t k = 0; k < j->n_nodes; k++) {
            const struct core_job_node *n = &j->nodes[k];
            struct core_task *t = n->queues[CORE_QUEUE_READY].first;

            if (n->spec.stage != stage)
                continue;
            if (!t && !memory_wait && core_job_may_start(j))
                t = n->queues[CORE_QUEUE_FRESH].first;
            if (t && (!best || goes_first(t, best)) && any_pool_open(c, n))
                best = t;
        }
    }
    return best;
}

/* A task that is first in line but finds no room blocks its pools for later tasks; otherwise a large subunit would wait
 * forever behind small ones that just fit. The same holds for memory. */
static void schedule_stage(struct core *c, uint32_t stage, bool *memory_wait)
{
    struct core_task *t;

    while ((t = pick(c, stage, *memory_wait))) {
        struct core_worker *w = NULL;

        for (uint32_t i = 0; i < c->n_pools && !w; i++)
            if (core_pool_matches(c, c->pools[i], core_node_of(t)) && !c->pools[i]->blocked) {
                w = find_worker(c, c->pools[i], t);
                c->pools[i]->blocked = !w;
            }
        if (w && t->queue == CORE_QUEUE_FRESH && !memory_allows(c, t->subunit))
            *memory_wait = true;
        else if (w)
            grant(c, t, w);
        if (c->broken)
            return;
    }
}

/* -- exclusive tasks -- */

static void draining_ends(struct core *c, struct core_pool *p)
{
    struct core_worker *w = p->draining;

    p->draining = NULL;
    if (w)
        core_worker_update(w, c);
}

/* The emptiest worker that may have the task. */
static struct core_worker *emptiest(const struct core *c, const struct core_pool *p, const struct core_task *t)
{
    const struct core_heap_entry *best = NULL;

    for (size_t i = 0; i < p->room.n && i < ROOM_LOOKED_AT; i++)
        if (!core_task_avoids(c, t, p->room.entries[i].item) && (!best || p->room.entries[i].key < best->key))
            best = &p->room.entries[i];
    return best ? best->item : NULL;
}

/* An empty worker. NULL: there is none; a worker of each pool that may run the task is drained for it. */
static struct core_worker *find_empty(struct core *c, const struct core_task *t)
{
    const struct core_job_node *n = core_node_of(t);

    for (uint32_t i = 0; i < c->n_pools; i++) {
        struct core_pool *p = c->pools[i];
        struct core_worker *w;

        if (!core_pool_matches(c, p, n))
            continue;
        w = emptiest(c, p, t);
        p->wanted = true;
        if (p->draining && p->draining->n_leases == 0 && p->draining->pool_place &&
            !core_task_avoids(c, t, p->draining))
            return p->draining;
        if (w && w->n_leases == 0)
            return w;
        if (w && (!p->draining || core_task_avoids(c, t, p->draining))) {
            draining_ends(c, p);
            p->draining = w;
            core_worker_update(w, c);
        }
    }
    return NULL;
}

/* Try the first few tasks of a queue: one that waits for a certain worker does not block the others. */
static void schedule_queue_exclusive(struct core *c, const struct core_queue *q, bool fresh, bool *memory_wait)
{
    uint32_t n_waiting = 0;

    for (struct core_task *t = q->first, *next; t && n_waiting < EXCLUSIVE_LOOKED_AT; t = next) {
        struct core_worker *w = find_empty(c, t);

        next = t->next;
        if (w && fresh && (*memory_wait || !memory_allows(c, t->subunit))) {
            *memory_wait = true;
            return;
        }
        n_waiting += !w;
        if (!w)
            continue;
        if (w->pool->draining == w)
            draining_ends(c, w->pool);
        grant(c, t, w);
        if (c->broken)
            return;
    }
}

static void schedule_exclusive(struct core *c, uint32_t stage, bool *memory_wait)
{
    for (uint32_t i = 0; i < c->n_jobs && c->n_ready_exclusive[stage]; i++) {
        struct core_job *j = c->jobs[i];

        for (uint32_t k = 0; k < 2 * j->n_nodes; k++) {
            struct core_job_node *n = &j->nodes[k / 2];
            bool fresh = k & 1;

            if (n->spec.stage == stage && (!fresh || core_job_may_start(j)))
                schedule_queue_exclusive(c, &n->queues[fresh ? CORE_QUEUE_FRESH_EXCLUSIVE : CORE_QUEUE_READY_EXCLUSIVE],
                                         fresh, memory_wait);
            if (c->broken)
                return;
        }
    }
}

void core_schedule(struct core *c)
{
    bool memory_wait = false;

    for (uint32_t i = 0; i < c->n_pools; i++) {
        c->pools[i]->wanted = false;
        c->pools[i]->blocked = false;
    }
    for (uint32_t stage = N_STAGES - 1; stage > 0; stage--)
        if (c->n_workers[stage] && c->n_ready_exclusive[stage])
            schedule_exclusive(c, stage, &memory_wait);
    for (uint32_t i = 0; i < c->n_pools; i++) {
        if (c->pools[i]->draining && !c->pools[i]->wanted)
            draining_ends(c, c->pools[i]);
        c->pools[i]->blocked = c->pools[i]->room.n == 0;
    }
    for (uint32_t stage = N_STAGES - 1; stage > 0; stage--)
        if (c->n_workers[stage] && c->n_ready[stage])
            schedule_stage(c, stage, &memory_wait);
}
