/* requests.c - what is asked of the committer, and its answers. */
#include "broker/shell.h"

#include "base/log.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 500 };

static void flush_backlog(struct broker *b)
{
    while (b->backlog) {
        struct broker_backlog *e = b->backlog;

        if (committer_post(b->committer, &e->request) < 0)
            return;
        b->backlog = e->next;
        if (!b->backlog)
            b->backlog_end = &b->backlog;
        free(e);
    }
}

void broker_post(struct broker *b, struct committer_request *request)
{
    struct broker_backlog *e;

    if (!request) {
        broker_fail(b, -ENOMEM, "no memory for the committer");
        return;
    }
    if (!b->backlog && committer_post(b->committer, &request) == 0)
        return;
    e = calloc(1, sizeof(*e));
    if (!e) {
        committer_request_free(request);
        broker_fail(b, -ENOMEM, "no memory for the committer");
        return;
    }
    e->request = request;
    *b->backlog_end = e;
    b->backlog_end = &e->next;
}

struct committer_request *broker_request_for(struct broker *b, enum committer_op op, const struct broker_job *job,
                                             uint64_t peer, const struct msg *m, uint64_t n_bytes)
{
    struct broker_question *q = calloc(1, sizeof(*q));
    struct broker_peer *p = core_map_get(&b->peers, peer);
    struct committer_request *r;

    if (!q)
        return NULL;
    *q = (struct broker_question){.peer = peer,
                                  .seq = m->seq,
                                  .rows_refused = job->rows_refused,
                                  .is_rows = m->type == MSG_JOB_ROWS || m->type == MSG_JOB_AGAIN,
                                  .n_bytes = n_bytes};
    r = committer_request_new(op, job->id, ++b->next_tag);
    if (!r || core_map_put(&b->questions, b->next_tag, q) < 0) {
        committer_request_free(r);
        free(q);
        return NULL;
    }
    if (p && q->is_rows) {
        p->n_unanswered++;
        p->unanswered_bytes += n_bytes;
        b->unanswered_bytes += n_bytes;
    }
    return r;
}

void broker_requests_free(struct broker *b)
{
    for (struct broker_backlog *e = b->backlog, *next; e; e = next) {
        next = e->next;
        committer_request_free(e->request);
        free(e);
    }
    for (struct broker_backlog *e = b->retry, *next; e; e = next) {
        next = e->next;
        committer_request_free(e->request);
        free(e);
    }
}

/* A client's rows have their answer: it may send more. */
static void settle(struct broker *b, const struct broker_question *q)
{
    struct broker_peer *p = core_map_get(&b->peers, q->peer);

    if (!q->is_rows)
        return;
    b->unanswered_bytes -= q->n_bytes;
    if (p) {
        p->n_unanswered--;
        p->unanswered_bytes -= q->n_bytes;
    }
}

void broker_requests_retry(struct broker *b)
{
    if (b->retry_at_ms == INT64_MAX)
        b->retry_at_ms = b->now_ms + RETRY_MS;
}

void broker_requests_drop(struct broker *b, uint64_t job)
{
    struct broker_backlog **link = &b->retry;

    while (*link) {
        struct broker_backlog *e = *link;
        struct broker_question *q;

        if (e->request->job != job) {
            link = &e->next;
            continue;
        }
        q = core_map_take(&b->questions, e->request->tag);
        if (q)
            settle(b, q);
        free(q);
        *link = e->next;
        committer_request_free(e->request);
        free(e);
    }
}

/* -- answers -- */

static void on_unit(struct broker *b, struct broker_job *job, const struct committer_completion *done)
{
    struct core_event event = {.commit = {.job = job->id, .unit = done->unit}};

    if (done->rc == 0 || done->rc == -EALREADY) {
        event.type = CORE_EVENT_COMMITTED;
        broker_unit_drop(b, job, done->unit); /* still blocked if another unit's commit failed */
    } else if (done->rc == -ENOSPC) {
        event.type = CORE_EVENT_COMMIT_FAILED;
        broker_job_block(b, job, done->text);
    } else if (done->rc == -ENOMEM) {
        broker_fail(b, -ENOMEM, "no memory to commit unit %u", done->unit);
        return;
    } else {
        broker_job_fail(b, job, "unit %u cannot be committed: %s", done->unit, done->text);
        return;
    }
    broker_feed(b, &event);
}

static void on_load(struct broker *b, struct broker_job *job, const struct committer_completion *done)
{
    if (done->rc == 0)
        broker_on_load(b, job, done->load);
    else if (done->rc == -ENOMEM)
        broker_fail(b, -ENOMEM, "no memory for units");
    else
        broker_job_fail(b, job, "%s", done->text);
}

