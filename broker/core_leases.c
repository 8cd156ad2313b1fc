/* Leases: who holds which task. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

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

void core_lease_extend(struct core *c, struct core_lease *l)
{
    const int64_t stall_ms = core_lease_stalls_at(c, l);

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
        .n_bytes = core_planted(c, CORE_BUG_INPUT_BYTES_FORGOTTEN) ? 0 : core_task_input_bytes(t, t->n_rows),
        .granted_ms = c->now_ms,
        .held_at_grant = w->held_items + t->n_rows,
        .exclusive = core_subunit_is_exclusive(t->subunit),
        .on_trial = w->n_late > 0,
    };
    if (l->next)
        l->next->prev = l;
    w->leases = l;
    if (w->n_leases++ == 0)
        w->turned_ms = c->now_ms;
    w->held_items += l->n_items;
    w->held_bytes += l->n_bytes;
    w->holds_exclusive = l->exclusive && !core_planted(c, CORE_BUG_EXCLUSIVE_IN_NAME);
    core_worker_update(w, c);
    j->nodes[t->node].n_leased++;
    j->n_leases++;
    c->counters.leases_granted++;
    core_lease_extend(c, l);
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
    if (--w->n_leases == 0) {
        w->busy_ms += (uint64_t)(c->now_ms - w->turned_ms);
        w->turned_ms = c->now_ms;
    }
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
