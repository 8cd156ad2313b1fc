#include "broker/jobs.h"

#include "broker/broker.h"
#include "broker/progress.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct broker_job *broker_job_find(const struct broker *b, uint64_t id)
{
    return core_map_get(&b->jobs.by_id, id);
}

int broker_jobs_add(struct broker *b, struct broker_job *job)
{
    if (core_map_put(&b->jobs.by_id, job->id, job) < 0)
        return -ENOMEM;
    job->next = b->jobs.first;
    b->jobs.first = job;
    return 0;
}

static void holders_free(struct job_holder *h)
{
    for (struct job_holder *next; h; h = next) {
        next = h->next;
        free(h);
    }
}

static void job_free(struct broker *b, struct broker_job *job)
{
    holders_free(job->holders);
    holders_free(job->closers);
    free(job->reopen);
    units_release(b, job);
    free(job);
}

void broker_jobs_remove(struct broker *b, struct broker_job *job)
{
    struct broker_job **link = &b->jobs.first;

    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    core_map_take(&b->jobs.by_id, job->id);
    job_free(b, job);
}

void broker_jobs_release(struct broker *b)
{
    while (b->jobs.first)
        broker_jobs_remove(b, b->jobs.first);
    core_map_release(&b->jobs.by_id);
}

/* -- who has it open -- */

static int add_holder(struct job_holder **list, uint64_t peer, uint64_t seq)
{
    struct job_holder *h;

    for (h = *list; h; h = h->next)
        if (h->peer == peer && h->seq == seq)
            return 0;
    h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    *h = (struct job_holder){.next = *list, .peer = peer, .seq = seq};
    *list = h;
    return 0;
}

void broker_job_hold(struct broker *b, struct broker_job *job, uint64_t peer)
{
    if (peers_find(&b->peers, peer) && add_holder(&job->holders, peer, 0) < 0)
        driver_fail(&b->driver, -ENOMEM, "no memory for a job");
}

static void remove_holder(struct job_holder **list, uint64_t peer)
{
    while (*list && (*list)->peer != peer)
        list = &(*list)->next;
    if (*list) {
        struct job_holder *h = *list;

        *list = h->next;
        free(h);
    }
}

/* -- closing -- */

void broker_job_begin_close(struct broker *b, struct broker_job *job)
{
    if (job->phase != BROKER_JOB_OPEN)
        return;
    job->phase = BROKER_JOB_CLOSING;
    driver_feed_later(&b->driver, &(struct core_event){.type = CORE_EVENT_JOB_CLOSE, .job = job->id});
}

void broker_job_ended(struct broker *b, struct broker_job *job)
{
    if (!job->holders)
        broker_job_begin_close(b, job);
}

static bool has_ended(const struct broker *b, const struct broker_job *job)
{
    const enum core_job_state state = core_job_state_get(b->driver.core, job->id);

    return state == CORE_JOB_STOPPED || state == CORE_JOB_PAUSED || state == CORE_JOB_DONE || state == CORE_JOB_FAILED;
}

void broker_job_fail(struct broker *b, struct broker_job *job, const char *fmt, ...)
{
    va_list ap;

    if (job->phase != BROKER_JOB_OPEN || job->failed[0])
        return;
    va_start(ap, fmt);
    (void)vsnprintf(job->failed, sizeof(job->failed), fmt, ap);
    va_end(ap);
    log_err("event=job_failed job=%llu store=\"%s\" msg=\"%s\"", (unsigned long long)job->id, job->open.path,
            job->failed);
    driver_feed_later(&b->driver, &(struct core_event){.type = CORE_EVENT_JOB_FAILED, .job = job->id});
    broker_job_ended(b, job);
}

void broker_job_block(struct broker *b, struct broker_job *job, const char *text)
{
    if (core_job_state_get(b->driver.core, job->id) != CORE_JOB_BLOCKED)
        log_warn("event=disk_full job=%llu msg=\"%s; goes on when there is room\"", (unsigned long long)job->id, text);
    (void)msg_text_set(job->blocked, sizeof(job->blocked), text);
    requests_await_room(&b->requests);
}

void broker_jobs_let_go(struct broker *b, uint64_t peer)
{
    for (struct broker_job *job = b->jobs.first; job; job = job->next) {
        remove_holder(&job->holders, peer);
        if (has_ended(b, job))
            broker_job_ended(b, job);
    }
}

static void answer_closed(struct broker *b, uint64_t job, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_JOB_CLOSE);
    m.seq = seq;
    m.job_ref.job = job;
    answer_send(&b->answers, peer, &m);
}

void broker_job_close_store(struct broker *b, struct broker_job *job)
{
    job->phase = BROKER_JOB_CLOSING;
    requests_drop(&b->requests, job->id);
    requests_post(&b->requests, committer_request_new(COMMITTER_CLOSE, job->id, 0));
}

void broker_job_on_closed(struct broker *b, struct broker_job *job)
{
    struct job_reopen *reopen = job->reopen;

    log_info("event=job_closed job=%llu store=\"%s\"", (unsigned long long)job->id, job->open.path);
    for (const struct job_holder *h = job->closers; h; h = h->next)
        answer_closed(b, job->id, h->peer, h->seq);
    job->reopen = NULL;
    broker_jobs_remove(b, job);
    if (reopen)
        broker_job_open(b, reopen->peer, &reopen->message);
    free(reopen);
}

/* -- what clients ask of an open job -- */

struct broker_job *broker_job_or_refuse(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = broker_job_find(b, m->job_ref.job);

    if (job && job->phase == BROKER_JOB_OPEN)
        return job;
    answer_refuse(&b->answers, peer, m->seq, MSG_REASON_UNKNOWN_JOB, "job %llu is not open here",
                  (unsigned long long)m->job_ref.job);
    return NULL;
}

static void answer_progress(struct broker *b, const struct broker_job *job, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_JOB_PROGRESS);
    m.seq = seq;
    progress_get(b, job, &m.job_progress);
    answer_send(&b->answers, peer, &m);
}

void broker_job_query(struct broker *b, uint64_t peer, const struct msg *m)
{
    const struct broker_job *job = broker_job_or_refuse(b, peer, m);

    if (job)
        answer_progress(b, job, peer, m->seq);
}

void broker_job_stop(struct broker *b, uint64_t peer, const struct msg *m)
{
    const struct broker_job *job = broker_job_or_refuse(b, peer, m);

    if (!job)
        return;
    driver_feed(&b->driver, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = job->id});
    answer_progress(b, job, peer, m->seq);
}

void broker_job_close(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = broker_job_find(b, m->job_ref.job);

    if (job)
        remove_holder(&job->holders, peer);
    if (!job || job->phase == BROKER_JOB_OPENING || (job->phase == BROKER_JOB_OPEN && job->holders)) {
        answer_closed(b, m->job_ref.job, peer, m->seq); /* the others' it may be */
        return;
    }
    broker_job_begin_close(b, job);
    if (add_holder(&job->closers, peer, m->seq) < 0)
        driver_fail(&b->driver, -ENOMEM, "no memory for a job");
}