/* Keep a request for later: in the order of their items, the rest behind. */
static void retry_later(struct broker *b, struct committer_completion *done)
{
    struct broker_backlog *e = calloc(1, sizeof(*e)), **link = &b->retry;

    if (!e) {
        broker_fail(b, -ENOMEM, "no memory for the committer");
        return;
    }
    e->request = done->request;
    done->request = NULL;
    while (*link && (e->request->op != COMMITTER_ROWS ||
                     ((*link)->request->op == COMMITTER_ROWS && (*link)->request->first_item < e->request->first_item)))
        link = &(*link)->next;
    e->next = *link;
    *link = e;
    broker_requests_retry(b);
}

/* Rows whose place was behind others that have been refused, which never comes; or the seal behind them. */
static bool is_behind_refused(struct broker *b, const struct broker_job *job, const struct committer_completion *done)
{
    const bool has_place = done->op == COMMITTER_ROWS || done->op == COMMITTER_SEAL;
    const struct broker_question *q = has_place ? core_map_get(&b->questions, done->tag) : NULL;

    return q && q->rows_refused != job->rows_refused;
}

static void on_completion(struct broker *b, struct committer_completion *done)
{
    struct broker_job *job = broker_job_find(b, done->job);
    struct broker_question *q;

    if (job && done->rc == 0 && done->op != COMMITTER_LOAD)
        job->counters = done->counters;
    /* a store that could not even be made is refused: there is nothing that could wait */
    if (done->request && done->op != COMMITTER_UNIT && done->op != COMMITTER_OPEN && job && job->phase == BROKER_JOB_OPEN &&
        !is_behind_refused(b, job, done)) {
        if (done->rc == -ENOSPC) {
            broker_job_block(b, job, done->text);
            (void)broker_feed(b, &(struct core_event){.type = CORE_EVENT_DISK_FULL, .job = job->id});
        }
        retry_later(b, done); /* whoever waits for the answer goes on waiting */
        return;
    }
    q = done->tag ? core_map_take(&b->questions, done->tag) : NULL;
    if (q)
        settle(b, q);
    if (job && done->op == COMMITTER_LOAD)
        on_load(b, job, done);
    else if (job && job->phase == BROKER_JOB_CLOSING && done->op != COMMITTER_UNIT && done->op != COMMITTER_CLOSE)
        ; /* nobody waits for it any more */
    else if (job && done->op == COMMITTER_UNIT)
        on_unit(b, job, done);
    else if (job && done->op == COMMITTER_ATTEMPTS && done->rc < 0 && done->rc != -EALREADY)
        broker_job_fail(b, job, "the attempts of unit %u cannot be committed: %s", done->unit, done->text);
    else if (job && q && done->op == COMMITTER_OPEN)
        broker_on_open(b, job, done, q);
    else if (job && q &&
             (done->op == COMMITTER_ROWS || done->op == COMMITTER_COMPARE || done->op == COMMITTER_AGAIN ||
              done->op == COMMITTER_SOURCES))
        broker_on_rows(b, job, done, q);
    else if (job && q && done->op == COMMITTER_SEAL)
        broker_on_seal(b, job, done, q);
    else if (job && done->op == COMMITTER_CLOSE)
        broker_on_closed(b, job);
    free(q);
}

void broker_completions(struct broker *b)
{
    struct committer_completion *done;

    flush_backlog(b);
    while (b->failed == 0 && (done = committer_take(b->committer))) {
        on_completion(b, done);
        committer_completion_free(done);
        flush_backlog(b);
    }
}

int64_t broker_retry_due(struct broker *b)
{
    bool waiting = false;

    if (b->now_ms < b->retry_at_ms)
        return b->retry_at_ms;
    while (b->retry) {
        struct broker_backlog *e = b->retry;

        b->retry = e->next;
        broker_post(b, e->request);
        free(e);
    }
    for (struct broker_job *job = b->jobs; job; job = job->next) {
        uint64_t bytes_free;

        if (job->phase != BROKER_JOB_OPEN || core_job_state_get(b->core, job->id) != CORE_JOB_BLOCKED)
            continue;
        waiting = true;
        if (store_free_bytes(job->store, &bytes_free) < 0 || bytes_free < (uint64_t)b->conf->min_free)
            continue;
        /* the next commit says whether it is true */
        (void)broker_feed(b, &(struct core_event){.type = CORE_EVENT_DISK_OK, .job = job->id});
    }
    b->retry_at_ms = waiting ? b->now_ms + RETRY_MS : INT64_MAX;
    return b->retry_at_ms;
}
