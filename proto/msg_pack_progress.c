/* JobProgress to protobuf. */
#include "proto/msg_pb.h"

static void hung_to_pb(const struct msg_job_progress *from, struct msg_progress_pb *p)
{
    for (uint32_t i = 0; i < from->n_hung; i++) {
        Blipline__HungWorker *t = p->hung_list[i] = &p->hung[i];

        blipline__hung_worker__init(t);
        t->host = msg_text_to_pb(from->hung[i].host);
        t->pid = from->hung[i].pid;
        t->stage = (Blipline__Stage)from->hung[i].stage;
        t->text = msg_text_to_pb(from->hung[i].text);
    }
    p->progress.n_hung = from->n_hung;
    p->progress.hung = p->hung_list;
}

static void counters_to_pb(const struct msg_broker_counters *from, Blipline__BrokerCounters *to)
{
    blipline__broker_counters__init(to);
    to->late = from->late;
    to->strangers = from->strangers;
    to->malformed = from->malformed;
    to->bad_messages = from->bad_messages;
    to->refusals = from->refusals;
    to->benches = from->benches;
    to->cut_off = from->cut_off;
    to->splits = from->splits;
    to->lost = from->lost;
    to->closed = from->closed;
    to->turned_away = from->turned_away;
    to->keys_accepted = from->keys_accepted;
    to->keys_denied = from->keys_denied;
    to->handshakes_bad = from->handshakes_bad;
    to->handshakes_unfinished = from->handshakes_unfinished;
}

void msg_progress_to_pb(const struct msg_job_progress *from, struct msg_progress_pb *p)
{
    Blipline__JobProgress *to = &p->progress;

    blipline__job_progress__init(to);
    for (uint32_t i = 0; i < from->n_stages; i++) {
        const struct msg_stage_progress *s = &from->stages[i];
        Blipline__StageProgress *t = p->stage_list[i] = &p->stages[i];

        blipline__stage_progress__init(t);
        t->stage = (Blipline__Stage)s->stage;
        t->workers = s->workers;
        t->items_done = s->items_done;
        t->units_ready = s->units_ready;
        t->units_leased = s->units_leased;
        t->busy_ns = s->busy_ns;
        t->decode_ns = s->decode_ns;
        t->resize_ns = s->resize_ns;
        t->failures = s->failures;
        t->lease_expiries = s->lease_expiries;
        t->isolations = s->isolations;
        t->returns = s->returns;
        t->bad_results = s->bad_results;
        t->tensors_refused = s->tensors_refused;
        t->stalls = s->stalls;
        t->benched = s->benched;
    }
    to->job = from->job;
    to->state = (Blipline__JobProgress__State)from->state;
    to->n_items = from->n_items;
    to->n_done = from->n_done;
    to->n_failed = from->n_failed;
    to->n_units = from->n_units;
    to->n_units_done = from->n_units_done;
    to->n_again = from->n_again;
    to->n_redone = from->n_redone;
    to->n_stages = from->n_stages;
    to->stages = p->stage_list;
    to->text = msg_text_to_pb(from->text);
    to->n_given_up = from->n_given_up;
    hung_to_pb(from, p);
    counters_to_pb(&from->broker, &p->broker);
    to->broker = &p->broker;
}
