/* Workers that compute hashes, and the network between them and the broker.
 *
 * A tame world (not w->wild) keeps a budget: chance hits a unit once at most. A neighbour may cost it one more attempt,
 * and from then on it runs alone, so that under that budget no innocent item may end in quarantine. */
#include "tests/simulate/world.h"

#include <string.h>

enum { HEARTBEAT_MS = 300 };

static bool is_same_life(const struct sim_worker *k, uint64_t life)
{
    return k->alive && k->life == life;
}

struct sim_worker *worker_of_peer(struct world *w, uint64_t peer)
{
    for (uint32_t n = 0; n < w->n_workers; n++)
        if (w->workers[n].alive && w->workers[n].peer == peer)
            return &w->workers[n];
    return NULL;
}

bool worker_may_hit(struct world *w, struct sim_work *const *works, uint32_t n)
{
    if (w->quiet)
        return false;
    if (w->wild)
        return true;
    for (uint32_t i = 0; i < n; i++)
        if (works[i]->job->units[works[i]->unit].hits + 2 >= MAX_ATTEMPTS || w->now < w->stopped_until)
            return false;
    for (uint32_t i = 0; i < n; i++)
        works[i]->job->units[works[i]->unit].hits++;
    return true;
}

void worker_forget(struct world *w, struct sim_worker *k, const struct sim_work *work)
{
    (void)w;
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i] == work) {
            k->held[i] = k->held[--k->n_held];
            return;
        }
}

/* -- network ------------------------------------------------------------------------------------------------------- */

static void deliver(struct world *w, void *message, uint64_t life);

/* Losing or holding up this message costs its lease an attempt. */
static bool is_costly(const struct message *m)
{
    return m->work && (m->class == MSG_WORK || m->class == MSG_RESULT || m->class == MSG_RETURN);
}

static bool may_harm(struct world *w, struct message *m)
{
    if (w->quiet)
        return false;
    if (w->wild)
        return true;
    if (m->class == MSG_BYE || (m->class == MSG_HEARTBEAT && m->worker->last_heartbeat_lost))
        return false;
    return !is_costly(m) || worker_may_hit(w, &m->work, 1);
}

static void post(struct world *w, struct message *m)
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
    world_in(w, delay, deliver, m, 0);
    if (!w->quiet && world_chance(w, per_mille)) {
        w->tally->net[m->class][NET_DOUBLED]++;
        world_in(w, delay + (int64_t)world_below(w, 400), deliver, m, 0);
    }
}

static struct message *message_new(struct world *w, struct sim_worker *k, enum message_class class)
{
    struct message *m = world_alloc(w, sizeof(*m));

    m->class = class;
    m->worker = k;
    return m;
}

static void send_work_message(struct world *w, struct sim_worker *k, enum message_class class, struct sim_work *work)
{
    struct message *m = message_new(w, k, class);

    m->work = work;
    post(w, m);
}

/* -- computing ----------------------------------------------------------------------------------------------------- */

static void finish_work(struct world *w, void *what, uint64_t life);

