/* jobs_import.c - JOB_ROWS, JOB_AGAIN, JOB_SEAL: a job's manifest comes from its client. */
#include "broker/jobs.h"

#include "base/buf.h"
#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>

/* After rows were refused, later rows and the seal are refused too, since the client may have sent them before it read
 * the refusal. Its next JOB_OPEN shows that it has read it. */
static bool refuse_behind_refused(struct jobs *jobs, const struct peer *p, uint64_t seq)
{
    if (p->rows_refused)
        answer_refuse(jobs->answers, p->number, seq, MSG_REASON_BAD_MESSAGE,
                      "rows that were sent before were refused; open the job again, which says how many items it has");
    return p->rows_refused;
}

/* The same submission is sent twice, perhaps by a client that has ended while its rows were on the way. Only the rows
 * of the client that was last told how many items there are follow these items. */
static bool refuse_overtaken(struct jobs *jobs, const struct broker_job *job, struct peer *p, const struct msg *m)
{
    if (!job->sender || job->sender == p->number || (m->type != MSG_JOB_ROWS && m->type != MSG_JOB_SEAL))
        return false;
    p->rows_refused = true;
    answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                  "another client now sends the items of job %llu, since it has the same submission; submit it again "
                  "once that one has ended",
                  (unsigned long long)job->id);
    return true;
}

static bool refuse_too_many(struct jobs *jobs, struct peer *p, uint64_t seq, uint64_t n_bytes)
{
    const struct job_limits *most = &jobs->limits;

    if (p->n_unanswered < most->n_messages && p->unanswered_bytes + n_bytes <= most->bytes &&
        jobs->requests->unanswered_bytes + n_bytes <= most->bytes_of_all)
        return false;
    p->rows_refused = true;
    answer_refuse(
        jobs->answers, p->number, seq, MSG_REASON_LIMIT,
        "at most %u messages of rows may wait for their answers (client_messages of the broker's "
        "configuration), with %llu MiB in all (client_bytes; of all clients %llu MiB: all_clients_bytes); open "
        "the job again, which says how many items it has",
        most->n_messages, (unsigned long long)most->bytes >> 20, (unsigned long long)most->bytes_of_all >> 20);
    return true;
}

static bool refuse_if_over(struct jobs *jobs, const struct broker_job *job, uint64_t peer, const struct msg *m)
{
    if (broker_job_is_cancelled(job))
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_NOT_ALLOWED, "job %llu was cancelled",
                      (unsigned long long)job->id);
    else if (m->type == MSG_JOB_AGAIN && store_info(job->store)->push)
        answer_refuse(
            jobs->answers, peer, m->seq, MSG_REASON_NOT_ALLOWED,
            "the pictures of job %llu were sent by its client, and are deleted once they are done; submit those "
            "that failed again",
            (unsigned long long)job->id);
    else if (job->failed[0])
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_STORE, "%s", job->failed);
    else
        return false;
    return true;
}

/* The number of the next row that is posted, if it is known. */
static uint64_t next_item(const struct broker_job *job)
{
    return job->n_comparing ? COMMITTER_ANY_ITEM : job->next_item;
}

void broker_job_rows(struct jobs *jobs, uint64_t peer, struct wire_message *message)
{
    const struct msg *m = wire_message_envelope(message);
    struct broker_job *job = broker_job_or_refuse(jobs, peer, m);
    const enum committer_op op = m->type == MSG_JOB_AGAIN ? COMMITTER_AGAIN
                                 : m->job_rows.sources    ? COMMITTER_SOURCES
                                 : m->job_rows.compare    ? COMMITTER_COMPARE
                                                          : COMMITTER_ROWS;
    const uint64_t n_bytes = wire_message_size_bytes(message);
    struct peer *p = peers_find(jobs->peers, peer);
    struct committer_request *r;
    struct row_cursor cursor;
    int rc = 0;

    if (!job || !p || refuse_if_over(jobs, job, peer, m) || refuse_behind_refused(jobs, p, m->seq) ||
        refuse_overtaken(jobs, job, p, m) || refuse_too_many(jobs, p, m->seq, n_bytes))
        return;
    if (m->type == MSG_JOB_PUSH) {
        broker_job_push(jobs, p, job, message);
        return;
    }
    r = requests_new(
        jobs->requests, op, job->id,
        &(struct question){
            .peer = peer, .seq = m->seq, .rows_refused = job->rows_refused, .is_rows = true, .n_bytes = n_bytes});
    wire_message_rows(message, &cursor);
    for (size_t i = 0; r && rc == 0 && i < cursor.n_frames; i++)
        rc = buf_append(&r->rows, cursor.frames[i].data, cursor.frames[i].size_bytes);
    row_cursor_release(&cursor);
    if (r && rc == 0 && op == COMMITTER_COMPARE && m->job_rows.begin) {
        r->begin = malloc(sizeof(*r->begin));
        if (r->begin)
            *r->begin = m->job_rows.comparison;
        else
            rc = -ENOMEM;
    }
    if (rc < 0) {
        committer_request_free(r);
        r = NULL;
    }
    if (r)
        r->n_rows = m->n_rows;
    if (r && op == COMMITTER_ROWS) {
        r->first_item = next_item(job);
        job->next_item += m->n_rows;
    }
    job->n_comparing += r && op == COMMITTER_COMPARE;
    requests_post(jobs->requests, r);
}

