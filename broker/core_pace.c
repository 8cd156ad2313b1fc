/* How long a lease may take, measured from what the fleet does.
 *
 * Heartbeats say that a worker lives, not that it gets anywhere: one thread of it may hang for ever while others move
 * on. So a lease ends in any case when it lasts STALL_FACTOR times as long as all that its worker had to do when it got
 * it should have taken. Until a node has ended its first lease there is nothing to measure by; then the items count
 * that the worker says it has done.
 * The worker is cut off: what it held goes to others, and the shell is told, so that whoever started it ends it. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

enum {
    STALL_FACTOR = 16,
    MEASURED_ITEMS = 65536, /* older ones weigh less and less */
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

void core_stall_measure(struct core *c, const struct core_lease *l)
{
    struct core_worker *w = l->worker;
    const int64_t from_ms = w->ended_ms > l->granted_ms ? w->ended_ms : l->granted_ms;
    struct core_task *t = l->task;

    measure(&t->subunit->unit->job->nodes[t->node].pace, (uint64_t)(c->now_ms - from_ms), l->n_items);
    measure(&w->pace, (uint64_t)(c->now_ms - from_ms), l->n_items);
    w->ended_ms = c->now_ms;
    w->n_moves = 0;
}

void core_stall_heard(struct core *c, struct core_worker *w, uint64_t items)
{
    if (items == w->items_said || w->n_moves >= w->held_items)
        return; /* no worker can do more items than it holds and end no lease */
    w->items_said = items;
    w->n_moves++;
    w->moved_ms = c->now_ms;
}

/* Of an item, in thousandths of a millisecond. */
static uint64_t item_us(const struct core_pace *p)
{
    return p->n_items ? p->ms * 1000 / p->n_items : 0;
}

int64_t core_stall_at(const struct core *c, const struct core_lease *l)
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
