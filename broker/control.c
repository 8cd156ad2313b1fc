#include "broker/control.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int refuse_if_ended(const struct stored_job_entry *e, struct err *err)
{
    if (!e->ended_ms)
        return 0;
    return err_set(err, -EPERM, "job %" PRIu64 " %s", e->job,
                   e->wanted == STORED_WANTED_RUN ? "has ended" : "was cancelled");
}

static int cancel(struct stored_job_entry *e, int64_t now_ms, struct err *err)
{
    if (e->wanted == STORED_WANTED_CANCELLED)
        return 0; /* the same request, sent again */
    if (refuse_if_ended(e, err) < 0)
        return -EPERM;
    e->wanted = STORED_WANTED_CANCELLED;
    e->ended_ms = now_ms;
    e->retrying = false;
    (void)msg_text_set(e->text, sizeof(e->text), "cancelled");
    return 0;
}

static int pause_or_resume(struct stored_job_entry *e, bool pauses, struct err *err)
{
    const enum stored_wanted wanted = pauses ? STORED_WANTED_PAUSED : STORED_WANTED_RUN;

    if (refuse_if_ended(e, err) < 0)
        return -EPERM;
    if (e->wanted != wanted || !pauses)
        (void)msg_text_set(e->text, sizeof(e->text), pauses ? "paused on request" : "");
    e->wanted = wanted;
    return 0;
}

static bool is_same_retry(const struct stored_job_entry *e, const struct msg_job_control *c)
{
    bool same = e->n_retry_codes == c->n_codes;

    for (uint32_t i = 0; same && i < c->n_codes; i++)
        same = strcmp(e->retry_codes[i], c->codes[i]) == 0;
    return same;
}

static int retry(struct stored_job_entry *e, const struct msg_job_control *c, struct err *err)
{
    if (e->wanted >= STORED_WANTED_CANCELLED)
        return err_set(err, -EPERM, "job %" PRIu64 " was cancelled", e->job);
    if (e->push)
        return err_set(err, -EPERM,
                       "the pictures of job %" PRIu64
                       " were sent by its client, and are deleted once they are done; submit those that failed again",
                       e->job);
    if (e->retrying && !is_same_retry(e, c))
        return err_set(err, -EPERM,
                       "the failed items of job %" PRIu64
                       " are still being marked for another retry; resume the job if it is paused, and try again later",
                       e->job);
    e->retrying = true;
    e->n_retry_codes = c->n_codes;
    memcpy(e->retry_codes, c->codes, sizeof(e->retry_codes));
    e->wanted = STORED_WANTED_RUN;
    e->ended_ms = 0;
    e->text[0] = '\0';
    return 0;
}

int control_apply(struct stored_job_entry *e, const struct msg_job_control *c, int64_t now_ms, struct err *err)
{
    switch (c->action) {
    case MSG_JOB_PAUSE:
    case MSG_JOB_RESUME:
        return pause_or_resume(e, c->action == MSG_JOB_PAUSE, err);
    case MSG_JOB_CANCEL:
        return cancel(e, now_ms, err);
    case MSG_JOB_PRIORITY:
        e->priority = c->priority;
        return 0;
    case MSG_JOB_RETRY:
        return retry(e, c, err);
    case MSG_JOB_REMOVE:
        if (!e->ended_ms)
            return err_set(err, -EPERM, "job %" PRIu64 " has not ended; cancel it first", e->job);
        e->wanted = STORED_WANTED_REMOVED;
        return 0;
    }
    return err_set(err, -EPERM, "job %" PRIu64 ": unknown action %d", e->job, (int)c->action);
}
