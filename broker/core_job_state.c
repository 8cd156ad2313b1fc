/* The state of a job, derived from its events in this one place. */
#include "broker/core_job.h"

#include <errno.h>

enum core_job_state core_job_state(const struct core_job *j)
{
    if (j->closing)
        return CORE_JOB_CLOSING;
    if (j->failed)
        return CORE_JOB_FAILED;
    if (j->blocked)
        return CORE_JOB_BLOCKED;
    if (j->done)
        return CORE_JOB_DONE;
    if (j->stopped && !j->stop_told)
        return CORE_JOB_STOPPING;
    if (j->stopped)
        return j->paused ? CORE_JOB_PAUSED : CORE_JOB_STOPPED;
    return j->sealed ? CORE_JOB_RUNNING : CORE_JOB_IMPORTING;
}

bool core_job_may_start(const struct core_job *j)
{
    return (!j->stopped || core_planted(j->core, CORE_BUG_STOPPED_STARTS)) &&
           (!j->blocked || core_planted(j->core, CORE_BUG_BLOCKED_STARTS)) && !j->closing;
}

enum core_job_state core_job_state_get(const struct core *c, uint64_t job)
{
    const struct core_job *j = core_map_get(&c->jobs_by_id, job);

    return j ? core_job_state(j) : CORE_JOB_NONE;
}

void core_job_touch(struct core_job *j)
{
    if (j->touched)
        return;
    j->touched = true;
    j->next_touched = j->core->touched;
    j->core->touched = j;
}

/* A job that was idle does not catch up on the share of workers that it did not use. */
void core_job_wake(struct core_job *j)
{
    if (j->pass < j->core->vtime && !core_planted(j->core, CORE_BUG_CATCHES_UP))
        j->pass = j->core->vtime;
    core_job_touch(j);
}

int core_job_find(struct core *c, uint64_t id, struct core_job **ret)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, id);

    *ret = NULL;
    if (!j || j->closing)
        return -ENOENT;
    if (j->failed)
        return 0;
    core_job_touch(j);
    *ret = j;
    return 0;
}
