/* JobProgress from protobuf. */
#include "proto/msg_pb.h"

#include <errno.h>

static int hung_from_pb(const Blipline__JobProgress *from, struct msg_job_progress *to, struct err *err)
{
    int rc = 0;

    if (from->n_hung > MSG_MAX_HUNG)
        return err_set(err, -EMSGSIZE, "%zu hung workers, the limit is %d", from->n_hung, MSG_MAX_HUNG);
    to->n_hung = (uint32_t)from->n_hung;
    for (size_t i = 0; rc == 0 && i < from->n_hung; i++) {
        to->hung[i].pid = from->hung[i]->pid;
        to->hung[i].stage = (enum stage)from->hung[i]->stage;
        rc = TEXT_FROM_PB(to->hung[i].host, from->hung[i]->host, "host", err);
        if (rc == 0)
            rc = TEXT_FROM_PB(to->hung[i].text, from->hung[i]->text, "text of a hung worker", err);
    }
    return rc;
}

static void counters_from_pb(const Blipline__BrokerCounters *from, struct msg_broker_counters *to)
{
    if (from)
        *to = (struct msg_broker_counters){.late = from->late,
                                           .strangers = from->strangers,
                                           .malformed = from->malformed,
                                           .bad_messages = from->bad_messages,
                                           .refusals = from->refusals,
                                           .benches = from->benches,
                                           .cut_off = from->cut_off,
                                           .splits = from->splits,
                                           .lost = from->lost,
                                           .closed = from->closed,
                                           .turned_away = from->turned_away,
                                           .keys_accepted = from->keys_accepted,
                                           .keys_denied = from->keys_denied,
                                           .handshakes_bad = from->handshakes_bad,
                                           .handshakes_unfinished = from->handshakes_unfinished};
}

int msg_progress_from_pb(const Blipline__JobProgress *from, struct msg_job_progress *to, struct err *err)
{
    if (from->n_stages > MSG_MAX_STAGES)
        return err_set(err, -EMSGSIZE, "%zu stages, the limit is %d", from->n_stages, MSG_MAX_STAGES);
    to->job = from->job;
    to->state = (enum msg_job_state)from->state;
    to->n_items = from->n_items;
    to->n_done = from->n_done;
    to->n_failed = from->n_failed;
    to->n_units = from->n_units;
    to->n_units_done = from->n_units_done;
    to->n_again = from->n_again;
    to->n_redone = from->n_redone;
    to->n_stages = (uint32_t)from->n_stages;
    for (size_t i = 0; i < from->n_stages; i++) {
        const Blipline__StageProgress *s = from->stages[i];

        to->stages[i] = (struct msg_stage_progress){
            .stage = (enum stage)s->stage,
            .workers = s->workers,
            .items_done = s->items_done,
            .units_ready = s->units_ready,
            .units_leased = s->units_leased,
            .busy_ns = s->busy_ns,
            .decode_ns = s->decode_ns,
            .resize_ns = s->resize_ns,
            .failures = s->failures,
            .lease_expiries = s->lease_expiries,
            .isolations = s->isolations,
            .returns = s->returns,
            .bad_results = s->bad_results,
            .tensors_refused = s->tensors_refused,
            .stalls = s->stalls,
            .benched = s->benched,
        };
    }
    to->n_given_up = from->n_given_up;
    counters_from_pb(from->broker, &to->broker);
    if (hung_from_pb(from, to, err) < 0)
        return -EBADMSG;
    return TEXT_FROM_PB(to->text, from->text, "progress text", err);
}
