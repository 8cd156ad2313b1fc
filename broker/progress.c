#include "broker/progress.h"

#include "broker/jobs.h"

#include "base/log.h"

#include <inttypes.h>
#include <string.h>

enum msg_job_state progress_state(const struct jobs *jobs, const struct broker_job *job)
{
    const enum core_job_state state = core_job_state_get(jobs->driver->core, job->id);
    static const enum msg_job_state states[] = {
        [CORE_JOB_NONE] = MSG_JOB_STOPPED,    [CORE_JOB_IMPORTING] = MSG_JOB_IMPORTING,
        [CORE_JOB_RUNNING] = MSG_JOB_RUNNING, [CORE_JOB_STOPPING] = MSG_JOB_RUNNING,
        [CORE_JOB_STOPPED] = MSG_JOB_STOPPED, [CORE_JOB_PAUSED] = MSG_JOB_PAUSED,
        [CORE_JOB_DONE] = MSG_JOB_DONE,       [CORE_JOB_BLOCKED] = MSG_JOB_BLOCKED,
        [CORE_JOB_FAILED] = MSG_JOB_FAILED,   [CORE_JOB_CLOSING] = MSG_JOB_STOPPED};

    return broker_job_is_cancelled(job) && state != CORE_JOB_FAILED ? MSG_JOB_CANCELLED : states[state];
}

const char *progress_text(const struct broker_job *job, enum msg_job_state state)
{
    return state == MSG_JOB_PAUSED    ? job->pause
           : state == MSG_JOB_BLOCKED ? job->blocked
           : state == MSG_JOB_FAILED  ? job->failed
                                      : job->waiting;
}

static struct msg_broker_counters counters_of(const struct jobs *jobs, const struct core_stats *s)
{
    const struct broker_socket_counters socket = broker_socket_counters(jobs->answers->socket);

    return (struct msg_broker_counters){.late = s->dropped_stale,
                                        .strangers = s->dropped_unknown,
                                        .malformed = s->dropped_bad,
                                        .bad_messages = jobs->answers->n_bad_messages,
                                        .refusals = jobs->answers->n_refusals,
                                        .benches = s->benches,
                                        .cut_off = s->stalls,
                                        .splits = s->splits,
                                        .lost = s->payloads_lost + s->tensors_refused,
                                        .closed = socket.closed,
                                        .turned_away = socket.refused_peers,
                                        .keys_accepted = socket.keys_accepted,
                                        .keys_denied = socket.keys_denied,
                                        .handshakes_bad = socket.handshakes_bad,
                                        .handshakes_unfinished = socket.handshakes_unfinished};
}

static struct msg_stage_progress stage_of(const struct broker_job *job, uint32_t node, const struct core_node_stats *n,
                                          const struct core_stats *all)
{
    return (struct msg_stage_progress){.stage = n->stage,
                                       .workers = all->workers[n->stage],
                                       .items_done = n->items_done,
                                       .units_ready = n->subunits_ready,
                                       .units_leased = n->subunits_leased,
                                       .busy_ns = job->totals[node].compute_ns,
                                       .decode_ns = job->totals[node].decode_ns,
                                       .resize_ns = job->totals[node].resize_ns,
                                       .failures = n->failures,
                                       .lease_expiries = n->expiries,
                                       .isolations = n->isolations,
                                       .returns = n->returns,
                                       .bad_results = n->bad_results,
                                       .tensors_refused = n->tensors_refused,
                                       .stalls = n->stalls,
                                       .benched = all->benched[n->stage]};
}

static void progress_get(const struct jobs *jobs, const struct broker_job *job, struct msg_job_progress *ret)
{
    struct core_job_stats stats;
    struct core_stats all;

    if (core_job_stats_get(jobs->driver->core, job->id, &stats) < 0)
        return;
    core_stats_get(jobs->driver->core, &all);
    *ret = (struct msg_job_progress){.job = job->id,
                                     .state = progress_state(jobs, job),
                                     .n_items = job->counters.n_items,
                                     .n_done = job->counters.n_done,
                                     .n_failed = job->counters.n_failed,
                                     .n_again = job->counters.n_again,
                                     .n_redone = job->counters.n_redone,
                                     .n_units = job->counters.n_units,
                                     .n_units_done = job->counters.n_units_done,
                                     .n_given_up = stats.items_quarantined,
                                     .n_stages = stats.n_nodes,
                                     .broker = counters_of(jobs, &all)};
    for (uint32_t i = 0; i < stats.n_nodes; i++)
        ret->stages[i] = stage_of(job, i, &stats.nodes[i], &all);
    hung_tell(&jobs->hung, jobs->driver->now_ms, ret);
    (void)msg_text_set(ret->text, sizeof(ret->text), progress_text(job, ret->state));
}

void progress_answer(const struct jobs *jobs, const struct broker_job *job, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_JOB_PROGRESS);
    m.seq = seq;
    progress_get(jobs, job, &m.job_progress);
    answer_send(jobs->answers, peer, &m);
}

void progress_log(const struct jobs *jobs, const struct broker_job *job)
{
    struct core_job_stats stats;
    struct msg_broker_counters c;
    struct core_stats all;

    if (core_job_stats_get(jobs->driver->core, job->id, &stats) < 0)
        return;
    core_stats_get(jobs->driver->core, &all);
    c = counters_of(jobs, &all);
    for (uint32_t i = 0; i < stats.n_nodes; i++) {
        const struct core_node_stats *n = &stats.nodes[i];

        log_info("event=counters job=%" PRIu64 " node=%u stage=%s items=%" PRIu64 " failures=%" PRIu64
                 " bad_results=%" PRIu64 " returns=%" PRIu64 " lease_expiries=%" PRIu64 " stalls=%" PRIu64
                 " tensors_refused=%" PRIu64,
                 job->id, i, stage_name(n->stage), n->items_done, n->failures, n->bad_results, n->returns, n->expiries,
                 n->stalls, n->tensors_refused);
    }
    log_info("event=counters given_up=%" PRIu64 " splits=%" PRIu64 " late=%" PRIu64 " strangers=%" PRIu64
             " malformed=%" PRIu64 " bad_messages=%" PRIu64 " refusals=%" PRIu64 " benches=%" PRIu64 " cut_off=%" PRIu64
             " lost=%" PRIu64 " closed=%" PRIu64 " turned_away=%" PRIu64 " keys_accepted=%" PRIu64
             " keys_denied=%" PRIu64 " handshakes_bad=%" PRIu64 " handshakes_unfinished=%" PRIu64,
             all.quarantined, c.splits, c.late, c.strangers, c.malformed, c.bad_messages, c.refusals, c.benches,
             c.cut_off, c.lost, c.closed, c.turned_away, c.keys_accepted, c.keys_denied, c.handshakes_bad,
             c.handshakes_unfinished);
}
