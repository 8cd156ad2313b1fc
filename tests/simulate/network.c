/* The network between workers and the broker: messages are lost, delayed, doubled and reordered. */
#include "tests/simulate/world.h"

/* -- on the way -- */

/* Losing or delaying this message costs its lease an attempt. */
static bool is_costly(const struct message *m)
{
    return m->work && (m->class == MSG_WORK || m->class == MSG_RESULT || m->class == MSG_RETURN ||
                       (m->class == MSG_FAILURE && m->work->refused));
}

static bool may_harm(struct world *w, struct message *m)
{
    if (w->quiet)
        return false;
    if (w->wild)
        return true;
    if (m->class == MSG_BYE || (m->class == MSG_HEARTBEAT && m->worker->last_heartbeat_lost))
        return false;
    if ((m->class == MSG_HELLO || m->class == MSG_ANSWER) && m->worker->n_held > 0)
        return false; /* without WELCOME it sends no heartbeats for what it holds */
    return !is_costly(m) || worker_may_hit(w, &m->work, 1);
}

void network_post(struct world *w, struct message *m)
{
    struct sim_worker *k = m->worker;
    bool to_worker = m->class == MSG_ANSWER || m->class == MSG_WORK, late = false;
    bool rare = m->class == MSG_FAILURE || m->class == MSG_RETURN || m->class == MSG_BYE;
    uint32_t per_mille = rare ? 100 : 25;
    int64_t delay = 1 + (int64_t)world_below(w, 15);

    m->life = k->life;
    m->peer = k->peer;
    m->seq = ++k->sent_seq[to_worker];
    if (!w->quiet && world_chance(w, per_mille) && may_harm(w, m)) {
        w->tally->net[m->class][NET_LOST]++;
        k->last_heartbeat_lost = m->class == MSG_HEARTBEAT || k->last_heartbeat_lost;
        if (m->work)
            worker_forget(w, k, m->work);
        return;
    }
    if (!w->quiet && world_chance(w, per_mille) && (m->class == MSG_BYE || may_harm(w, m))) {
        bool gently = !w->wild && (m->class == MSG_HEARTBEAT || m->class == MSG_BYE);

        w->tally->net[m->class][NET_DELAYED]++;
        delay += 20 + (int64_t)world_below(w, gently ? 250 : 2500);
        late = true;
    }
    k->last_heartbeat_lost = m->class == MSG_HEARTBEAT ? late : k->last_heartbeat_lost;
    world_in(w, delay, network_deliver, m, 0);
    if (!w->quiet && world_chance(w, per_mille)) {
        w->tally->net[m->class][NET_DOUBLED]++;
        world_in(w, delay + (int64_t)world_below(w, 400), network_deliver, m, 0);
    }
}

struct message *network_message(struct world *w, struct sim_worker *k, enum message_class class)
{
    struct message *m = world_alloc(w, sizeof(*m));

    m->class = class;
    m->worker = k;
    return m;
}

void network_send_work(struct world *w, struct sim_worker *k, enum message_class class, struct sim_work *work)
{
    struct message *m = network_message(w, k, class);

    m->work = work;
    network_post(w, m);
}

/* -- arrival -- */

static void deliver_result(struct world *w, struct message *m)
{
    struct sim_work *work = m->work;
    struct core_event e = {.type = CORE_EVENT_RESULT};
    uint64_t ok[2] = {0};
    struct sim_payload *p = world_alloc(w, sizeof(*p));
    struct core_lease_ref ref = {m->peer, work->epoch, work->lease};
    struct core_lease_info info;

    if (core_lease_get(w->core, &ref, &info) < 0)
        world_fault(w, FAULT_STALE_RESULT);
    else if (info.unit != work->unit || info.node != work->node || info.n_items != work->n_items)
        world_fail(w, "lease %llu is not what was sent", (unsigned long long)work->lease);
    for (uint32_t i = 0; i < work->n_items; i++)
        ok[i / 64] |= (uint64_t)work->ok[i] << (i % 64);
    *p = (struct sim_payload){.handle = w->next_handle++, .work = *work, .tensors = true, .rows = true};
    if (core_map_put(&w->payloads, p->handle, p) < 0)
        world_fail(w, "no memory");
    e.result.lease = ref;
    e.result.payload = p->handle;
    e.result.n_rows = work->n_rows;
    e.result.ok = ok;
    e.result.keep_rows = work->job->nodes[work->node].out_bytes == 0;
    e.result.row_bytes = (uint64_t)work->n_rows * ROW_BYTES;
    shell_step(w, &e);
}

