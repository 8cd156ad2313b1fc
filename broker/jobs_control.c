/* jobs_control.c - JOB_LIST, JOB_CONTROL: the job table as clients see and change it.
 *
 * An open job's row is the loop's (struct broker_job.entry), so it is changed here and then written; the row of another
 * job is changed by the committer. */
#include "broker/jobs_retry.h"
#include "broker/jobs_table.h"
#include "broker/progress.h"

#include "base/clock.h"
#include "base/log.h"
#include "broker/control.h"
#include "proto/rights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* -- answers -- */

/* Of an open job, the row says how it is now. */
static void add_present(const struct jobs *jobs, struct stored_job_entry *e)
{
    const struct broker_job *job = broker_job_find(jobs, e->job);
    const char *text;

    if (!job || job->phase != BROKER_JOB_OPEN)
        return;
    broker_job_count(job, e);
    e->retrying = job->entry->retrying;
    e->state = progress_state(jobs, job);
    text = progress_text(job, e->state);
    if (text[0])
        (void)msg_text_set(e->text, sizeof(e->text), text);
}

void jobs_table_answer(struct jobs *jobs, const struct question *q, struct stored_job_entry *rows, uint32_t n_rows,
                       uint64_t next_job)
{
    struct wire_message *m = NULL;
    struct err err = {""};
    struct buf frame;
    int rc = 0;

    buf_init(&frame, MSG_MAX_ROW_FRAME_BYTES);
    for (uint32_t i = 0; rc == 0 && i < n_rows; i++) {
        add_present(jobs, &rows[i]);
        rc = row_job_entry_append(&frame, &rows[i]);
    }
    if (rc == 0)
        rc = wire_message_new(MSG_JOB_LISTED, &m);
    if (rc == 0) {
        wire_message_envelope(m)->seq = q->seq;
        wire_message_envelope(m)->job_listed.next_job = next_job;
        rc = wire_message_add_rows(m, &frame, n_rows);
    }
    if (rc == 0)
        rc = broker_socket_send(jobs->answers->socket, q->peer, &m, &err);
    wire_message_free(m);
    buf_release(&frame);
    if (rc < 0 && rc != -EHOSTUNREACH)
        answer_refuse(jobs->answers, q->peer, q->seq, MSG_REASON_LIMIT, "the list of jobs cannot be sent: %s",
                      err.text);
}

static void refuse(struct jobs *jobs, const struct question *q, int rc, const char *text)
{
    const enum msg_reason reason = rc == -EPERM    ? MSG_REASON_NOT_ALLOWED
                                   : rc == -ENOENT ? MSG_REASON_UNKNOWN_JOB
                                                   : MSG_REASON_STORE;

    answer_refuse(jobs->answers, q->peer, q->seq, reason, "%s", text);
}

/* -- JOB_LIST -- */

void broker_jobs_list(struct jobs *jobs, const struct peer *p, const struct msg *m)
{
    struct committer_request *r;

    if (jobs_table_refuse(jobs, p, m, 0))
        return;
    r = requests_new(jobs->requests, COMMITTER_LIST, 0, &(struct question){.peer = p->number, .seq = m->seq});
    if (r) {
        r->first_job = m->job_list.from_job;
        r->of_owner = msg_right(p->role, m->type) != MSG_RIGHT_ALL;
        (void)msg_text_set(r->owner, sizeof(r->owner), p->name);
    }
    requests_post(jobs->requests, r);
}

void broker_jobs_on_listed(struct jobs *jobs, struct committer_completion *done, const struct question *q)
{
    if (done->rc < 0)
        refuse(jobs, q, done->rc, done->text);
    else
        jobs_table_answer(jobs, q, (struct stored_job_entry *)(void *)done->found.data, done->n_found, done->next_job);
}

/* -- JOB_CONTROL -- */

/* NULL: it is not. */
static const char *why_busy(const struct broker_job *job, enum msg_job_action action)
{
    if (job->phase == BROKER_JOB_OPENING)
        return "is being opened";
    if (!job->entry) /* it was refused before its row was read */
        return "is being closed";
    return action == MSG_JOB_REMOVE && job->entry->ended_ms ? "is still open" : NULL;
}

static bool refuse_if_busy(struct jobs *jobs, const struct peer *p, const struct msg *m, const struct broker_job *job)
{
    const char *why = job ? why_busy(job, m->job_control.action) : NULL;

    if (why)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_BUSY, "job %" PRIu64 " %s; try again", job->id, why);
    return why != NULL;
}

/* The open job's row becomes `changed`, and is written. */
static void change_open(struct jobs *jobs, struct broker_job *job, const struct stored_job_entry *changed,
                        struct question *q)
{
    struct committer_request *r;

