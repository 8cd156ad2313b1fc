#include "broker/actions.h"

#include "broker/broker.h"
#include "broker/jobs_retry.h"
#include "broker/progress.h"
#include "broker/work.h"

#include "base/log.h"
#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void do_welcome(struct broker *b, const struct core_action *a)
{
    const struct peer *p = peers_find(&b->peers, a->peer);

    if (p && b->jobs.first && !core_worker_is_wanted(b->driver.core, a->peer))
        log_warn(
            "event=worker_idle peer=%llu stage=%s host=%s pid=%u model=\"%s\" msg=\"no open job wants this worker's "
            "model; the worker waits for a job that does\"",
            (unsigned long long)p->number, stage_name(p->stage), p->host, p->hello_pid, p->model);
    answer_welcome(&b->answers, a->peer, 0);
}

static void do_refuse(struct broker *b, const struct core_action *a)
{
    static const enum msg_reason reasons[] = {[CORE_REFUSE_LIMIT] = MSG_REASON_LIMIT,
                                              [CORE_REFUSE_BAD_MESSAGE] = MSG_REASON_BAD_MESSAGE,
                                              [CORE_REFUSE_DRAINING] = MSG_REASON_DRAINING,
                                              [CORE_REFUSE_STALLED] = MSG_REASON_STALLED};

    answer_refuse(&b->answers, a->refuse.peer, 0, reasons[a->refuse.reason], "%s", a->refuse.text);
}

static void do_bench(struct broker *b, const struct core_action *a)
{
    struct peer *p = peers_find(&b->peers, a->bench.peer);

    if (!p)
        return;
    if (a->bench.n_bad > 0)
        log_warn("event=worker_benched peer=%llu stage=%s host=%s pid=%u failures=%u msg=\"%s; it rests, "
                 "longer each time, until it returns a good result\"",
                 (unsigned long long)p->number, stage_name(p->stage), p->host, p->hello_pid, a->bench.n_bad,
                 a->bench.why);
    else
        log_info("event=worker_back peer=%llu stage=%s host=%s pid=%u", (unsigned long long)p->number,
                 stage_name(p->stage), p->host, p->hello_pid);
}

static void do_hung(struct broker *b, const struct core_action *a)
{
    hung_note(&b->jobs.hung, a->hung.peer, peers_find(&b->peers, a->hung.peer), a->hung.text, b->driver.now_ms);
}

/* A worker that hears nothing connects again and says HELLO. */
static void do_forget_peer(struct broker *b, const struct core_action *a)
{
    log_info("event=peer_forgotten peer=%llu", (unsigned long long)a->peer);
    lost_forget(&b->lost, a->peer);
    peers_forget(&b->peers, a->peer);
    broker_socket_drop(b->answers.socket, a->peer);
}

/* -- WORK -- */

static struct core_event unsent(const struct core_work *work, int rc, const char *why)
{
    const struct core_lease_ref ref = {.peer = work->peer, .epoch = work->epoch, .lease = work->lease};

    if (rc == -ENOBUFS || rc == -EAGAIN) /* the peer is slow, not the unit's fault */
        return (struct core_event){.type = CORE_EVENT_RETURN, .lease = ref};
    return (struct core_event){.type = CORE_EVENT_FAILURE, .failure = {.lease = ref, .code = "broker", .text = why}};
}

static void do_work(struct broker *b, const struct core_action *a)
{
    const struct core_work *work = &a->work;
    struct wire_message *m = NULL;
    struct err err = {""};
    int rc = work_message(&b->jobs, &b->payloads, work, &m, &err);

    if (rc == 0)
        rc = broker_socket_send(b->answers.socket, work->peer, &m, &err);
    if (rc < 0 && rc != -EHOSTUNREACH) { /* a lost peer says which leases it has when it comes back */
        struct core_event event = unsent(work, rc, "the broker could not send the unit");

        log_warn("event=work_not_sent unit=%u peer=%llu msg=\"%s; the unit will be leased again\"", work->unit,
                 (unsigned long long)work->peer, err.text);
        driver_feed_later(&b->driver, &event);
    }
    wire_message_free(m);
}

/* -- the store -- */

static void do_load_units(struct broker *b, const struct core_action *a)
{
    struct broker_job *job = broker_job_find(&b->jobs, a->load.job);

    units_load(&b->jobs.units, &job->units, a->load.from_unit, a->load.max);
}

static void do_attempts(struct broker *b, const struct core_action *a)
{
    struct committer_request *r = committer_request_new(COMMITTER_ATTEMPTS, a->attempts.job, 0);

    if (r) {
        r->unit = a->attempts.unit;
        r->attempts = a->attempts.attempts;
        if (a->attempts.subunits && buf_append(&r->parts, a->attempts.subunits, a->attempts.n_items) < 0) {
            committer_request_free(r);
            r = NULL;
        }
    }
    log_info("event=attempt_failed job=%llu unit=%u attempts=%u", (unsigned long long)a->attempts.job, a->attempts.unit,
             a->attempts.attempts);
    requests_post(&b->requests, r);
}

static int merge_records(struct broker *b, const struct core_commit *commit, uint64_t first_item,
                         struct committer_request *ret, struct err *err)
{
    struct records_part *parts = calloc(commit->n_payloads + 1, sizeof(*parts));
    int rc = parts ? 0 : err_set(err, -ENOMEM, "no memory for the records of unit %u", commit->unit);

