/* Workers: how they join, reconnect and leave. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <assert.h>
#include <stdlib.h>

/* -- going -- */

void core_worker_remove(struct core *c, struct core_worker *w, bool clean, const char *text)
{
    struct core_pool *p = w->pool;

    w->silent = true; /* no new work while its leases end */
    core_worker_update(w, c);
    while (w->leases) {
        struct core_lease *l = w->leases; /* NOLINT(clang-analyzer-unix.Malloc): core_lease_end takes it off */

        assert(l->worker == w);
        if (clean && !core_planted(c, CORE_BUG_DRAIN_BLAMED))
            core_lease_give_back(c, l);
        else
            core_lease_lost(c, l, text);
    }
    core_heap_remove(&c->worker_deadlines, &w->deadline_place);
    core_heap_remove(&c->rests, &w->rest_place);
    core_heap_remove(&c->unseen_ends, &w->unseen_place);
    c->n_benched[p->stage] -= w->benched;
    core_map_take(&c->workers_by_peer, w->peer);
    if (w->name_key)
        core_map_take(&c->workers_by_name, w->name_key);
    if (w->lost)
        c->n_lost--;
    else
        c->n_workers[p->stage]--;
    core_worker_leave(c, w);
    free(w);
}

void core_worker_forget(struct core *c, struct core_worker *w)
{
    core_emit_id(c, CORE_DO_FORGET_PEER, w->peer);
    core_worker_remove(c, w, true, NULL);
}

/* The connection is lost, and the process may still live. It may reconnect until its leases expire; until then they are
 * no failures. */
static void lose_worker(struct core *c, struct core_worker *w)
{
    if (w->lost)
        return;
    if (core_planted(c, CORE_BUG_CONNECTION_BLAMED)) {
        core_worker_remove(c, w, false, "its connection was lost");
        return;
    }
    if (!w->leases || c->shutdown) {
        core_worker_forget(c, w);
        return;
    }
    w->lost = w->silent = true;
    c->n_lost++;
    c->n_workers[w->pool->stage]--;
    core_worker_update(w, c);
}

int core_on_gone(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_map_get(&c->workers_by_peer, e->gone.peer);

    if (w && (e->gone.clean || e->gone.ended))
        core_worker_remove(c, w, e->gone.clean, "its worker was lost");
    else if (w)
        lose_worker(c, w);
    return 0;
}

/* Leases of lost workers are void from now on. */
int core_on_shutdown(struct core *c, const struct core_event *e)
{
    (void)e;
    c->shutdown = true;
    for (size_t i = 0; c->n_lost > 0; i = (i + 1) % c->workers_by_peer.capacity) {
        struct core_worker *w = c->workers_by_peer.slots[i].value;

        if (w && w->lost && core_planted(c, CORE_BUG_SHUTDOWN_BLAMES_LOST))
            core_worker_remove(c, w, false, "its worker was lost");
        else if (w && w->lost)
            core_worker_forget(c, w);
    }
    return 0;
}

/* -- coming -- */

/* The worker has reconnected and named the leases that it holds: those go on. The others never reached it, or their
 * results were lost on the way. */
static void confirm_leases(struct core *c, struct core_worker *w, const uint64_t *leases, uint32_t n)
{
    struct core_lease *l;

    for (uint32_t i = 0; i < n; i++) {
        l = core_map_get(&c->leases, leases[i]);
        if (!l || l->worker != w)
            continue;
        l->confirmed = true;
        core_lease_extend(c, l);
    }
    for (l = w->leases; l;) {
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): core_lease_end takes what it frees off the list */
        if (l->confirmed || core_planted(c, CORE_BUG_LOST_LEASES_STAY)) {
            l = l->next;
            continue;
        }
        core_lease_give_back(c, l);
        l = w->leases; /* this may have ended others, too */
    }
    for (l = w->leases; l; l = l->next)
        l->confirmed = false;
}

/* The process was known as another peer, or was lost. It goes on with the leases that it names. */
static void take_connection(struct core *c, struct core_worker *w, const struct core_event *e)
{
    if (w->peer != e->hello.peer) {
        if (!core_planted(c, CORE_BUG_OLD_PEER_STAYS))
            core_emit_id(c, CORE_DO_FORGET_PEER, w->peer);
        core_map_take(&c->workers_by_peer, w->peer);
        w->peer = e->hello.peer;
        if (core_map_put(&c->workers_by_peer, w->peer, w) < 0)
            core_break(c);
    }
    if (w->lost) {
        w->lost = false;
        c->n_lost--;
        c->n_workers[w->pool->stage]++;
    }
    if (e->hello.epoch != 0)
        confirm_leases(c, w, e->hello.leases, e->hello.epoch == c->epoch ? e->hello.n_leases : 0);
}

static void heard(struct core *c, struct core_worker *w)
{
    if (w->silent && !w->lost) {
        w->silent = false;
        core_worker_update(w, c);
    }
    if (core_planted(c, CORE_BUG_IDLE_TIMES_OUT) && !core_pool_is_wanted(c, w->pool) && w->deadline_place)
        return;
    w->heard_ms = c->now_ms;
    if (core_heap_set(&c->worker_deadlines, &w->deadline_place, c->now_ms + c->limits.lease_ms, w) < 0)
        core_break(c);
}

