/* Clients: what they ask of jobs, and how they vanish. What they ask for is durable at once. */
#include "tests/simulate/world.h"

/* -- stop, start, close, cancel -- */

static void stop(struct world *w, struct sim_job *j)
{
    j->stopped = true;
    j->stop_told = false;
    shell_job_event(w, CORE_EVENT_JOB_STOP, j);
}

void clients_start_later(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (shell_is_stopped(w, clients_start_later, job, life) || life != w->epoch || !w->core || !j->open ||
        !j->stopped || j->paused || j->cancelled || j->client_gone || j->closing || j->failed)
        return;
    shell_start_job(w, j);
}

void clients_stop(struct world *w, struct sim_job *j)
{
    if (!w->core || !j->open || j->paused || j->closing || j->failed || j->finished || j->cancelled)
        return; /* a stopped job may be stopped again */
    world_fault(w, FAULT_JOB_STOP);
    stop(w, j);
    world_in(w, 100 + (int64_t)world_below(w, 4000), clients_start_later, j, w->epoch);
}

void clients_change_priority(struct world *w, struct sim_job *j)
{
    if (!w->core || !j->open || j->closing)
        return;
    world_fault(w, FAULT_JOB_PRIORITY);
    shell_step(w, &(struct core_event){.type = CORE_EVENT_JOB_PRIORITY,
                                       .job_priority = {j->id, (uint32_t)world_below(w, 200)}});
}

void clients_close(struct world *w, struct sim_job *j)
{
    if (!w->core || !j->open || j->closing || j->finished || j->cancelled || w->shutting_down)
        return;
    world_fault(w, FAULT_JOB_CLOSED);
    j->closing = true;
    shell_job_event(w, CORE_EVENT_JOB_CLOSE, j);
}

/* Some other job goes on, so that the world does not end early. */
void clients_cancel(struct world *w, struct sim_job *j)
{
    uint32_t n_others = 0;

    for (uint32_t n = 0; n < w->n_jobs; n++)
        n_others += &w->jobs[n] != j && !w->jobs[n].finished && !w->jobs[n].cancelled;
    if (!w->core || !j->open || j->closing || j->failed || j->finished || j->cancelled || w->shutting_down ||
        n_others == 0)
        return;
    world_fault(w, FAULT_JOB_CANCELLED);
    world_say(w, "cancel job=%llu", (unsigned long long)j->id);
    j->cancelled = true;
    j->retry.on = false;
    stop(w, j);
}

/* -- a submission -- */

static void come_back(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    (void)life;
    j->client_gone = false;
    clients_start_later(w, j, w->epoch);
}

/* The broker stops the job of a submission that is cut off, and closes it. */
void clients_vanish(struct world *w, struct sim_job *j)
{
    if (!w->core || !j->open || j->sealed || j->paused || j->closing || j->failed || j->cancelled || j->client_gone)
        return;
    world_fault(w, FAULT_CLIENT_GONE);
    j->client_gone = true;
    stop(w, j);
    world_in(w, 100 + (int64_t)world_below(w, 8000), come_back, j, 0);
}

/* -- items to do again -- */

/* The store does one thing at a time: marks made during a commit are reported after its answer. */
static bool may_mark(const struct sim_unit *u)
{
    return !u->commit_pending && u->attempts == u->attempts_asked;
}

/* Some items of a finished unit are to be done again. */
void clients_do_again(struct world *w, struct sim_job *j)
{
    uint32_t unit = (uint32_t)world_below(w, j->n_units);
    struct sim_unit *u = &j->units[unit];
    struct core_event e = {.type = CORE_EVENT_UNITS_AGAIN, .units_again = {j->id, unit}};

    /* The store does one thing at a time: marks made during a commit are reported after its answer. */
    if (!w->core || !j->open || j->closing || j->failed || j->finished || !u->done || u->commit_pending ||
        u->attempts != u->attempts_asked)
        return;
    world_fault(w, FAULT_ITEMS_AGAIN);
    world_say(w, "again job=%llu unit=%u", (unsigned long long)j->id, unit);
    for (uint64_t n = 1 + world_below(w, 4); n > 0; n--)
        u->items[world_below(w, u->n_items)].again = true;
    shell_step(w, &e);
}

/* One unit after another is marked. The core hears of it at the end. */
static void mark(struct world *w, void *job, uint64_t opening)
{
    struct sim_job *j = job;
    struct sim_unit *u = &j->units[j->retry.unit];

    if (shell_is_stopped(w, mark, job, opening))
        return;
    if (!w->core || !j->open || j->opening != opening || !j->retry.on || j->closing || j->failed)
        return; /* it goes on when the job is open again */
    if (!may_mark(u) || w->disk_full) {
        world_in(w, 50, mark, j, opening);
        return;
    }
    for (uint32_t i = 0; i < u->n_items && u->done; i++)
        if (u->items[i].fate != FATE_GOOD || world_chance(w, 20)) {
            u->items[i].again = true;
            j->retry.from_unit = j->retry.unit < j->retry.from_unit ? j->retry.unit : j->retry.from_unit;
        }
    if (!w->quiet && world_chance(w, 15))
        world_in(w, 0, shell_cut_off, NULL, w->epoch);
    if (++j->retry.unit < j->n_imported) {
        world_in(w, (int64_t)world_below(w, 60), mark, j, opening);
        return;
    }
    j->retry.on = false;
    shell_step(w, &(struct core_event){.type = CORE_EVENT_UNITS_AGAIN, .units_again = {j->id, j->retry.from_unit}});
}

static void begin_marking(struct world *w, struct sim_job *j)
{
    j->retry.unit = 0;
    j->retry.from_unit = UINT32_MAX;
    world_in(w, (int64_t)world_below(w, 60), mark, j, j->opening);
}

/* Of a job that runs or has ended. */
void clients_retry(struct world *w, struct sim_job *j)
{
    if (!w->core || j->cancelled || j->retry.on || j->n_imported == 0 || w->shutting_down)
        return;
    world_fault(w, FAULT_JOB_RETRY);
    world_say(w, "retry job=%llu", (unsigned long long)j->id);
    j->retry.on = true;
    j->finished = false;
    if (j->open)
        begin_marking(w, j);
    else
        world_in(w, 0, shell_reopen_job, j, w->epoch);
}

void clients_opened(struct world *w, struct sim_job *j)
{
    if (j->retry.on)
        begin_marking(w, j);
    if (j->client_gone && !j->stopped)
        stop(w, j);
}