    for (uint32_t i = 0; rc == 0 && i < commit->n_payloads; i++) {
        const struct payload *p = payloads_find(&b->payloads, commit->payloads[i].payload);

        if (p)
            parts[i] = (struct records_part){&p->records, &commit->payloads[i]};
        else
            rc = err_set(err, -EINVAL, "the rows of node %u are gone", commit->payloads[i].node);
    }
    if (rc == 0)
        rc = records_merge(parts, commit, first_item, ret, err);
    free(parts);
    return rc;
}

static void do_commit(struct broker *b, const struct core_action *a)
{
    const struct core_commit *commit = &a->commit;
    struct broker_job *job = broker_job_find(&b->jobs, commit->job);
    const struct unit_rows *unit = units_find(&job->units, commit->unit);
    struct committer_request *r = committer_request_new(COMMITTER_UNIT, commit->job, 0);
    struct err err = {""};
    int rc;

    if (!r || !unit) {
        committer_request_free(r);
        driver_fail(&b->driver, -ENOMEM, "no memory to commit unit %u", commit->unit);
        return;
    }
    r->unit = commit->unit;
    if (commit->again && !(r->again = calloc(MSG_MAX_UNIT_ITEMS / 64, sizeof(*r->again)))) {
        committer_request_free(r);
        driver_fail(&b->driver, -ENOMEM, "no memory to commit unit %u", commit->unit);
        return;
    }
    if (commit->again)
        memcpy(r->again, commit->again, CORE_MASK_WORDS * sizeof(*r->again));
    rc = merge_records(b, commit, unit->first_item, r, &err);
    if (rc < 0) {
        committer_request_free(r);
        driver_fail(&b->driver, rc, "cannot write the records of unit %u: %s", commit->unit, err.text);
        return;
    }
    for (uint32_t i = 0; i < commit->n_quarantined; i++)
        log_warn("event=quarantined job=%llu item=%llu code=%s msg=\"%s\"", (unsigned long long)commit->job,
                 (unsigned long long)(unit->first_item + commit->quarantined[i].item), commit->quarantined[i].code,
                 commit->quarantined[i].text);
    requests_post(&b->requests, r);
}

/* -- the rest -- */

static void do_drop_tensors(struct broker *b, const struct core_action *a)
{
    payloads_drop_tensor(&b->payloads, a->payload);
}

static void do_drop_payload(struct broker *b, const struct core_action *a)
{
    payloads_drop(&b->payloads, a->payload);
}

static void do_job_done(struct broker *b, const struct core_action *a)
{
    struct broker_job *job = broker_job_find(&b->jobs, a->job);

    jobs_retry_or_end(&b->jobs, job);
}

static void do_job_paused(struct broker *b, const struct core_action *a)
{
    struct broker_job *job = broker_job_find(&b->jobs, a->paused.job);

    failures_explain(&job->failures, units_find(&job->units, job->failures.unit), a->paused.n_failed,
                     a->paused.n_finished, a->paused.given_up, job->pause);
    log_warn("event=job_paused job=%llu msg=\"%s; nothing new until it is opened again\"", (unsigned long long)job->id,
             job->pause);
    broker_job_record(&b->jobs, job, STORED_WANTED_PAUSED, 0, job->pause);
}

static void do_job_stopped(struct broker *b, const struct core_action *a)
{
    struct broker_job *job = broker_job_find(&b->jobs, a->job);

    log_info("event=job_stopped job=%llu", (unsigned long long)a->job);
    progress_log(&b->jobs, job);
    broker_job_ended(&b->jobs, job);
}

static void do_job_closed(struct broker *b, const struct core_action *a)
{
    broker_job_close_store(&b->jobs, broker_job_find(&b->jobs, a->job));
}

static void do_drained(struct broker *b, const struct core_action *a)
{
    (void)a;
    b->drained = true;
}

void actions_do(void *broker, const struct core_action *action)
{
    static void (*const act[CORE_N_ACTIONS])(struct broker *, const struct core_action *) = {
        [CORE_DO_WELCOME] = do_welcome,
        [CORE_DO_REFUSE] = do_refuse,
        [CORE_DO_BENCH] = do_bench,
        [CORE_DO_HUNG] = do_hung,
        [CORE_DO_HELLO_AGAIN] = do_forget_peer,
        [CORE_DO_FORGET_PEER] = do_forget_peer,
        [CORE_DO_WORK] = do_work,
        [CORE_DO_DROP_TENSORS] = do_drop_tensors,
        [CORE_DO_DROP_PAYLOAD] = do_drop_payload,
        [CORE_DO_LOAD_UNITS] = do_load_units,
        [CORE_DO_ATTEMPTS] = do_attempts,
        [CORE_DO_COMMIT] = do_commit,
        [CORE_DO_JOB_DONE] = do_job_done,
        [CORE_DO_JOB_PAUSED] = do_job_paused,
        [CORE_DO_JOB_STOPPED] = do_job_stopped,
        [CORE_DO_JOB_CLOSED] = do_job_closed,
        [CORE_DO_DRAINED] = do_drained,
    };

    act[action->type](broker, action);
}