static void compute(struct world *w, struct sim_worker *k, struct sim_work *work)
{
    const struct sim_unit *u = &work->job->units[work->unit];
    bool fails = false;

    for (uint32_t i = 0; i < work->n_items; i++) {
        uint32_t item = work->items[i];
        bool here = u->items[item].node == work->node;

        if (here && u->items[item].fate == FATE_KILLER && !w->wild && w->now < w->stopped_until) {
            struct message *m = message_new(w, k, MSG_WORK); /* the broker could not be told before it leases more */

            m->work = work;
            world_in(w, w->stopped_until - w->now, finish_work, m, k->life);
            return;
        }
        if (here && u->items[item].fate == FATE_KILLER) {
            world_fault(w, FAULT_POISON_KILLS);
            world_say(w, "poison lease=%llu epoch=%llu job=%llu unit=%u node=%u", (unsigned long long)work->lease,
                      (unsigned long long)work->epoch, (unsigned long long)work->job->id, work->unit, work->node);
            worker_crash(w, k);
            return;
        }
        fails = fails || (here && u->items[item].fate == FATE_FAILER);
        work->ok[i] = !work->gone && !(here && u->items[item].fate == FATE_ERROR);
        w->tally->faults[FAULT_ITEM_ERROR] += !work->ok[i] && !work->gone;
        work->values[i] = world_value(work->job, work->unit, item, work->node, work->inputs[i]);
    }
    work->sent = true;
    work->corrupt = k->lie == LIE_CORRUPTS || (!w->quiet && !u->has_poison && world_chance(w, 8));
    if (work->refused) {
        world_fault(w, FAULT_TENSOR_REFUSED);
        send_work_message(w, k, MSG_FAILURE, work);
    } else if (k->lie == LIE_FAILS || k->lie == LIE_RETURNS) {
        send_work_message(w, k, k->lie == LIE_FAILS ? MSG_FAILURE : MSG_RETURN, work);
    } else if (fails) {
        world_fault(w, FAULT_POISON_FAILS);
        send_work_message(w, k, MSG_FAILURE, work);
    } else if (!w->quiet && world_chance(w, 10) && worker_may_hit(w, &work, 1)) {
        world_fault(w, FAULT_WORKER_FAILURE);
        send_work_message(w, k, MSG_FAILURE, work);
    } else {
        if (!w->quiet && world_chance(w, 5) && worker_may_hit(w, &work, 1)) {
            world_fault(w, FAULT_WORKER_BAD_ROWS);
            work->n_rows += world_chance(w, 500) ? 1 : -1u;
        }
        send_work_message(w, k, MSG_RESULT, work);
    }
}

static void finish_work(struct world *w, void *what, uint64_t life)
{
    struct message *m = what;
    struct sim_worker *k = m->worker;

    if (!is_same_life(k, life) || m->work->sent)
        return; /* another process, or handed back */
    if (k->hung || k->stuck || !k->welcome) {
        world_in(w, 50, finish_work, m, life);
        return;
    }
    /* Nobody can call back what a closed job left with a worker; a tame world does not let it do harm. */
    if (!w->wild && (m->work->opening != m->work->job->opening || m->work->job->closing) &&
        m->work->job->units[m->work->unit].has_poison)
        worker_forget(w, k, m->work);
    else
        compute(w, k, m->work);
}

/* The broker is another one: what is held is void. */
static void new_epoch(struct world *w, struct sim_worker *k, uint64_t epoch)
{
    (void)w;
    k->welcome = true;
    k->epoch = epoch;
    for (uint32_t i = k->n_held; i-- > 0;)
        if (k->held[i]->epoch != epoch)
            k->held[i] = k->held[--k->n_held];
}

static void take_work(struct world *w, struct sim_worker *k, struct message *m)
{
    int64_t cost = 5 + (int64_t)world_below(w, 60);

    if (m->work->arrived && !m->work->sent)
        return; /* a repeated message */
    if (m->work->epoch < k->epoch)
        return;
    new_epoch(w, k, m->work->epoch); /* work that overtook the welcome */
    m->work->arrived = true;
    m->work->sent = false;
    m->work->n_rows = m->work->n_items;
    k->busy_until = (k->busy_until > w->now ? k->busy_until : w->now) + (k->slow ? 20 * cost : cost);
    world_in(w, k->busy_until - w->now, finish_work, m, k->life);
}

/* -- arrival ------------------------------------------------------------------------------------------------------- */

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
        e.hello.fingerprint[0] = (uint8_t)(k->wrong_model ? 9 : k->model);
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
        e.type = CORE_EVENT_RETURN;
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

/* What is held at this moment, if anything is, and unsent. */
static struct message *hello_new(struct world *w, struct sim_worker *k)
{
    struct message *m = message_new(w, k, MSG_HELLO);

    m->epoch = k->epoch;
    m->window = k->window;
    m->window_bytes = k->window_bytes;
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i]->arrived && !k->held[i]->sent && m->n_leases < MAX_HELD - 1)
            m->leases[m->n_leases++] = k->held[i]->lease;
    if (w->ledger.leases && world_chance(w, 100)) /* perhaps not its own */
        m->leases[m->n_leases++] = w->ledger.leases->id;
    return m;
}

