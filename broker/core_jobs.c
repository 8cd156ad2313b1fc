/* The life of a job: opened, sealed, stopped, started, done, failed, closed. */
#include "broker/core_job.h"

#include <errno.h>
#include <stdlib.h>

enum { DEFAULT_PRIORITY = 100 };

static void prepare_nodes(struct core_job *j, const struct core_node *nodes)
{
    for (uint32_t i = 0; i < j->n_nodes; i++) {
        struct core_job_node *n = &j->nodes[i];

        n->spec = nodes[i];
        n->row_bytes = nodes[i].row_bytes;
        j->row_bytes += n->row_bytes;
        n->pictures_of = n->spec.needs ? 0 : j->id;
        n->any_fingerprint = fingerprint_is_none(&n->spec.fingerprint);
        for (uint32_t k = 0; k < i; k++) {
            if (!(n->spec.needs >> k & 1))
                continue;
            j->nodes[k].consumers |= 1u << i;
            n->in_bytes += nodes[k].out_bytes;
        }
    }
    for (uint32_t i = j->n_nodes; i-- > 0;)
        for (uint32_t k = i + 1; k < j->n_nodes; k++)
            if ((j->nodes[i].consumers >> k & 1) && j->nodes[k].rank + 1 > j->nodes[i].rank)
                j->nodes[i].rank = j->nodes[k].rank + 1;
    j->peak_bytes = core_graph_peak_bytes(nodes, j->n_nodes);
}

int core_on_job_open(struct core *c, const struct core_event *e)
{
    struct core_job *j;

    if (e->job_open.job == 0 || core_graph_check(e->job_open.nodes, e->job_open.n_nodes, NULL) < 0)
        return -EINVAL;
    if (core_map_get(&c->jobs_by_id, e->job_open.job))
        return -EEXIST;
    if (c->n_jobs == c->limits.max_jobs)
        return -ENOSPC;
    j = calloc(1, sizeof(*j));
    if (!j || core_map_put(&c->jobs_by_id, e->job_open.job, j) < 0) {
        free(j);
        core_break(c);
        return -ENOMEM;
    }
    j->core = c;
    j->id = e->job_open.job;
    j->priority = e->job_open.priority ? e->job_open.priority : DEFAULT_PRIORITY;
    j->n_nodes = e->job_open.n_nodes;
    j->sealed = e->job_open.sealed || core_planted(c, CORE_BUG_OPENED_SEALED);
    j->stopped = e->job_open.stopped;
    j->max_failures = e->job_open.max_failures;
    j->max_failed_per_mille = e->job_open.max_failed_per_mille;
    j->back_from = UINT64_MAX;
    prepare_nodes(j, e->job_open.nodes);
    c->jobs[c->n_jobs++] = j;
    core_job_touch(j);
    return 0;
}

void core_job_free(struct core_job *j)
{
    for (size_t i = 0; i < j->units.capacity; i++)
        core_unit_free(j->units.slots[i].value);
    core_map_release(&j->units);
    free(j);
}

int core_on_job_start(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->job, &j);

    if (!j)
        return rc;
    if (j->stopped)
        core_job_wake(j);
    if (j->paused)
        core_job_reset_failures(j);
    j->stopped = j->stop_told = j->paused = false;
    return 0;
}

int core_on_job_stop(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->job, &j);

    if (!j)
        return rc;
    j->stopped = true;
    j->sealed = j->sealed || core_planted(c, CORE_BUG_STOP_SEALS);
    j->stop_told = false;
    return 0;
}

int core_on_job_sealed(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->job, &j);

    if (j)
        j->sealed = true;
    return rc;
}

int core_on_job_priority(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->job_priority.job, &j);

    if (j && !core_planted(c, CORE_BUG_PRIORITY_FIXED))
        j->priority = e->job_priority.priority ? e->job_priority.priority : DEFAULT_PRIORITY;
    return rc;
}

/* Forget the job's units, except those that wait for the answer to a COMMIT. */
static void forget_units(struct core_job *j)
{
    static const enum core_unit_state states[] = {CORE_UNIT_WAITING, CORE_UNIT_STARTED, CORE_UNIT_COMMIT_FAILED,
                                                  CORE_UNIT_HELD};
    struct core_unit *u;

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        while (!(states[i] == CORE_UNIT_STARTED && core_planted(j->core, CORE_BUG_CLOSE_KEEPS_LEASES)) &&
               (u = j->by_state[states[i]]))
            core_unit_forget(u);
}

int core_on_job_close(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->job);

    if (!j || j->closing)
        return -ENOENT;
    j->closing = true;
    forget_units(j);
    core_job_touch(j);
    return 0;
}

/* Outstanding answers may never come, so the job waits for none. */
int core_on_job_failed(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->job);

    if (!j)
        return -ENOENT;
    if (core_planted(c, CORE_BUG_OTHER_JOB_FAILS))
        j = c->jobs[0];
    if (j->failed)
        return 0;
    j->failed = true;
    core_job_touch(j);
    if (core_planted(c, CORE_BUG_FAILED_GOES_ON))
        return 0;
    forget_units(j);
    while (j->by_state[CORE_UNIT_COMMIT])
        core_unit_forget(j->by_state[CORE_UNIT_COMMIT]);
    j->loading = j->loading && core_planted(c, CORE_BUG_FAILED_AWAITS_ANSWERS);
    return 0;
}

/* -- at the end of a step -- */

/* No more results will come that could show whether failures surge. */
static bool nothing_follows(const struct core_job *j)
{
    if (j->stopped)
        return j->n_leases == 0 && j->n_reserved == 0;
    return j->exhausted && !j->loading && j->n_by_state[CORE_UNIT_WAITING] == 0 &&
           j->n_by_state[CORE_UNIT_STARTED] == 0;
}

static bool is_in_flight(const struct core_job *j)
{
    if (j->n_by_state[CORE_UNIT_COMMIT] > 0)
        return true;
    return (j->n_leases > 0 || (j->n_reserved > 0 && !j->core->shutdown)) &&
           !core_planted(j->core, CORE_BUG_STOPPED_EARLY);
}

static void settle_open(struct core_job *j)
{
    struct core *c = j->core;
    bool in_flight;

    if (nothing_follows(j))
        core_job_commit_held(j);
    in_flight = is_in_flight(j);
    core_job_load_more(j);
    if (!j->done && (j->sealed || core_planted(c, CORE_BUG_DONE_UNSEALED)) && j->exhausted && !j->loading &&
        j->units.n == 0) {
        j->done = true;
        core_emit_id(c, CORE_DO_JOB_DONE, j->id);
    }
    if (j->stopped && !j->stop_told && !in_flight) {
        j->stop_told = true;
        core_emit_id(c, CORE_DO_JOB_STOPPED, j->id);
    }
}

static void settle_closing(struct core_job *j)
{
    struct core *c = j->core;

    if ((j->units.n > 0 || j->loading) && !core_planted(c, CORE_BUG_CLOSED_EARLY))
        return;
    core_emit_id(c, CORE_DO_JOB_CLOSED, j->id);
    for (uint32_t i = 0; i < c->n_jobs; i++)
        if (c->jobs[i] == j)
            c->jobs[i] = c->jobs[--c->n_jobs];
    core_map_take(&c->jobs_by_id, j->id);
    core_job_free(j);
}

void core_jobs_settle(struct core *c)
{
    struct core_job *j;

    while ((j = c->touched)) {
        c->touched = j->next_touched;
        j->touched = false;
        if (j->closing)
            settle_closing(j);
        else if (!j->failed || core_planted(c, CORE_BUG_FAILED_GOES_ON))
            settle_open(j);
    }
}
