/* jobs_find.c - JOB_FIND: what a client asks of a job's store before it sends items. */
#include "broker/jobs.h"

#include <errno.h>

void broker_job_find_rows(struct jobs *jobs, uint64_t peer, struct wire_message *message)
{
    const struct msg *m = wire_message_envelope(message);
    struct broker_job *job = broker_job_or_refuse(jobs, peer, m);
    struct committer_request *r;
    struct row_cursor cursor;
    int rc = 0;

    if (!job)
        return;
    r = requests_new(jobs->requests, COMMITTER_FIND, job->id, &(struct question){.peer = peer, .seq = m->seq});
    wire_message_rows(message, &cursor);
    for (size_t i = 0; r && rc == 0 && i < cursor.n_frames; i++)
        rc = buf_append(&r->rows, cursor.frames[i].data, cursor.frames[i].size_bytes);
    row_cursor_release(&cursor);
    if (rc < 0) {
        committer_request_free(r);
        r = NULL;
    }
    if (r) {
        r->sources = m->job_find.sources;
        r->n_rows = m->n_rows;
    }
    requests_post(jobs->requests, r);
}

void broker_job_on_found(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                         const struct question *q)
{
    struct wire_message *m = NULL;
    struct err err = {""};
    int rc;

    if (done->rc == -EIO)
        broker_job_fail(jobs, job, "%s", done->text);
    if (done->rc < 0) {
        answer_refuse(jobs->answers, q->peer, q->seq, done->rc == -EINVAL ? MSG_REASON_BAD_MESSAGE : MSG_REASON_STORE,
                      "%s", done->text);
        return;
    }
    rc = wire_message_new(MSG_JOB_FOUND, &m);
    if (rc == 0) {
        wire_message_envelope(m)->seq = q->seq;
        wire_message_envelope(m)->job_ref.job = job->id;
        rc = wire_message_add_rows(m, &done->found, done->n_found);
    }
    if (rc == 0)
        rc = broker_socket_send(jobs->answers->socket, q->peer, &m, &err);
    wire_message_free(m);
    if (rc < 0 && rc != -EHOSTUNREACH)
        answer_refuse(jobs->answers, q->peer, q->seq, MSG_REASON_LIMIT, "what the store has cannot be sent: %s",
                      err.text);
}