static void hello_again(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (!is_same_life(k, life) || k->welcome || k->draining)
        return;
    if (!k->hung)
        post(w, hello_new(w, k));
    world_in(w, 300, hello_again, k, life);
}

static void deliver_to_worker(struct world *w, struct message *m)
{
    struct sim_worker *k = m->worker;

    if (!is_same_life(k, m->life) || m->peer != k->peer)
        return;
    if (k->hung) {
        world_in(w, 50, deliver, m, 0);
    } else if (m->class == MSG_WORK) {
        take_work(w, k, m);
    } else if (m->again || m->refused) {
        if (m->again && k->welcome) {
            k->welcome = false;
            hello_again(w, k, k->life);
        }
    } else {
        new_epoch(w, k, m->epoch > k->epoch ? m->epoch : k->epoch);
    }
}

static void deliver(struct world *w, void *message, uint64_t life)
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
        deliver_to_worker(w, m);
        return;
    }
    if (of_connection && (!is_same_life(k, m->life) || m->peer != k->peer))
        return; /* closed meanwhile */
    if (shell_is_stopped(w, deliver, m, 0))
        return;
    if (!w->core) {
        if (world_chance(w, 500)) /* waits in the socket */
            world_in(w, 500, deliver, m, 0);
        return;
    }
    if (m->work)
        worker_forget(w, k, m->work);
    deliver_to_broker(w, m);
}

/* -- what the broker's side calls ---------------------------------------------------------------------------------- */

void worker_send_work(struct world *w, struct sim_worker *k, struct sim_work *work)
{
    if (k->n_held == MAX_HELD)
        world_fail(w, "worker %u is given more than %d leases", k->index, MAX_HELD);
    k->held[k->n_held++] = work;
    if ((k->hung || k->stuck) && !worker_may_hit(w, &work, 1))
        k->hung = k->stuck = false;
    send_work_message(w, k, MSG_WORK, work);
}

void worker_send_answer(struct world *w, struct sim_worker *k, bool refused, bool again)
{
    struct message *m = message_new(w, k, MSG_ANSWER);

    m->epoch = w->epoch;
    m->refused = refused;
    m->again = again;
    post(w, m);
}

/* -- life ---------------------------------------------------------------------------------------------------------- */

static void choose_window(struct world *w, struct sim_worker *k)
{
    static const uint32_t items[] = {1, 8, 64, 128}, bytes[] = {300, 5000, 100000};

    k->window = items[world_below(w, 4)];
    k->window_bytes = bytes[world_below(w, 3)];
}

static void heartbeat(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;
    struct message *m;

    if (!is_same_life(k, life))
        return;
    world_in(w, HEARTBEAT_MS, heartbeat, k, life);
    if (k->hung || !k->welcome)
        return;
    m = message_new(w, k, MSG_HEARTBEAT);
    m->epoch = k->epoch;
    for (uint32_t i = 0; i < k->n_held && !k->stuck; i++)
        if (k->held[i]->arrived && !k->held[i]->sent)
            m->leases[m->n_leases++] = k->held[i]->lease;
    post(w, m);
    if (world_chance(w, 100))
        choose_window(w, k);
    m = message_new(w, k, MSG_CREDIT);
    m->window = k->draining ? 0 : k->window;
    m->window_bytes = k->window_bytes;
    post(w, m);
}

static void become_right(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (is_same_life(k, life) && !k->draining)
        worker_drain(w, k); /* jobs that take any model may have given it work */
}

void worker_start(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (k->alive || k->life != life)
        return;
    k->alive = true;
    k->life++;
    k->peer = w->next_peer++;
    k->nonce = w->next_nonce++;
    k->welcome = k->hung = k->stuck = k->draining = k->last_heartbeat_lost = false;
    k->epoch = 0;
    k->slow = !w->quiet && world_chance(w, 100);
    w->tally->faults[FAULT_WORKER_SLOW] += k->slow;
    k->wrong_model = !w->quiet && world_chance(w, 50);
    w->tally->faults[FAULT_WORKER_WRONG_MODEL] += k->wrong_model;
    k->lie = w->wild && !w->quiet && world_chance(w, 100) ? LIE_FAILS + (enum lie)world_below(w, 3) : LIE_NONE;
    w->tally->faults[FAULT_WORKER_LIAR] += k->lie != LIE_NONE;
    choose_window(w, k);
    k->n_held = 0;
    k->busy_until = 0;
    memset(k->sent_seq, 0, sizeof(k->sent_seq));
    memset(k->delivered_seq, 0, sizeof(k->delivered_seq));
    hello_again(w, k, k->life);
    world_in(w, (int64_t)world_below(w, HEARTBEAT_MS), heartbeat, k, k->life);
    if (k->wrong_model)
        world_in(w, 2000, become_right, k, k->life);
}

