/* How leases end without a good result: who is blamed, and what happens to the task. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

void core_lease_fails(struct core *c, struct core_lease *l, const char *code, const char *text)
{
    struct core_worker *w = l->worker;
    struct core_task *t = l->task;
    const bool blame = core_task_is_to_blame(c, t, w);
    const bool first = !t->subunit->failed_before;
    const uint32_t attempt = l->attempt;

    core_task_failed_on(t, w);
    core_lease_end(c, l);
    if (first)
        core_worker_charge(c, w, &w->n_bad, code, text);
    if (blame || core_planted(c, CORE_BUG_BLAME_ALWAYS))
        core_task_failed(t, attempt, code, text);
    else
        core_task_requeue(t);
}

void core_lease_returned(struct core *c, struct core_lease *l)
{
    struct core_worker *w = l->worker;
    struct core_task *t = l->task;
    const bool blame = core_task_is_to_blame(c, t, w);
    const uint32_t attempt = l->attempt;

    t->subunit->unit->job->nodes[t->node].returns++;
    c->counters.returns++;
    core_lease_end(c, l);
    if (w->window_items > 0) /* otherwise it is draining */
        core_worker_charge(c, w, &w->n_bad, "returned", "returned its work");
    if (blame)
        core_task_returned(t, attempt);
    else
        core_task_requeue(t);
}

void core_lease_inputs_refused(struct core *c, struct core_lease *l, uint32_t nodes, const char *text)
{
    struct core_subunit *p = l->task->subunit;

    core_lease_end(c, l);
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++) {
        struct core_task *made = &p->tasks[k];
        struct core_worker *maker = NULL;

        if (!(nodes >> k & 1) || made->state != CORE_TASK_DONE || !made->has_tensors)
            continue;
        c->counters.tensors_refused++;
        p->unit->job->nodes[k].tensors_refused++;
        maker = core_map_get(&c->workers_by_name, made->maker);
        if (!maker)
            continue;
        core_task_failed_on(made, maker);
        core_worker_charge(c, maker, &maker->n_refused, "bad_tensor", text);
    }
    core_subunit_restart(p);
}

void core_lease_give_back(struct core *c, struct core_lease *l)
{
    struct core_task *t = l->task;
    const uint32_t attempt = l->attempt;

    c->counters.returns++;
    core_lease_end(c, l);
    core_task_returned(t, attempt);
}

/* Only first nodes read pictures. */
void core_lease_unseen(struct core *c, struct core_lease *l)
{
    struct core_worker *w = l->worker;
    struct core_task *t = l->task;
    struct core_job_node *n = core_node_of(t);
    const uint64_t job = core_planted(c, CORE_BUG_UNSEEN_ANYWHERE) ? t->subunit->unit->job->id : n->pictures_of;

    if (!job || core_planted(c, CORE_BUG_UNSEEN_BLAMED)) {
        core_lease_returned(c, l);
        return;
    }
    n->returns++;
    c->counters.returns++;
    core_lease_end(c, l);
    core_worker_cannot_see(c, w, job);
    core_task_requeue(t);
}

/* Its worker is gone. */
void core_lease_lost(struct core *c, struct core_lease *l, const char *text)
{
    struct core_task *t = l->task;
    struct core_job_node *n = core_node_of(t);
    const uint32_t attempt = l->attempt;

    n->failures++;
    n->isolations += l->exclusive || core_planted(c, CORE_BUG_ISOLATION_IN_COMPANY);
    c->counters.failures++;
    core_task_failed_on(t, l->worker);
    if (core_planted(c, CORE_BUG_DEATH_UNBLAMED)) {
        core_lease_give_back(c, l);
        return;
    }
    core_lease_end(c, l);
    core_task_failed(t, attempt, "worker_lost", text);
}
