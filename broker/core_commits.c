/* Commits of finished units and their answers; a full disk. */
#include "broker/core_job.h"

static void count_rows(const struct core_unit *u, uint32_t *ret_payloads, uint32_t *ret_quarantined,
                       uint32_t *ret_failed)
{
    uint32_t n_payloads = 0, n_quarantined = 0, n_failed = 0;

    for (const struct core_subunit *p = u->subunits; p; p = p->next) {
        n_quarantined += p->quarantined ? p->count : 0;
        n_failed += p->n_wanted - p->n_alive;
        for (uint32_t k = 0; k < u->job->n_nodes; k++)
            n_payloads += p->tasks[k].has_rows;
    }
    *ret_payloads = n_payloads;
    *ret_quarantined = n_quarantined;
    *ret_failed = n_failed;
}

static void emit_commit(struct core_unit *u)
{
    struct core *c = u->job->core;
    uint32_t n_payloads, n_quarantined, n_failed, np = 0, nq = 0;
    struct core_commit_payload *payloads;
    struct core_quarantined *quarantined;
    struct core_commit *m;

    count_rows(u, &n_payloads, &n_quarantined, &n_failed);
    payloads = core_emit_alloc(c, (n_payloads + 1) * sizeof(payloads[0]));
    quarantined = core_emit_alloc(c, (n_quarantined + 1) * sizeof(quarantined[0]));
    if (!payloads || !quarantined)
        return;
    for (const struct core_subunit *p = u->subunits; p; p = p->next) {
        for (uint32_t i = 0; p->quarantined && i < p->count; i++)
            quarantined[nq++] = (struct core_quarantined){p->first + i, p->code ? p->code : "", p->text ? p->text : ""};
        for (uint32_t k = 0; k < u->job->n_nodes; k++) {
            const struct core_task *t = &p->tasks[k];

            if (t->has_rows)
                payloads[np++] = (struct core_commit_payload){t->payload, k, p->first, p->count, t->n_rows, t->rows};
        }
    }
    m = &core_emit(c, CORE_DO_COMMIT)->commit;
    *m = (struct core_commit){
        .job = u->job->id,
        .unit = u->number,
        .n_items = u->n_items,
        .n_failed = n_failed,
        .attempts = u->attempts,
        .n_payloads = n_payloads,
        .n_quarantined = n_quarantined,
        .payloads = payloads,
        .quarantined = quarantined,
        .again = u->again,
    };
}

void core_unit_commit(struct core_unit *u)
{
    core_unit_set_state(u, CORE_UNIT_COMMIT);
    emit_commit(u);
    if (core_planted(u->job->core, CORE_BUG_COMMIT_TWICE))
        emit_commit(u);
}

void core_unit_forget(struct core_unit *u)
{
    struct core_job *j = u->job;

    if (u->load_again)
        core_job_go_back(j, u->number);
    core_unit_drop(u);
    core_map_take(&j->units, (uint64_t)u->number + 1);
    core_unit_set_state(u, CORE_N_UNIT_STATES);
    core_unit_free(u);
    core_job_touch(j);
}

void core_unit_put_back(struct core_unit *u)
{
    u->load_again = !core_planted(u->job->core, CORE_BUG_FORGET_PUT_BACK);
    core_unit_forget(u);
}

static void count_done(struct core_job *j, const struct core_unit *u)
{
    uint32_t n_payloads, n_quarantined, n_failed;

    count_rows(u, &n_payloads, &n_quarantined, &n_failed);
    j->units_done++;
    j->items_done += u->n_wanted;
    j->items_failed += core_planted(j->core, CORE_BUG_ERRORS_NOT_FAILED) ? n_quarantined : n_failed;
    j->items_quarantined += n_quarantined;
    j->core->counters.quarantined += n_quarantined;
}

/* The unit whose COMMIT is answered. NULL: the core expects no such answer. */
static struct core_unit *answered_unit(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->commit.job);
    struct core_unit *u = j ? core_map_get(&j->units, (uint64_t)e->commit.unit + 1) : NULL;

    if (u && u->state == CORE_UNIT_COMMIT)
        return u;
    c->counters.dropped_bad += !j || !j->failed;
    return NULL;
}

int core_on_committed(struct core *c, const struct core_event *e)
{
    struct core_unit *u = answered_unit(c, e);
    struct core_job *j = u ? u->job : NULL;

    if (!u)
        return 0;
    count_done(j, u);
    j->load_is_stale |= j->loading && u->number >= j->load_from && !core_planted(c, CORE_BUG_STALE_LOAD);
    core_unit_forget(u);
    return 0;
}

int core_on_commit_failed(struct core *c, const struct core_event *e)
{
    struct core_unit *u = answered_unit(c, e);

    if (!u)
        return 0;
    if (u->job->closing) {
        core_unit_forget(u);
        return 0;
    }
    u->job->blocked = true;
    core_unit_set_state(u, CORE_UNIT_COMMIT_FAILED);
    core_job_touch(u->job);
    return 0;
}

/* -- the disk -- */

int core_on_disk_full(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->job, &j);

    if (j)
        j->blocked = !core_planted(c, CORE_BUG_DISK_FULL_IGNORED);
    return rc;
}

static void unblock(struct core_job *j)
{
    struct core_unit *u;

    if (!j->blocked || j->closing || core_planted(j->core, CORE_BUG_DISK_OK_IGNORED))
        return;
    j->blocked = false;
    core_job_wake(j);
    while ((u = j->by_state[CORE_UNIT_COMMIT_FAILED]))
        core_unit_commit(u);
}

int core_on_disk_ok(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = 0;

    for (uint32_t i = 0; e->job == 0 && i < c->n_jobs; i++)
        unblock(c->jobs[i]);
    if (e->job == 0)
        return 0;
    rc = core_job_find(c, e->job, &j);
    if (j)
        unblock(j);
    return rc;
}