    q->had_row = true;
    q->wanted = job->entry->wanted;
    q->ended_ms = job->entry->ended_ms;
    q->retrying = job->entry->retrying;
    q->priority = job->entry->priority;
    r = requests_new(jobs->requests, COMMITTER_ENTRY, job->id, q);
    if (r && !(r->entry = malloc(sizeof(*r->entry)))) {
        committer_request_free(r);
        r = NULL;
    }
    if (r)
        *r->entry = *job->entry = *changed;
    requests_post(jobs->requests, r);
}

/* Of a job that is not open the committer changes the row. */
static void change_closed(struct jobs *jobs, const struct question *q)
{
    struct committer_request *r = requests_new(jobs->requests, COMMITTER_ENTRY, q->control.job, q);

    if (r)
        r->control = q->control;
    if (r && q->control.action == MSG_JOB_REMOVE)
        submissions_set_removing(&jobs->submissions, q->control.job, true);
    requests_post(jobs->requests, r);
}

void broker_job_control(struct jobs *jobs, const struct peer *p, const struct msg *m)
{
    struct question q = {.peer = p->number, .seq = m->seq, .control = m->job_control};
    struct broker_job *job = broker_job_find(jobs, m->job_control.job);
    struct stored_job_entry changed;
    struct err err;
    int rc;

    if (jobs_table_refuse(jobs, p, m, m->job_control.job) || refuse_if_busy(jobs, p, m, job))
        return;
    if (!job) {
        change_closed(jobs, &q);
        return;
    }
    changed = *job->entry;
    broker_job_count(job, &changed);
    rc = control_apply(&changed, &m->job_control, clock_wall_ms(), &err);
    if (rc < 0)
        refuse(jobs, &q, rc, err.text);
    else
        change_open(jobs, job, &changed, &q);
}

static void resume_open(struct jobs *jobs, struct broker_job *job)
{
    if (job->phase == BROKER_JOB_OPEN && core_job_state_get(jobs->driver->core, job->id) != CORE_JOB_FAILED) {
        job->failures = (struct failures){0};
        (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_START, .job = job->id});
        jobs_retry_begin(jobs, job);
        broker_job_stop_if_abandoned(jobs, job);
        return;
    }
    job->resume = true;
    broker_job_begin_close(jobs, job);
}

static void resume(struct jobs *jobs, struct broker_job *job, const struct stored_job_entry *entry)
{
    struct err err = {""};
    int rc;

    if (jobs->shutting_down)
        return; /* the next broker goes on with it */
    if (job && job->phase != BROKER_JOB_OPENING)
        resume_open(jobs, job);
    else if (!job && (rc = jobs_table_open(jobs, entry, &err)) < 0)
        driver_fail(jobs->driver, rc, "%s", err.text);
}

static void take_effect(struct jobs *jobs, struct broker_job *job, const struct msg_job_control *c,
                        const struct stored_job_entry *entry)
{
    const bool is_open = job && job->phase == BROKER_JOB_OPEN;

    if (is_open && c->action != MSG_JOB_PRIORITY && job->entry && job->entry->wanted != entry->wanted)
        return; /* something else was asked since, or the job has ended */
    if (c->action == MSG_JOB_REMOVE)
        submissions_remove(&jobs->submissions, c->job);
    else if (c->action == MSG_JOB_RESUME || c->action == MSG_JOB_RETRY)
        resume(jobs, job, entry);
    else if (is_open && c->action == MSG_JOB_PRIORITY)
        (void)driver_feed(jobs->driver,
                          &(struct core_event){.type = CORE_EVENT_JOB_PRIORITY, .job_priority = {c->job, c->priority}});
    else if (is_open)
        (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = c->job});
}

static void on_failed(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done,
                      const struct question *q)
{
    if (q->control.action == MSG_JOB_REMOVE)
        submissions_set_removing(&jobs->submissions, done->job, false);
    if (job && job->entry && q->had_row) {
        job->entry->wanted = q->wanted;
        job->entry->ended_ms = q->ended_ms;
        job->entry->retrying = q->retrying;
        job->entry->priority = q->priority;
    }
    refuse(jobs, q, done->rc, done->text);
}

void broker_job_on_controlled(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                              const struct question *q)
{
    static const char *const names[] = {
        [MSG_JOB_PAUSE] = "pause",       [MSG_JOB_RESUME] = "resume", [MSG_JOB_CANCEL] = "cancel",
        [MSG_JOB_PRIORITY] = "priority", [MSG_JOB_REMOVE] = "remove", [MSG_JOB_RETRY] = "retry"};

    if (done->rc < 0) {
        on_failed(jobs, job, done, q);
        return;
    }
    log_info("event=job_control job=%" PRIu64 " action=%s priority=%u", done->job, names[q->control.action],
             done->entry->priority);
    take_effect(jobs, job, &q->control, done->entry);
    if (q->control.action != MSG_JOB_RETRY || !jobs_retry_wait(jobs, done->job, q))
        jobs_table_answer(jobs, q, done->entry, q->control.action != MSG_JOB_REMOVE, 0);
}
