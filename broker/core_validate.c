/* Asserts every invariant of the core. Looks at everything, so it is for tests. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <assert.h>

struct tally {
    uint64_t reserved_bytes, reserved_row_bytes, row_bytes;
    uint32_t n_reserved, n_leases, n_payloads, n_commits;
    uint32_t n_ready[N_STAGES], n_ready_exclusive[N_STAGES];
};

static void check_task(const struct core *c, const struct core_task *t, struct tally *sum)
{
    const struct core_subunit *p = t->subunit;
    const struct core_job *j = p->unit->job;

    assert((t->state == CORE_TASK_READY) == (t->queue != CORE_QUEUE_NONE));
    assert((t->state == CORE_TASK_LEASED) == (t->lease != NULL));
    assert((t->payload != 0) == (t->has_tensors || t->has_rows));
    assert(t->payload == 0 || t->state == CORE_TASK_DONE);
    assert(t->row_bytes == 0 || t->has_rows);
    sum->row_bytes += t->row_bytes;
    if (t->payload) {
        assert(core_map_get(&c->payloads, t->payload) == t);
        sum->n_payloads++;
    }
    if (t->state == CORE_TASK_READY || t->state == CORE_TASK_LEASED) {
        assert(!p->finished && p->n_alive > 0);
        for (uint32_t k = 0; k < t->node; k++)
            if (j->nodes[t->node].spec.needs >> k & 1)
                assert(p->tasks[k].state == CORE_TASK_DONE && p->tasks[k].has_tensors);
    }
    if (t->state == CORE_TASK_READY) {
        bool fresh = t->queue == CORE_QUEUE_FRESH || t->queue == CORE_QUEUE_FRESH_EXCLUSIVE;
        bool exclusive = t->queue == CORE_QUEUE_READY_EXCLUSIVE || t->queue == CORE_QUEUE_FRESH_EXCLUSIVE;

        assert(fresh == !p->is_reserved && exclusive == core_subunit_is_exclusive(p));
        sum->n_ready[j->nodes[t->node].spec.stage]++;
        sum->n_ready_exclusive[j->nodes[t->node].spec.stage] += exclusive;
    }
    if (t->state == CORE_TASK_LEASED) {
        assert(p->is_reserved && t->lease->task == t && core_map_get(&c->leases, t->lease->id) == t->lease);
        sum->n_leases++;
    }
}

static void check_subunit(const struct core *c, const struct core_subunit *p, struct tally *sum)
{
    uint32_t n_done = 0, n_alive = 0, n_going = 0;

    for (uint32_t w = 0; w < p->n_words; w++)
        n_alive += (uint32_t)__builtin_popcountll(p->alive[w]);
    assert(n_alive == p->n_alive && n_alive <= p->n_wanted && p->n_wanted > 0 && p->n_wanted <= p->count);
    assert((p->count == 1) == (p->n_wanted == 1));
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++) {
        const struct core_task *t = &p->tasks[k];

        assert(t->subunit == p && t->node == k);
        check_task(c, t, sum);
        n_done += t->state == CORE_TASK_DONE;
        n_going += t->state == CORE_TASK_READY || t->state == CORE_TASK_LEASED;
        assert(!p->finished || !t->has_tensors);
    }
    assert(n_done == p->n_done || p->quarantined);
    assert(p->finished == (p->n_done == p->unit->job->n_nodes || p->n_alive == 0));
    assert(p->finished || n_going > 0); /* or it would never finish */
    assert(!p->finished || !p->is_reserved);
    assert(p->is_reserved || (p->reserved_bytes == 0 && p->reserved_row_bytes == 0));
    sum->reserved_row_bytes += p->reserved_row_bytes;
    sum->n_reserved += p->is_reserved;
    sum->reserved_bytes += p->reserved_bytes;
}

static void check_unit(const struct core *c, const struct core_unit *u, struct tally *sum)
{
    uint32_t n_subunits = 0, n_finished = 0, next_item = 0, n_wanted = 0;
    bool ended = u->state == CORE_UNIT_COMMIT || u->state == CORE_UNIT_COMMIT_FAILED || u->state == CORE_UNIT_HELD;

    for (const struct core_subunit *p = u->subunits; p; p = p->next) {
        assert(p->unit == u && p->count > 0 && (u->again ? p->first >= next_item : p->first == next_item));
        next_item = p->first + p->count;
        n_wanted += p->n_wanted;
        n_subunits++;
        n_finished += p->finished;
        check_subunit(c, p, sum);
    }
    assert(u->again ? next_item <= u->n_items : next_item == u->n_items && n_wanted == u->n_items);
    assert(n_wanted == u->n_wanted && n_subunits == u->n_subunits && n_finished == u->n_finished);
    assert((n_finished == n_subunits) == ended && (u->state != CORE_UNIT_HELD || !u->again));
    sum->n_commits += u->state == CORE_UNIT_COMMIT;
}

