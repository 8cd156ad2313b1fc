#include "broker/completions.h"

#include <errno.h>

#include "broker/jobs_retry.h"
#include "base/log.h"
#include "store/store.h"

static void on_unit(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done)
{
    struct core_event event = {.commit = {.job = job->id, .unit = done->unit}};

    if (done->rc == 0 || done->rc == -EALREADY) {
        event.type = CORE_EVENT_COMMITTED;
        units_drop(&jobs->units, &job->units, done->unit); /* still blocked if another unit's commit failed */
    } else if (done->rc == -ENOSPC) {
        event.type = CORE_EVENT_COMMIT_FAILED;
        broker_job_block(jobs, job, done->text);
    } else if (done->rc == -ENOMEM) {
        driver_fail(jobs->driver, -ENOMEM, "no memory to commit unit %u", done->unit);
        return;
    } else {
        broker_job_fail(jobs, job, "unit %u cannot be committed: %s", done->unit, done->text);
        return;
    }
    (void)driver_feed(jobs->driver, &event);
}

static void on_attempts(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done)
{
    if (done->rc < 0 && done->rc != -EALREADY)
        broker_job_fail(jobs, job, "the attempts of unit %u cannot be committed: %s", done->unit, done->text);
}

static void on_load(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done)
{
    if (done->rc == 0)
        units_loaded(&jobs->units, &job->units, done->load);
    else if (done->rc == -ENOMEM)
        driver_fail(jobs->driver, -ENOMEM, "no memory for units");
    else
        broker_job_fail(jobs, job, "%s", done->text);
}

/* A client waits for this completion. */
static void on_answer(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                      const struct question *q)
{
    if (done->op == COMMITTER_OPEN)
        broker_job_on_open(jobs, job, done, q);
    else if (job->phase != BROKER_JOB_OPEN)
        return; /* the job is being closed */
    else if (done->op == COMMITTER_SEAL)
        broker_job_on_seal(jobs, job, done, q);
    else if (done->op == COMMITTER_FIND)
        broker_job_on_found(jobs, job, done, q);
    else if (done->op == COMMITTER_PUSH)
        broker_job_on_pushed(jobs, job, done, q);
    else
        broker_job_on_rows(jobs, job, done, q);
}

/* Rows that follow refused ones can never get the number they expect; nor can a seal that follows them. */
static bool is_behind_refused(const struct jobs *jobs, const struct broker_job *job,
                              const struct committer_completion *done)
{
    const bool has_place = done->op == COMMITTER_ROWS || done->op == COMMITTER_SEAL;
    const struct question *q = has_place ? requests_question(jobs->requests, done->tag) : NULL;

    return q && q->rows_refused != job->rows_refused;
}

/* Must it be tried again, while the client goes on waiting? OPEN is refused instead, since no job is there yet that
 * could wait. Commits of units are repeated by the core (COMMIT_FAILED). */
static bool is_to_be_retried(const struct jobs *jobs, const struct broker_job *job,
                             const struct committer_completion *done)
{
    return done->request && done->op != COMMITTER_UNIT && done->op != COMMITTER_OPEN && job->phase == BROKER_JOB_OPEN &&
           !is_behind_refused(jobs, job, done);
}

static void retry_later(struct jobs *jobs, struct broker_job *job, struct committer_completion *done)
{
    if (done->rc == -ENOSPC && done->op == COMMITTER_PUSH) {
        broker_job_no_room(jobs, job, done->text); /* units that have their pictures go on, which makes room */
    } else if (done->rc == -ENOSPC) {
        broker_job_block(jobs, job, done->text);
        (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_DISK_FULL, .job = job->id});
    }
    requests_retry_later(jobs->requests, &done->request);
}

/* What was to be written is still true, and is found out again at the next start. */
static void on_entry(const struct committer_completion *done)
{
    if (done->rc < 0)
        log_err("event=job_table_failed job=%llu msg=\"%s\"", (unsigned long long)done->job, done->text);
}

static void on_table(struct jobs *jobs, struct broker_job *job, struct committer_completion *done)
{
    struct question q;

    if (!requests_answered(jobs->requests, done->tag, &q))
        on_entry(done);
    else if (done->op == COMMITTER_LIST)
        broker_jobs_on_listed(jobs, done, &q);
    else
        broker_job_on_controlled(jobs, job, done, &q);
}

static void on_completion(struct jobs *jobs, struct models *models, struct committer_completion *done)
{
    struct broker_job *job = broker_job_find(jobs, done->job);
    struct question q;

    if (done->op == COMMITTER_MODEL) {
        models_on_completion(models, done);
        return;
    }
    if (done->op == COMMITTER_ENTRY || done->op == COMMITTER_LIST) {
        on_table(jobs, job, done);
        return;
    }
    if (job && done->rc == 0 && done->op != COMMITTER_LOAD && done->op != COMMITTER_FIND && done->op != COMMITTER_PUSH)
        job->counters = done->counters;
    if (job && is_to_be_retried(jobs, job, done)) {
        retry_later(jobs, job, done);
        return;
    }
    if (requests_answered(jobs->requests, done->tag, &q)) {
        if (job)
            on_answer(jobs, job, done, &q);
        return;
    }
    if (!job)
        return;
    switch (done->op) {
    case COMMITTER_UNIT:
        on_unit(jobs, job, done);
        return;
    case COMMITTER_ATTEMPTS:
        on_attempts(jobs, job, done);
        return;
    case COMMITTER_LOAD:
        on_load(jobs, job, done);
        return;
    case COMMITTER_RETRY:
        jobs_retry_on_marked(jobs, job, done);
        return;
    case COMMITTER_CLOSE:
        broker_job_on_closed(jobs, job);
        return;
    default:
        return; /* a client's request whose question was dropped */
    }
}

void completions_take(struct jobs *jobs, struct models *models)
{
    struct committer_completion *done;

    requests_flush(jobs->requests);
    while (jobs->driver->failed == 0 && (done = committer_take(jobs->requests->committer))) {
        on_completion(jobs, models, done);
        committer_completion_free(done);
        requests_flush(jobs->requests);
    }
}

int64_t completions_retry(struct jobs *jobs, uint64_t min_free_bytes)
{
    if (jobs->driver->now_ms < jobs->requests->retry_at_ms)
        return jobs->requests->retry_at_ms;
    requests_retry(jobs->requests);
    for (struct broker_job *job = jobs->first; job; job = job->next) {
        uint64_t bytes_free;

        if (job->phase != BROKER_JOB_OPEN || core_job_state_get(jobs->driver->core, job->id) != CORE_JOB_BLOCKED)
            continue;
        requests_await_room(jobs->requests);
        if (store_free_bytes(job->store, &bytes_free) < 0 || bytes_free < min_free_bytes)
            continue;
        /* if there is not enough room, the next commit blocks the job again */
        (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_DISK_OK, .job = job->id});
    }
    return jobs->requests->retry_at_ms;
}