static void deliver_to_broker(struct world *w, struct message *m)
{
    struct sim_worker *k = m->worker;
    struct core_event e = {0};

    switch (m->class) {
    case MSG_HELLO:
        e.type = CORE_EVENT_HELLO;
        e.hello.peer = m->peer;
        e.hello.host = k->host;
        e.hello.nonce = k->nonce;
        e.hello.stage = k->stage;
        e.hello.fingerprint.bytes[0] = (uint8_t)(k->wrong_model ? 9 : k->model);
        e.hello.window_items = m->window;
        e.hello.window_bytes = m->window_bytes;
        e.hello.epoch = m->epoch;
        e.hello.leases = m->leases;
        e.hello.n_leases = m->n_leases;
        break;
    case MSG_CREDIT:
        e.type = CORE_EVENT_CREDIT;
        e.credit.peer = m->peer;
        e.credit.window_items = m->window;
        e.credit.window_bytes = m->window_bytes;
        break;
    case MSG_HEARTBEAT:
        e.type = CORE_EVENT_HEARTBEAT;
        e.heartbeat.peer = m->peer;
        e.heartbeat.epoch = m->epoch;
        e.heartbeat.leases = m->leases;
        e.heartbeat.n = m->n_leases;
        break;
    case MSG_FAILURE:
        e.type = CORE_EVENT_FAILURE;
        e.failure.lease = (struct core_lease_ref){m->peer, m->work->epoch, m->work->lease};
        e.failure.code = "boom";
        e.failure.refused = m->work->refused;
        e.failure.text = "it did not work";
        break;
    case MSG_RETURN:
        e.type = m->unseen ? CORE_EVENT_UNSEEN : CORE_EVENT_RETURN;
        e.lease = (struct core_lease_ref){m->peer, m->work->epoch, m->work->lease};
        break;
    case MSG_BYE:
        e.type = CORE_EVENT_GONE;
        e.gone.peer = m->peer;
        e.gone.clean = true;
        break;
    default:
        deliver_result(w, m);
        return;
    }
    shell_step(w, &e);
}

void network_deliver(struct world *w, void *message, uint64_t life)
{
    struct message *m = message;
    struct sim_worker *k = m->worker;
    bool to_worker = m->class == MSG_ANSWER || m->class == MSG_WORK;
    bool of_connection = m->class == MSG_HELLO || m->class == MSG_CREDIT || m->class == MSG_HEARTBEAT;

    (void)life;
    if (m->life == k->life) {
        w->tally->net[m->class][NET_REORDERED] += m->seq < k->delivered_seq[to_worker];
        if (m->seq > k->delivered_seq[to_worker])
            k->delivered_seq[to_worker] = m->seq;
    }
    if (to_worker) {
        worker_hears(w, m);
        return;
    }
    if (of_connection && (!k->alive || k->life != m->life || m->peer != k->peer))
        return; /* the connection was closed meanwhile */
    if (shell_is_stopped(w, network_deliver, m, 0))
        return;
    if (!w->core) {
        if (world_chance(w, 500)) /* the message waits in the socket */
            world_in(w, 500, network_deliver, m, 0);
        return;
    }
    if (m->work)
        worker_forget(w, k, m->work);
    deliver_to_broker(w, m);
}
