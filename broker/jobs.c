#include "broker/jobs.h"

#include "base/log.h"
#include "proto/rights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void broker_jobs_init(struct jobs *jobs, struct driver *driver, struct requests *requests, struct answers *answers,
                      struct peers *peers)
{
    *jobs = (struct jobs){.driver = driver,
                          .requests = requests,
                          .answers = answers,
                          .peers = peers,
                          .units = {.driver = driver, .requests = requests}};
}

struct broker_job *broker_job_find(const struct jobs *jobs, uint64_t id)
{
    return core_map_get(&jobs->by_id, id);
}

int broker_jobs_add(struct jobs *jobs, struct broker_job *job)
{
    if (core_map_put(&jobs->by_id, job->id, job) < 0)
        return -ENOMEM;
    job->next = jobs->first;
    jobs->first = job;
    return 0;
}

static void holders_free(struct job_holder *h)
{
    for (struct job_holder *next; h; h = next) {
        next = h->next;
        free(h);
    }
}

static void job_free(struct jobs *jobs, struct broker_job *job)
{
    holders_free(job->holders);
    holders_free(job->closers);
    free(job->reopen);
    free(job->entry);
    units_release(&jobs->units, &job->units);
    free(job);
}

void broker_jobs_remove(struct jobs *jobs, struct broker_job *job)
{
    struct broker_job **link = &jobs->first;

    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    core_map_take(&jobs->by_id, job->id);
    job_free(jobs, job);
}

void broker_jobs_release(struct jobs *jobs)
{
    while (jobs->first)
        broker_jobs_remove(jobs, jobs->first);
    core_map_release(&jobs->by_id);
    submissions_release(&jobs->submissions);
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

void broker_job_hold(struct jobs *jobs, struct broker_job *job, uint64_t peer)
{
    if (peers_find(jobs->peers, peer) && add_holder(&job->holders, peer, 0) < 0)
        driver_fail(jobs->driver, -ENOMEM, "no memory for a job");
}

/* Was there one? */
static bool remove_holder(struct job_holder **list, uint64_t peer)
{
    struct job_holder *h;

    while (*list && (*list)->peer != peer)
        list = &(*list)->next;
    h = *list;
    if (h)
        *list = h->next;
    free(h);
    return h != NULL;
}

/* -- the job table -- */

bool broker_job_is_cancelled(const struct broker_job *job)
{
    return job->entry && job->entry->wanted >= STORED_WANTED_CANCELLED;
}

void broker_job_count(const struct broker_job *job, struct stored_job_entry *entry)
{
    entry->n_items = job->counters.n_items;
    entry->n_done = job->counters.n_done;
    entry->n_failed = job->counters.n_failed;
    entry->sealed = job->counters.sealed;
    entry->n_again = job->counters.n_again;
}

void broker_job_put_entry(struct jobs *jobs, const struct broker_job *job)
{
    struct committer_request *r = committer_request_new(COMMITTER_ENTRY, job->id, 0);

    broker_job_count(job, job->entry);
    if (r && (r->entry = malloc(sizeof(*r->entry)))) {
        *r->entry = *job->entry;
    } else {
        committer_request_free(r);
        r = NULL;
    }
    requests_post(jobs->requests, r);
}

void broker_job_record(struct jobs *jobs, const struct broker_job *job, enum stored_wanted wanted, int64_t ended_ms,
                       const char *text)
{
    if (!job->entry || broker_job_is_cancelled(job))
        return;
    job->entry->wanted = wanted;
    job->entry->ended_ms = ended_ms;
    (void)msg_text_set(job->entry->text, sizeof(job->entry->text), text);
    broker_job_put_entry(jobs, job);
}

/* -- closing -- */

void broker_job_begin_close(struct jobs *jobs, struct broker_job *job)
{
    if (job->phase != BROKER_JOB_OPEN)
        return;
    job->phase = BROKER_JOB_CLOSING;
    units_await_no_more(&jobs->units, &job->units);
    driver_feed_later(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_CLOSE, .job = job->id});
}

void broker_job_ended(struct jobs *jobs, struct broker_job *job)
{
    if (!job->holders)
        broker_job_begin_close(jobs, job);
}

static bool has_ended(const struct jobs *jobs, const struct broker_job *job)
{
    const enum core_job_state state = core_job_state_get(jobs->driver->core, job->id);

    return state == CORE_JOB_STOPPED || state == CORE_JOB_PAUSED || state == CORE_JOB_DONE || state == CORE_JOB_FAILED;
}

void broker_job_fail(struct jobs *jobs, struct broker_job *job, const char *fmt, ...)
{
    va_list ap;

    if (job->phase != BROKER_JOB_OPEN || job->failed[0])
        return;
    va_start(ap, fmt);
    (void)vsnprintf(job->failed, sizeof(job->failed), fmt, ap);
    va_end(ap);
    log_err("event=job_failed job=%llu store=\"%s\" msg=\"%s\"", (unsigned long long)job->id, job->open.path,
            job->failed);
    broker_job_record(jobs, job, job->entry ? job->entry->wanted : STORED_WANTED_RUN, 0, job->failed);
    driver_feed_later(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_FAILED, .job = job->id});
    broker_job_ended(jobs, job);
}