static void check_queues(const struct core_job *j)
{
    for (uint32_t k = 0; k < j->n_nodes; k++)
        for (uint32_t q = 0; q < CORE_N_QUEUES; q++) {
            const struct core_queue *queue = &j->nodes[k].queues[q];
            const struct core_task *last = NULL;
            uint32_t n = 0;

            for (const struct core_task *t = queue->first; t; last = t, t = t->next, n++)
                assert(t->prev == last && t->queue == q && t->node == k && t->subunit->unit->job == j);
            assert(queue->last == last && queue->n == n);
        }
}

static void check_job(const struct core *c, const struct core_job *j, struct tally *sum)
{
    struct tally before = *sum;
    uint32_t n_units = 0;

    assert(core_map_get(&c->jobs_by_id, j->id) == j && !j->touched);
    for (uint32_t s = 0; s < CORE_N_UNIT_STATES; s++) {
        uint32_t n = 0;

        for (const struct core_unit *u = j->by_state[s]; u; u = u->next, n++) {
            assert(u->state == s && u->job == j && core_map_get(&j->units, (uint64_t)u->number + 1) == u);
            check_unit(c, u, sum);
        }
        assert(n == j->n_by_state[s]);
        n_units += n;
    }
    assert(n_units == j->units.n && n_units <= c->limits.window_units);
    assert(sum->n_leases - before.n_leases == j->n_leases && sum->n_reserved - before.n_reserved == j->n_reserved);
    assert(j->blocked || j->n_by_state[CORE_UNIT_COMMIT_FAILED] == 0);
    assert((!j->paused || j->stopped) && (!j->paused || j->n_by_state[CORE_UNIT_HELD] == 0));
    check_queues(j);
}

static void check_worker(const struct core *c, const struct core_worker *w)
{
    uint32_t n = 0, items = 0;
    uint64_t bytes = 0;
    bool exclusive = false;

    for (const struct core_lease *l = w->leases; l; l = l->next) {
        assert(l->worker == w && l->task->lease == l && l->deadline_place != 0);
        assert(!l->next || l->next->prev == l);
        n++;
        items += l->n_items;
        bytes += l->n_bytes;
        exclusive = exclusive || l->exclusive;
    }
    assert(n == w->n_leases && items == w->held_items && bytes == w->held_bytes && exclusive == w->holds_exclusive);
    assert(!exclusive || n == 1);
    assert(n <= c->limits.max_worker_leases && w->deadline_place != 0);
    assert(core_map_get(&c->workers_by_peer, w->peer) == w && core_map_get(&c->workers_by_name, w->name_key) == w);
    assert((w->pool_place != 0) == (w->group_place != 0));
    assert(!w->lost || w->silent);
    for (uint32_t i = 0; i < CORE_MAX_UNSEEN; i++)
        assert(!w->unseen[i].rests || (w->unseen[i].job && w->unseen_place));
    assert(w->pool_place == 0 || (!w->silent && w->window_items > 0 && !w->holds_exclusive));
}

void core_validate(const struct core *c)
{
    struct tally sum = {0};
    uint32_t n_workers = 0, n_lost = 0;
    size_t at = 0;

    if (c->broken)
        return;
    for (uint32_t i = 0; i < c->n_jobs; i++)
        check_job(c, c->jobs[i], &sum);
    assert(c->n_jobs == c->jobs_by_id.n && !c->touched);
    assert(sum.reserved_bytes == c->reserved_bytes && sum.n_reserved == c->n_reserved);
    assert(c->reserved_bytes <= c->limits.memory_bytes || c->n_reserved == 1);
    assert(sum.row_bytes == c->row_bytes && sum.reserved_row_bytes == c->reserved_row_bytes);
    assert(sum.n_leases == c->leases.n && sum.n_leases == c->lease_deadlines.n);
    assert(sum.n_payloads == c->payloads.n && sum.n_commits == c->n_commits);
    for (uint32_t s = 0; s < N_STAGES; s++)
        assert(sum.n_ready[s] == c->n_ready[s] && sum.n_ready_exclusive[s] == c->n_ready_exclusive[s]);
    for (const struct core_worker *w; (w = core_map_next(&c->workers_by_peer, &at));) {
        check_worker(c, w);
        n_lost += w->lost;
    }
    assert(n_lost == c->n_lost && (n_lost == 0 || !c->shutdown));
    for (uint32_t i = 0; i < c->n_pools; i++) {
        assert(c->pools[i]->n_workers > 0);
        n_workers += c->pools[i]->n_workers;
        core_heap_validate(&c->pools[i]->room);
    }
    assert(n_workers == c->workers_by_peer.n && n_workers == c->workers_by_name.n &&
           n_workers == c->worker_deadlines.n);
    core_heap_validate(&c->lease_deadlines);
    core_heap_validate(&c->worker_deadlines);
}