/* A connection has ended; `how` 2: and so has its process. */
static void notice_gone(struct world *w, void *peer, uint64_t how)
{
    struct core_event e = {.type = CORE_EVENT_GONE};

    if (shell_is_stopped(w, notice_gone, peer, how))
        return;
    e.gone.peer = *(uint64_t *)peer;
    e.gone.ended = how == 2;
    shell_step(w, &e);
}

static void end_process(struct world *w, struct sim_worker *k)
{
    k->alive = false;
    k->n_held = 0;
    world_in(w, 100 + (int64_t)world_below(w, 1500), worker_start, k, k->life);
}

void worker_crash(struct world *w, struct sim_worker *k)
{
    uint64_t *peer = world_alloc(w, sizeof(*peer));

    world_say(w, "worker %u dies, peer=%llu", k->index, (unsigned long long)k->peer);
    *peer = k->peer;
    end_process(w, k);
    if (!w->wild)
        notice_gone(w, peer, 2);
    else if (world_chance(w, 700))
        world_in(w, (int64_t)world_below(w, 500), notice_gone, peer, 1 + world_below(w, 2));
}

static void resume(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    (void)w;
    if (is_same_life(k, life))
        k->hung = k->stuck = false;
}

void worker_hang(struct world *w, struct sim_worker *k, int64_t ms, bool only_stuck)
{
    k->hung = !only_stuck;
    k->stuck = only_stuck;
    world_in(w, ms, resume, k, k->life);
}

static void say_bye(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (!is_same_life(k, life))
        return;
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i]->arrived && !k->held[i]->sent) {
            struct message *m = message_new(w, k, MSG_RETURN);

            m->work = k->held[i];
            m->life = k->life;
            m->peer = k->peer;
            world_in(w, 1 + (int64_t)world_below(w, 10), deliver, m, 0);
        }
    post(w, message_new(w, k, MSG_BYE));
    end_process(w, k);
}

void worker_drain(struct world *w, struct sim_worker *k)
{
    struct message *m = message_new(w, k, MSG_CREDIT);

    k->draining = true;
    m->window = 0;
    post(w, m);
    world_in(w, (int64_t)world_below(w, 400), say_bye, k, k->life);
}

void worker_return_one(struct world *w, struct sim_worker *k)
{
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i]->arrived && !k->held[i]->sent) {
            world_fault(w, FAULT_WORKER_RETURN);
            k->held[i]->sent = true;
            send_work_message(w, k, MSG_RETURN, k->held[i]);
            return;
        }
}

/* The same process under a new connection. It goes on with what has reached it, and says so; what was on its way to the
 * old one is lost, what it sent there may arrive. */
void worker_reconnect(struct world *w, struct sim_worker *k, bool missed_at_once)
{
    uint64_t *old = world_alloc(w, sizeof(*old));
    struct message *m;

    *old = k->peer;
    if (missed_at_once || world_chance(w, 700)) {
        world_fault(w, FAULT_WORKER_LOST);
        world_in(w, missed_at_once ? 0 : (int64_t)world_below(w, 300), notice_gone, old, 1);
    }
    k->peer = w->next_peer++;
    k->welcome = false;
    for (uint32_t i = k->n_held; i-- > 0;)
        if (!k->held[i]->arrived || k->held[i]->sent)
            k->held[i] = k->held[--k->n_held];
    if (w->wild) {
        hello_again(w, k, k->life);
        return;
    }
    m = hello_new(w, k); /* in time */
    m->life = k->life;
    m->peer = k->peer;
    world_in(w, 1, deliver, m, 0);
    world_in(w, 300, hello_again, k, k->life);
}