void broker_job_seal(struct jobs *jobs, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = broker_job_or_refuse(jobs, peer, m);
    struct peer *p = peers_find(jobs->peers, peer);
    struct committer_request *r;

    if (!job || !p || refuse_if_over(jobs, job, peer, m) || refuse_behind_refused(jobs, p, m->seq) ||
        refuse_overtaken(jobs, job, p, m))
        return;
    r = requests_new(jobs->requests, COMMITTER_SEAL, job->id,
                     &(struct question){.peer = peer, .seq = m->seq, .rows_refused = job->rows_refused});
    if (r) {
        r->first_item = next_item(job); /* wait for the rows that were posted before */
        r->disk_bytes = m->job_seal.disk_bytes;
    }
    requests_post(jobs->requests, r);
}

/* The table has a job as ended: it is not any more. */
static void goes_on(struct jobs *jobs, const struct broker_job *job)
{
    if (job->entry && job->entry->ended_ms)
        broker_job_record(jobs, job, STORED_WANTED_RUN, 0, "");
}

/* New rows: a job that was done, or sealed, is so no more. */
static void units_added(struct jobs *jobs, struct broker_job *job)
{
    goes_on(jobs, job);
    (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_UNITS_ADDED, .job = job->id});
}

void broker_job_on_rows(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done,
                        const struct question *q)
{
    struct peer *p = peers_find(jobs->peers, q->peer);
    struct msg m;

    job->n_comparing -= done->op == COMMITTER_COMPARE;
    if (done->rc == -EIO)
        broker_job_fail(jobs, job, "%s", done->text);
    if (done->rc < 0) {
        if (p)
            p->rows_refused = true;
        answer_refuse(jobs->answers, q->peer, q->seq, done->rc == -EIO ? MSG_REASON_STORE : MSG_REASON_BAD_MESSAGE,
                      "%s", done->text);
        if (done->op != COMMITTER_ROWS || q->rows_refused != job->rows_refused)
            return; /* later rows have numbers already */
        job->next_item = done->next_item;
        job->rows_refused++;
        return;
    }
    msg_init(&m, MSG_JOB_ROWS_OK);
    m.seq = q->seq;
    m.job_rows_ok = (struct msg_job_rows_ok){.job = job->id,
                                             .n_items = done->next_item,
                                             .is_compared = done->op == COMMITTER_COMPARE,
                                             .compared = done->compared};
    answer_send(jobs->answers, q->peer, &m);
    job->next_item += done->n_added;
    if (done->op == COMMITTER_ROWS || done->n_added)
        units_added(jobs, job);
    if (done->op == COMMITTER_ROWS || (done->op == COMMITTER_COMPARE && !done->n_again))
        return;
    goes_on(jobs, job);
    (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_UNITS_AGAIN,
                                                         .units_again = {.job = job->id, .from_unit = done->unit}});
}

void broker_job_on_seal(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done,
                        const struct question *q)
{
    struct msg m;

    if (done->rc == -EIO)
        broker_job_fail(jobs, job, "%s", done->text);
    if (done->rc < 0) {
        answer_refuse(jobs->answers, q->peer, q->seq,
                      done->rc == -EAGAIN   ? MSG_REASON_BAD_MESSAGE
                      : done->rc == -EDQUOT ? MSG_REASON_LIMIT
                                            : MSG_REASON_STORE,
                      "%s", done->rc == -EAGAIN ? "not sealed: rows that were sent before were refused" : done->text);
        return;
    }
    msg_init(&m, MSG_JOB_ACCEPTED);
    m.seq = q->seq;
    m.job_accepted = (struct msg_job_accepted){.job = job->id,
                                               .n_items = done->counters.n_items,
                                               .n_units = done->counters.n_units,
                                               .disk_room = jobs_disk_room(jobs)};
    answer_send(jobs->answers, q->peer, &m);
    units_added(jobs, job);
    driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_SEALED, .job = job->id});
}
