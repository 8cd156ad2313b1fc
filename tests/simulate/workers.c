/* Workers that compute hashes.
 *
 * A tame world (not w->wild) keeps a budget: random faults hit a unit once at most. A neighbour may cost it one more
 * attempt, and from then on it runs exclusively. Under this budget no innocent item may end in quarantine. */
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
    if (w->now < w->stopped_until)
        return false; /* the broker would not hear of it before it grants more leases */
    for (uint32_t i = 0; i < n; i++)
        if (works[i]->job->units[works[i]->unit].hits + 2 >= MAX_ATTEMPTS)
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

/* -- computing -- */

static void finish_work(struct world *w, void *what, uint64_t life);

static void send_back(struct world *w, struct sim_worker *k, struct sim_work *work, bool unseen)
{
    struct message *m = network_message(w, k, MSG_RETURN);

    m->work = work;
    m->unseen = unseen;
    network_post(w, m);
}

static void compute(struct world *w, struct sim_worker *k, struct sim_work *work)
{
    const struct sim_unit *u = &work->job->units[work->unit];
    bool fails = false;

    if (w->blind[k->host] >> work->job->index & 1 && work->job->nodes[work->node].needs == 0) {
        world_fault(w, FAULT_WORKER_UNSEEN);
        work->sent = true;
        send_back(w, k, work, true);
        return;
    }
    for (uint32_t i = 0; i < work->n_items; i++) {
        uint32_t item = work->items[i];
        bool here = u->items[item].node == work->node;

        if (here && u->items[item].fate == FATE_KILLER && !w->wild && w->now < w->stopped_until) {
            struct message *m = network_message(w, k, MSG_WORK); /* for the same reason */

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
        network_send_work(w, k, MSG_FAILURE, work);
    } else if (k->lie == LIE_FAILS) {
        network_send_work(w, k, MSG_FAILURE, work);
    } else if (k->lie == LIE_RETURNS) {
        send_back(w, k, work, world_chance(w, 500));
    } else if (fails) {
        world_fault(w, FAULT_POISON_FAILS);
        network_send_work(w, k, MSG_FAILURE, work);
    } else if (!w->quiet && world_chance(w, 10) && worker_may_hit(w, &work, 1)) {
        world_fault(w, FAULT_WORKER_FAILURE);
        network_send_work(w, k, MSG_FAILURE, work);
    } else {
        if (!w->quiet && world_chance(w, 5) && worker_may_hit(w, &work, 1)) {
            world_fault(w, FAULT_WORKER_BAD_ROWS);
            work->n_rows += world_chance(w, 500) ? 1 : -1u;
        }
        network_send_work(w, k, MSG_RESULT, work);
    }
}

/* Has the lease ended without the worker knowing? Its job was closed, tensors were lost, or the broker restarted. */
static bool is_void(struct world *w, const struct sim_worker *k, const struct sim_work *work)
{
    const struct core_lease_ref ref = {k->peer, work->epoch, work->lease};
    struct core_lease_info info;

    return !w->core || core_lease_get(w->core, &ref, &info) < 0;
}

static void finish_work(struct world *w, void *what, uint64_t life)
{
    struct message *m = what;
    struct sim_worker *k = m->worker;

    if (!is_same_life(k, life) || m->work->sent)
        return; /* another process, or returned */
    if (k->hung || k->stuck || k->lie == LIE_KEEPS || !k->welcome) {
        world_in(w, 50, finish_work, m, life);
        return;
    }
    /* Work of a void lease cannot be called back. In a tame world it may not kill a worker that holds other leases. */
    if (!w->wild && m->work->job->units[m->work->unit].has_poison && is_void(w, k, m->work))
        worker_forget(w, k, m->work);
    else
        compute(w, k, m->work);
}

/* The broker has restarted: old leases are void. */
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
        return; /* a doubled message */
    if (m->work->epoch < k->epoch)
        return;
    new_epoch(w, k, m->work->epoch); /* the work overtook WELCOME */
    m->work->arrived = true;
    m->work->sent = false;
    m->work->n_rows = m->work->n_items;
    k->busy_until = (k->busy_until > w->now ? k->busy_until : w->now) + (k->slow ? 20 * cost : cost);
    world_in(w, k->busy_until - w->now, finish_work, m, k->life);
}

/* -- arrival -- */

/* HELLO names what the worker holds and has not answered yet. */
static struct message *hello_new(struct world *w, struct sim_worker *k)
{
    struct message *m = network_message(w, k, MSG_HELLO);

    m->epoch = k->epoch;
    m->window = k->draining ? 0 : k->window;
    m->window_bytes = k->window_bytes;
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i]->arrived && !k->held[i]->sent && m->n_leases < MAX_HELD - 1)
            m->leases[m->n_leases++] = k->held[i]->lease;
    if (w->wild && w->epoch > 1 && world_chance(w, 30))
        m->epoch = w->epoch - 1; /* leases of an earlier broker */
    if (w->ledger.leases && w->ledger.leases->worker->nonce != k->nonce && world_chance(w, 100))
        m->leases[m->n_leases++] = w->ledger.leases->id; /* of another worker */
    return m;
}

