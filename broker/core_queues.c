/* Queues of ready tasks: one for each node of a job and each kind of task. */
#include "broker/core_job.h"

#include <assert.h>

static bool is_exclusive(enum core_queue_kind k)
{
    return k == CORE_QUEUE_READY_EXCLUSIVE || k == CORE_QUEUE_FRESH_EXCLUSIVE;
}

bool core_subunit_is_exclusive(const struct core_subunit *p)
{
    return (p->split || p->failures > 0 || p->failed_before) &&
           !core_planted(core_of_subunit(p), CORE_BUG_NEVER_EXCLUSIVE);
}

void core_queue_push(struct core_task *t, bool front)
{
    struct core_job_node *n = core_node_of(t);
    struct core *c = t->subunit->unit->job->core;
    bool exclusive = core_subunit_is_exclusive(t->subunit);
    struct core_queue *q;

    assert(t->queue == CORE_QUEUE_NONE);
    t->state = CORE_TASK_READY;
    if (t->subunit->is_reserved)
        t->queue = exclusive ? CORE_QUEUE_READY_EXCLUSIVE : CORE_QUEUE_READY;
    else
        t->queue = exclusive ? CORE_QUEUE_FRESH_EXCLUSIVE : CORE_QUEUE_FRESH;
    q = &n->queues[t->queue];
    t->prev = front ? NULL : q->last;
    t->next = front ? q->first : NULL;
    *(t->prev ? &t->prev->next : &q->first) = t;
    *(t->next ? &t->next->prev : &q->last) = t;
    q->n++;
    c->n_ready[n->spec.stage]++;
    c->n_ready_exclusive[n->spec.stage] += exclusive;
}

void core_queue_remove(struct core_task *t)
{
    struct core_job_node *n = core_node_of(t);
    struct core *c = t->subunit->unit->job->core;
    struct core_queue *q = &n->queues[t->queue];

    assert(t->queue != CORE_QUEUE_NONE);
    *(t->prev ? &t->prev->next : &q->first) = t->next;
    *(t->next ? &t->next->prev : &q->last) = t->prev;
    q->n--;
    c->n_ready[n->spec.stage]--;
    c->n_ready_exclusive[n->spec.stage] -= is_exclusive(t->queue);
    t->prev = t->next = NULL;
    t->queue = CORE_QUEUE_NONE;
    t->state = CORE_TASK_WAITING;
}

/* From now on it runs exclusively. Its leases at other nodes go on; its ready tasks change their queue. */
void core_subunit_suspect(struct core_subunit *p)
{
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        if (p->tasks[k].state == CORE_TASK_READY) {
            core_queue_remove(&p->tasks[k]);
            core_queue_push(&p->tasks[k], true);
        }
}
