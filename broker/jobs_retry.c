#include "broker/jobs_retry.h"

#include "base/clock.h"
#include "base/log.h"
#include "broker/jobs_table.h"
#include "broker/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void mark_from(struct jobs *jobs, const struct broker_job *job, uint32_t unit)
{
    struct committer_request *r = committer_request_new(COMMITTER_RETRY, job->id, 0);

    if (r) {
        r->unit = unit;
        r->control.n_codes = job->entry->n_retry_codes;
        memcpy(r->control.codes, job->entry->retry_codes, sizeof(r->control.codes));
    }
    requests_post(jobs->requests, r);
}

void jobs_retry_begin(struct jobs *jobs, struct broker_job *job)
{
    const struct stored_job_entry *e = job->entry;

    if (job->phase != BROKER_JOB_OPEN || job->retry.begun || !e || !e->retrying || e->wanted != STORED_WANTED_RUN)
        return;
    job->retry.begun = true;
    job->retry.from_unit = UINT32_MAX;
    mark_from(jobs, job, 0);
}

bool jobs_retry_wait(struct jobs *jobs, uint64_t id, const struct question *q)
{
    struct broker_job *job = broker_job_find(jobs, id);

    if (!job || !job->entry || !job->entry->retrying || (job->phase == BROKER_JOB_OPEN && !job->retry.begun))
        return false;
    if (job->retry.peer && peers_find(jobs->peers, job->retry.peer)) {
        answer_refuse(jobs->answers, q->peer, q->seq, MSG_REASON_BUSY,
                      "the failed items of job %" PRIu64 " are being marked already; try again", id);
        return true;
    }
    job->retry.peer = q->peer;
    job->retry.seq = q->seq;
    return true;
}

void jobs_retry_refuse(struct jobs *jobs, struct broker_job *job, enum msg_reason reason, const char *text)
{
    if (job->retry.peer)
        answer_refuse(jobs->answers, job->retry.peer, job->retry.seq, reason, "%s", text);
    job->retry.peer = 0;
}

void jobs_retry_or_end(struct jobs *jobs, struct broker_job *job)
{
    if (job->entry && job->entry->retrying)
        return;
    log_info("event=job_done job=%" PRIu64 " items=%" PRIu64 " failed=%" PRIu64, job->id, job->counters.n_done,
             job->counters.n_failed);
    progress_log(jobs, job);
    if (job->entry && !job->entry->ended_ms)
        broker_job_record(jobs, job, STORED_WANTED_RUN, clock_wall_ms(), "");
    broker_job_ended(jobs, job);
}

/* If nothing is to be done again, the core finds that out, and the job ends. */
static void finish(struct jobs *jobs, struct broker_job *job)
{
    const struct question q = {.peer = job->retry.peer, .seq = job->retry.seq};
    struct stored_job_entry row;

    log_info("event=job_retried job=%" PRIu64 " again=%" PRIu64, job->id, job->counters.n_again);
    job->entry->retrying = false;
    job->entry->n_retry_codes = 0;
    broker_job_put_entry(jobs, job);
    (void)driver_feed(jobs->driver,
                      &(struct core_event){.type = CORE_EVENT_UNITS_AGAIN,
                                           .units_again = {.job = job->id, .from_unit = job->retry.from_unit}});
    row = *job->entry;
    if (q.peer)
        jobs_table_answer(jobs, &q, &row, 1, 0);
    job->retry.peer = 0;
}

void jobs_retry_on_marked(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done)
{
    if (job->phase != BROKER_JOB_OPEN)
        return;
    if (done->rc == -ENOMEM) {
        driver_fail(jobs->driver, -ENOMEM, "no memory to mark the failed items of job %" PRIu64, job->id);
        return;
    }
    job->retry.begun = done->rc == 0 && done->next_unit != UINT32_MAX && job->entry->retrying;
    if (done->rc < 0) {
        jobs_retry_refuse(jobs, job, MSG_REASON_STORE, done->text);
        broker_job_fail(jobs, job, "its failed items cannot be marked: %s", done->text);
        return;
    }
    if (done->unit < job->retry.from_unit)
        job->retry.from_unit = done->unit;
    if (job->retry.begun)
        mark_from(jobs, job, done->next_unit);
    else if (job->entry->retrying)
        finish(jobs, job);
    else
        jobs_retry_refuse(jobs, job, MSG_REASON_NOT_ALLOWED, job->entry->text); /* cancelled */
}
