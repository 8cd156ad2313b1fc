/* jobs_read.c - STORE_READ: which store a client reads, and whether the broker works on it. */
#include "broker/jobs_table.h"
#include "broker/progress.h"

static bool is_in_progress(const struct jobs *jobs, uint64_t id)
{
    const struct broker_job *job = broker_job_find(jobs, id);
    enum msg_job_state state;

    if (!job || job->phase != BROKER_JOB_OPEN)
        return job && job->phase == BROKER_JOB_OPENING;
    state = progress_state(jobs, job);
    return state == MSG_JOB_IMPORTING || state == MSG_JOB_RUNNING || state == MSG_JOB_BLOCKED;
}

void broker_job_read(struct jobs *jobs, struct readings *readings, const struct peer *p, const struct msg *m)
{
    const uint64_t job = m->store_read.job;
    char path[PATH_MAX];
    struct err err = {""};

    if (jobs_table_refuse(jobs, p, m, job))
        return;
    if (job_table_store_path(jobs->table, job, path, &err) < 0)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_STORE, "%s", err.text);
    else
        readings_ask(readings, p->number, m, path, is_in_progress(jobs, job));
}