void broker_job_block(struct jobs *jobs, struct broker_job *job, const char *text)
{
    if (core_job_state_get(jobs->driver->core, job->id) != CORE_JOB_BLOCKED)
        log_warn("event=disk_full job=%llu msg=\"%s; goes on when there is room\"", (unsigned long long)job->id, text);
    (void)msg_text_set(job->blocked, sizeof(job->blocked), text);
    requests_await_room(jobs->requests);
}

void broker_job_stop_if_abandoned(struct jobs *jobs, struct broker_job *job)
{
    if (job->phase != BROKER_JOB_OPEN || job->holders || job->counters.sealed || has_ended(jobs, job))
        return;
    log_info("event=import_abandoned job=%llu msg=\"no client has it open; it stops until one opens it again\"",
             (unsigned long long)job->id);
    (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = job->id});
}

void broker_jobs_let_go(struct jobs *jobs, uint64_t peer)
{
    for (struct broker_job *job = jobs->first; job; job = job->next) {
        if (!remove_holder(&job->holders, peer))
            continue;
        if (has_ended(jobs, job))
            broker_job_ended(jobs, job);
        else
            broker_job_stop_if_abandoned(jobs, job);
    }
}

static void answer_closed(const struct jobs *jobs, uint64_t job, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_JOB_CLOSE);
    m.seq = seq;
    m.job_ref.job = job;
    answer_send(jobs->answers, peer, &m);
}

void broker_job_tell_closers(struct jobs *jobs, const struct broker_job *job)
{
    for (const struct job_holder *h = job->closers; h; h = h->next)
        answer_closed(jobs, job->id, h->peer, h->seq);
}

void broker_job_close_store(struct jobs *jobs, struct broker_job *job)
{
    job->phase = BROKER_JOB_CLOSING;
    if (job->entry && (job->entry->n_items != job->counters.n_items || job->entry->n_done != job->counters.n_done ||
                       job->entry->n_failed != job->counters.n_failed || job->entry->n_again != job->counters.n_again ||
                       job->entry->sealed != job->counters.sealed))
        broker_job_put_entry(jobs, job);
    requests_drop(jobs->requests, job->id);
    requests_post(jobs->requests, committer_request_new(COMMITTER_CLOSE, job->id, 0));
}

/* -- what clients ask of an open job -- */

/* The job that the message is about, NULL: there is none, or it is not one of the sender's. */
static struct broker_job *find_for(const struct jobs *jobs, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = broker_job_find(jobs, m->job_ref.job);
    const struct peer *p = peers_find(jobs->peers, peer);

    if (!job || !p)
        return NULL;
    return msg_right(p->role, m->type) == MSG_RIGHT_ALL || strcmp(job->owner, p->name) == 0 ? job : NULL;
}

struct broker_job *broker_job_or_refuse(struct jobs *jobs, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = find_for(jobs, peer, m);

    if (job && job->phase == BROKER_JOB_OPEN)
        return job;
    answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_UNKNOWN_JOB, "job %llu is not open here",
                  (unsigned long long)m->job_ref.job);
    return NULL;
}

void broker_job_close(struct jobs *jobs, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = find_for(jobs, peer, m);

    if (job)
        (void)remove_holder(&job->holders, peer);
    if (job && job->entry && !has_ended(jobs, job) && job->phase == BROKER_JOB_OPEN) {
        broker_job_stop_if_abandoned(jobs, job); /* else it goes on by itself */
        answer_closed(jobs, job->id, peer, m->seq);
        return;
    }
    if (!job || job->phase == BROKER_JOB_OPENING || (job->phase == BROKER_JOB_OPEN && job->holders)) {
        answer_closed(jobs, m->job_ref.job, peer, m->seq); /* the others' it may be */
        return;
    }
    broker_job_begin_close(jobs, job);
    if (add_holder(&job->closers, peer, m->seq) < 0)
        driver_fail(jobs->driver, -ENOMEM, "no memory for a job");
}

void broker_job_unseen(struct jobs *jobs, const struct peer *p, const struct core_lease_ref *lease, const char *what)
{
    struct core_lease_info info;
    struct broker_job *job = NULL;

    if (core_lease_get(jobs->driver->core, lease, &info) == 0)
        job = broker_job_find(jobs, info.job);
    if (!job)
        return;
    (void)snprintf(job->unseen, sizeof(job->unseen), "%s cannot see %.800s", p->host, what);
    if (core_worker_sees(jobs->driver->core, p->number, job->id))
        log_warn("event=unseen job=%" PRIu64 " peer=%llu pid=%u msg=\"%s; it does other jobs until it can\"", job->id,
                 (unsigned long long)p->number, p->hello_pid, job->unseen);
}