/* Identifies the process, whatever its connection. */
static uint64_t name_of(const struct core_event *e)
{
    return core_mix64(core_mix64(e->hello.host) ^ e->hello.nonce) | 1;
}

static struct core_worker *add_worker(struct core *c, const struct core_event *e, struct core_pool *pool)
{
    struct core_worker *w = calloc(1, sizeof(*w));

    if (!w || core_map_put(&c->workers_by_peer, e->hello.peer, w) < 0) {
        free(w);
        core_break(c);
        return NULL;
    }
    w->peer = e->hello.peer;
    w->host = e->hello.host;
    w->nonce = e->hello.nonce;
    w->turned_ms = c->now_ms;
    w->name_key = name_of(e);
    if (core_map_put(&c->workers_by_name, w->name_key, w) < 0)
        core_break(c);
    if (!core_worker_join(c, w, pool)) {
        core_map_take(&c->workers_by_peer, w->peer);
        core_map_take(&c->workers_by_name, w->name_key);
        free(w);
        return NULL;
    }
    c->n_workers[pool->stage]++;
    return w;
}

static bool is_of(const struct core_worker *w, const struct core_event *e)
{
    return w->pool->stage == e->hello.stage && fingerprint_equal(&w->pool->fingerprint, &e->hello.fingerprint);
}

/* The worker that this HELLO is from, if it is known already: by this peer, or by the process under another connection.
 * NULL: it is new. */
static struct core_worker *known_worker(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_map_get(&c->workers_by_peer, e->hello.peer);
    struct core_worker *same = core_map_get(&c->workers_by_name, name_of(e));

    if (w && w == same && is_of(w, e)) {
        if (w->lost)
            take_connection(c, w, e);
        return w;
    }
    if (w)
        core_worker_remove(c, w, false, "its worker restarted");
    if (!same || same == w)
        return NULL;
    if (is_of(same, e)) {
        take_connection(c, same, e);
        return same;
    }
    core_emit_id(c, CORE_DO_FORGET_PEER, same->peer);
    core_worker_remove(c, same, false, "its worker now runs another model");
    return NULL;
}

/* The pool that a new worker joins; NULL: it is refused. */
static struct core_pool *admit(struct core *c, const struct core_event *e)
{
    struct core_pool *pool = NULL;

    if (e->hello.stage == 0 || e->hello.stage >= N_STAGES) {
        core_refuse(c, e->hello.peer, CORE_REFUSE_BAD_MESSAGE, "unknown stage");
        return NULL;
    }
    if (core_is_cut_off(c, name_of(e))) {
        core_refuse(c, e->hello.peer, CORE_REFUSE_STALLED, "the worker held a unit for too long; restart it");
        return NULL;
    }
    if (c->shutdown) {
        core_refuse(c, e->hello.peer, CORE_REFUSE_DRAINING, "the broker is shutting down");
        return NULL;
    }
    if (c->workers_by_peer.n < c->limits.max_workers || core_planted(c, CORE_BUG_WORKERS_WITHOUT_LIMIT))
        pool = core_pool_get(c, e->hello.stage, &e->hello.fingerprint, (uint64_t[CORE_MAX_UNSEEN]){0});
    if (!pool)
        core_refuse(c, e->hello.peer, CORE_REFUSE_LIMIT, "too many workers, or too many different models");
    return pool;
}

static void set_window(struct core_worker *w, struct core *c, uint32_t items, uint64_t bytes)
{
    w->window_items = items < c->limits.max_worker_items || core_planted(c, CORE_BUG_WINDOW_NOT_CUT)
                          ? items
                          : c->limits.max_worker_items;
    w->window_bytes = bytes;
}

/* A worker whose model no open job wants is accepted, too: it waits for a job that does. */
int core_on_hello(struct core *c, const struct core_event *e)
{
    struct core_worker *w;

    assert(e->hello.peer != 0);
    w = known_worker(c, e);
    if (!w) {
        struct core_pool *pool = admit(c, e);

        w = pool ? add_worker(c, e, pool) : NULL;
        if (!w)
            return 0;
    }
    if (core_planted(c, CORE_BUG_IDLE_REFUSED) && !core_pool_is_wanted(c, w->pool)) {
        core_worker_remove(c, w, true, NULL);
        core_refuse(c, e->hello.peer, CORE_REFUSE_LIMIT, "no job wants it");
        return 0;
    }
    set_window(w, c, e->hello.window_items, e->hello.window_bytes);
    core_worker_update(w, c);
    heard(c, w);
    core_emit_id(c, CORE_DO_WELCOME, e->hello.peer);
    return 0;
}

/* -- there -- */

struct core_worker *core_peer_heard(struct core *c, uint64_t peer)
{
    struct core_worker *w = core_map_get(&c->workers_by_peer, peer);

    if (w) {
        heard(c, w);
        return w;
    }
    c->counters.dropped_unknown++;
    core_emit_id(c, CORE_DO_HELLO_AGAIN, peer);
    return NULL;
}

int core_on_credit(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_peer_heard(c, e->credit.peer);

    if (!w || core_planted(c, CORE_BUG_CREDIT_IGNORED))
        return 0;
    set_window(w, c, e->credit.window_items, e->credit.window_bytes);
    core_worker_update(w, c);
    return 0;
}
