/* How long a lease may take, measured by the speed of all workers.
 *
 * Heartbeats show that a worker is alive, not that it makes progress: one of its threads may hang forever while others
 * go on. So a lease ends in any case once it has taken STALL_FACTOR times as long as expected for everything that its
 * worker held when the lease was granted. Until a node has ended its first lease there is no speed to go by; then the
 * number of finished items in the worker's heartbeats counts as progress.
 * The worker of such a lease is cut off: its other leases go to other workers, and the shell is told, so that whoever
 * started the worker can end it. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

enum {
    STALL_FACTOR = 16,
    MEASURED_ITEMS = 65536, /* older items count less and less */
};

static void measure(struct core_pace *p, uint64_t ms, uint32_t n_items)
{
    p->ms += ms;
    p->n_items += n_items;
    if (p->n_items > MEASURED_ITEMS) {
        p->ms /= 2;
        p->n_items /= 2;
    }
}

void core_pace_measure(struct core *c, const struct core_lease *l)
{
    struct core_worker *w = l->worker;
    const int64_t from_ms = w->ended_ms > l->granted_ms ? w->ended_ms : l->granted_ms;
    struct core_task *t = l->task;

    measure(&t->subunit->unit->job->nodes[t->node].pace, (uint64_t)(c->now_ms - from_ms), l->n_items);
    measure(&w->pace, (uint64_t)(c->now_ms - from_ms), l->n_items);
    w->ended_ms = c->now_ms;
    w->n_moves = 0;
}

void core_pace_heard(struct core *c, struct core_worker *w, uint64_t items)
{
    if (items == w->items_said || w->n_moves >= w->held_items)
        return; /* a worker cannot finish more items than it holds without ending a lease */
    w->items_said = items;
    w->n_moves++;
    w->moved_ms = c->now_ms;
}

/* Microseconds an item. */
static uint64_t item_us(const struct core_pace *p)
{
    return p->n_items ? p->ms * 1000 / p->n_items : 0;
}

int64_t core_lease_stalls_at(const struct core *c, const struct core_lease *l)
{
    const struct core_pace *fleet = &l->task->subunit->unit->job->nodes[l->task->node].pace;
    uint64_t us = item_us(fleet), own_us = item_us(&l->worker->pace), ms;

    if (core_planted(c, CORE_BUG_NEVER_STALL))
        return INT64_MAX;
    if (fleet->n_items == 0)
        return (l->worker->moved_ms > l->granted_ms ? l->worker->moved_ms : l->granted_ms) + c->limits.first_stall_ms;
    us = own_us > us ? own_us : us;
    ms = us * l->held_at_grant * STALL_FACTOR / 1000;
    return l->granted_ms + (ms > (uint64_t)c->limits.stall_ms ? (int64_t)ms : c->limits.stall_ms);
}

bool core_is_cut_off(const struct core *c, uint64_t name_key)
{
    for (uint32_t i = 0; !core_planted(c, CORE_BUG_CUT_OFF_COMES_BACK) && i < c->n_cut_off && i < CORE_MAX_CUT_OFF; i++)
        if (c->cut_off[i] == name_key)
            return true;
    return false;
}