static void hello_again(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (!is_same_life(k, life) || k->welcome || (k->draining && w->wild))
        return;
    if (!k->hung)
        network_post(w, hello_new(w, k));
    world_in(w, 300, hello_again, k, life);
}

void worker_hears(struct world *w, struct message *m)
{
    struct sim_worker *k = m->worker;

    if (!is_same_life(k, m->life) || m->peer != k->peer)
        return;
    if (k->hung) {
        world_in(w, 50, network_deliver, m, 0);
    } else if (m->class == MSG_WORK) {
        take_work(w, k, m);
    } else if (m->again || m->refused) {
        if (k->welcome) { /* if it was cut off, it tries again until it is ended */
            k->welcome = false;
            hello_again(w, k, k->life);
        }
    } else {
        new_epoch(w, k, m->epoch > k->epoch ? m->epoch : k->epoch);
    }
}

/* -- what the broker's side calls -- */

void worker_send_work(struct world *w, struct sim_worker *k, struct sim_work *work)
{
    if (k->n_held == MAX_HELD)
        world_fail(w, "worker %u is given more than %d leases", k->index, MAX_HELD);
    k->held[k->n_held++] = work;
    if ((k->hung || k->stuck) && !worker_may_hit(w, &work, 1))
        k->hung = k->stuck = false;
    network_send_work(w, k, MSG_WORK, work);
}

void worker_send_answer(struct world *w, struct sim_worker *k, bool refused, bool again)
{
    struct message *m = network_message(w, k, MSG_ANSWER);

    m->epoch = w->epoch;
    m->refused = refused;
    m->again = again;
    network_post(w, m);
}

/* -- life -- */

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
    m = network_message(w, k, MSG_HEARTBEAT);
    m->epoch = k->epoch;
    for (uint32_t i = 0; i < k->n_held && !k->stuck; i++)
        if (k->held[i]->arrived && !k->held[i]->sent)
            m->leases[m->n_leases++] = k->held[i]->lease;
    network_post(w, m);
    if (world_chance(w, 100))
        choose_window(w, k);
    m = network_message(w, k, MSG_CREDIT);
    m->window = k->draining ? 0 : k->window;
    m->window_bytes = k->window_bytes;
    network_post(w, m);
}

static void become_right(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (is_same_life(k, life) && !k->draining)
        worker_drain(w, k); /* drained, since jobs that take any model may have given it work */
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
    k->lie = w->wild && !w->quiet && world_chance(w, 100) ? LIE_FAILS + (enum lie)world_below(w, 4) : LIE_NONE;
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

/* A connection has ended; `how` 2: its process, too. */
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
    if (!w->wild && !k->welcome) { /* otherwise the broker may still give work to its old connection */
        world_in(w, 50, say_bye, k, life);
        return;
    }
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i]->arrived && !k->held[i]->sent) {
            struct message *m = network_message(w, k, MSG_RETURN);

            m->work = k->held[i];
            m->life = k->life;
            m->peer = k->peer;
            world_in(w, 1 + (int64_t)world_below(w, 10), network_deliver, m, 0);
        }
    network_post(w, network_message(w, k, MSG_BYE));
    end_process(w, k);
}

void worker_drain(struct world *w, struct sim_worker *k)
{
    struct message *m = network_message(w, k, MSG_CREDIT);

    k->draining = true;
    m->window = 0;
    network_post(w, m);
    world_in(w, (int64_t)world_below(w, 400), say_bye, k, k->life);
}

void worker_return_one(struct world *w, struct sim_worker *k)
{
    for (uint32_t i = 0; i < k->n_held; i++)
        if (k->held[i]->arrived && !k->held[i]->sent) {
            world_fault(w, FAULT_WORKER_RETURN);
            k->held[i]->sent = true;
            send_back(w, k, k->held[i], world_chance(w, 200));
            return;
        }
}

/* The process gets a new connection. It keeps the work that has reached it and names it in HELLO. Messages to the old
 * connection are lost; those that it sent there may still arrive. */
void worker_reconnect(struct world *w, struct sim_worker *k, bool missed_at_once)
{
    uint64_t *old = world_alloc(w, sizeof(*old));
    struct message *m;

    if (!w->wild && k->epoch == 0)
        return; /* without WELCOME it cannot say that a lease on its way to it is lost */
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
    m = hello_new(w, k); /* HELLO arrives at once */
    m->life = k->life;
    m->peer = k->peer;
    world_in(w, 1, network_deliver, m, 0);
    world_in(w, 300, hello_again, k, k->life);
}
