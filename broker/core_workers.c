/* Workers and the pools of those that compute the same. */
#include "broker/core_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- room ---------------------------------------------------------------------------------------------------------- */

static bool has_room(const struct core_worker *w, const struct core *c)
{
    if ((w->silent && !core_planted(c, CORE_BUG_SILENT_GETS_WORK)) ||
        (w->rest_place && !core_planted(c, CORE_BUG_REST_SKIPPED)) || w->holds_exclusive ||
        (w->window_items == 0 && !core_planted(c, CORE_BUG_DRAINING_GETS_WORK)))
        return false;
    if (w->n_leases >= c->limits.max_worker_leases && !core_planted(c, CORE_BUG_LEASES_WITHOUT_LIMIT))
        return false;
    if (w->n_leases == 0)
        return true;
    return w->pool->draining != w && (w->n_late == 0 || core_planted(c, CORE_BUG_TRIAL_IN_COMPANY)) &&
           !core_worker_is_careful(w) && w->held_items < w->window_items;
}

void core_worker_update(struct core_worker *w, struct core *c)
{
    int64_t key;

    core_worker_set_good(w);
    if (w->pool->draining == w && (w->silent || w->rest_place || w->window_items == 0))
        w->pool->draining = NULL; /* nobody waits for one that may never be free */
    if (!has_room(w, c)) {
        core_heap_remove(&w->pool->room, &w->pool_place);
        core_heap_remove(&w->group->room, &w->group_place);
        return;
    }
    /* The empty ones first, they take a task of any size; then by free items; those on trial last. */
    key = (int64_t)w->window_items - w->held_items + (w->n_leases == 0 ? (int64_t)1 << 32 : 0);
    if (w->n_late > 0 || core_worker_is_careful(w))
        key = 0;
    if (core_heap_set(&w->pool->room, &w->pool_place, -key, w) < 0 ||
        core_heap_set(&w->group->room, &w->group_place, -key, w) < 0)
        core_break(c);
}

bool core_worker_fits(const struct core_worker *w, const struct core *c, uint32_t n_items, uint64_t n_bytes)
{
    if (!has_room(w, c))
        return false;
    if (w->n_leases == 0)
        return true;
    if (n_items > w->window_items - w->held_items && !core_planted(c, CORE_BUG_WINDOW_ITEMS_IGNORED))
        return false;
    return core_planted(c, CORE_BUG_WINDOW_BYTES_IGNORED) ||
           (w->held_bytes <= w->window_bytes && n_bytes <= w->window_bytes - w->held_bytes);
}

static void set_window(struct core_worker *w, struct core *c, uint32_t items, uint64_t bytes)
{
    w->window_items = items < c->limits.max_worker_items || core_planted(c, CORE_BUG_WINDOW_NOT_CUT)
                          ? items
                          : c->limits.max_worker_items;
    w->window_bytes = bytes;
}

/* -- pools --------------------------------------------------------------------------------------------------------- */

static struct core_pool *pool_get(struct core *c, uint32_t stage, const struct fingerprint *fingerprint)
{
    struct core_pool *p;

    for (uint32_t i = 0; i < c->n_pools; i++)
        if (c->pools[i]->stage == stage && fingerprint_equal(&c->pools[i]->fingerprint, fingerprint))
            return c->pools[i];
    if (c->n_pools == c->limits.max_pools && (!core_planted(c, CORE_BUG_KINDS_WITHOUT_LIMIT) || c->n_pools == 64))
        return NULL;
    p = calloc(1, sizeof(*p));
    if (!p) {
        core_break(c);
        return NULL;
    }
    p->stage = stage;
    p->serial = ++c->next_pool_serial;
    p->fingerprint = *fingerprint;
    return c->pools[c->n_pools++] = p;
}

static void pool_put(struct core *c, struct core_pool *p)
{
    if (p->n_workers > 0)
        return;
    for (uint32_t i = 0; i < c->n_pools; i++)
        if (c->pools[i] == p)
            c->pools[i] = c->pools[--c->n_pools];
    core_heap_release(&p->room);
    free(p);
}

uint64_t core_group_key(const struct core_pool *p, uint64_t host)
{
    uint64_t key = core_mix64(host ^ core_mix64(p->serial));

    return key ? key : 1;
}

static struct core_group *group_get(struct core *c, uint64_t key)
{
    struct core_group *g = core_map_get(&c->groups, key);

    if (g)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g || core_map_put(&c->groups, key, g) < 0) {
        free(g);
        core_break(c);
        return NULL;
    }
    return g;
}

static void group_put(struct core *c, struct core_group *g, uint64_t key)
{
    if (g->n_workers > 0)
        return;
    core_map_take(&c->groups, key);
    core_heap_release(&g->room);
    free(g);
}

/* Does any open job have a node that workers of this pool may run? */
static bool is_wanted(const struct core *c, const struct core_pool *p)
{
    for (uint32_t i = 0; i < c->n_jobs; i++)
        for (uint32_t k = 0; k < c->jobs[i]->n_nodes && !c->jobs[i]->closing && !c->jobs[i]->failed; k++)
            if (core_pool_matches(c, p, &c->jobs[i]->nodes[k]))
                return true;
    return false;
}

bool core_worker_is_wanted(const struct core *c, uint64_t peer)
{
    const struct core_worker *w = core_map_get(&c->workers_by_peer, peer);

    return w && is_wanted(c, w->pool);
}

/* -- coming and going ---------------------------------------------------------------------------------------------- */

void core_worker_remove(struct core *c, struct core_worker *w, bool clean, const char *text)
{
    struct core_pool *p = w->pool;

    w->silent = true; /* nothing new while its leases end */
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
    c->n_benched[p->stage] -= w->benched;
    core_map_take(&c->workers_by_peer, w->peer);
    if (w->name_key)
        core_map_take(&c->workers_by_name, w->name_key);
    if (p->draining == w)
        p->draining = NULL;
    w->group->n_workers--;
    group_put(c, w->group, w->group_key);
    if (w->lost)
        c->n_lost--;
    else
        c->n_workers[p->stage]--;
    p->n_workers--;
    pool_put(c, p);
    free(w);
}

void core_worker_forget(struct core *c, struct core_worker *w)
{
    core_emit_id(c, CORE_DO_FORGET_PEER, w->peer);
    core_worker_remove(c, w, true, NULL);
}

/* Its connection is lost; whether its process lives, nobody knows. It may come back under another one until its leases
 * end, and they are no failures until then. */
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

/* The process that was known as another peer, or was lost. What it says it holds, it goes on with. */
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
        core_leases_confirm(c, w, e->hello.leases, e->hello.epoch == c->epoch ? e->hello.n_leases : 0);
}

/* What lost workers hold is void then. */
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

static void heard(struct core *c, struct core_worker *w)
{
    if (w->silent && !w->lost) {
        w->silent = false;
        core_worker_update(w, c);
    }
    if (core_planted(c, CORE_BUG_IDLE_TIMES_OUT) && !is_wanted(c, w->pool) && w->deadline_place)
        return;
    w->heard_ms = c->now_ms;
    if (core_heap_set(&c->worker_deadlines, &w->deadline_place, c->now_ms + c->limits.lease_ms, w) < 0)
        core_break(c);
}

void core_refuse(struct core *c, uint64_t peer, enum core_refuse_reason reason, const char *text)
{
    struct core_action *a;
    size_t n = strlen(text) + 1;
    char *copy = core_emit_alloc(c, n);

    if (!copy)
        return;
    memcpy(copy, text, n);
    a = core_emit(c, CORE_DO_REFUSE);
    a->refuse.peer = peer;
    a->refuse.reason = reason;
    a->refuse.text = copy;
}

/* Of the process, under whatever connection. */
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
    w->pool = pool;
    w->name_key = name_of(e);
    if (core_map_put(&c->workers_by_name, w->name_key, w) < 0)
        core_break(c);
    w->group_key = core_group_key(pool, w->host);
    w->group = group_get(c, w->group_key);
    if (!w->group) {
        core_map_take(&c->workers_by_peer, w->peer);
        core_map_take(&c->workers_by_name, w->name_key);
        free(w);
        return NULL;
    }
    w->group->n_workers++;
    pool->n_workers++;
    c->n_workers[pool->stage]++;
    return w;
}

static bool is_of(const struct core_worker *w, const struct core_event *e)
{
    return w->pool->stage == e->hello.stage && fingerprint_equal(&w->pool->fingerprint, &e->hello.fingerprint);
}

/* The peer's own earlier HELLO, or the process's under another connection. NULL: none that stays. */
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
        core_worker_remove(c, w, false, "its worker started anew");
    if (!same || same == w)
        return NULL;
    if (is_of(same, e)) {
        take_connection(c, same, e);
        return same;
    }
    core_emit_id(c, CORE_DO_FORGET_PEER, same->peer);
    core_worker_remove(c, same, false, "its worker computes something else now");
    return NULL;
}

/* The reason why no new worker is let in now; or the pool that it joins. */
static struct core_pool *admit(struct core *c, const struct core_event *e)
{
    struct core_pool *pool = NULL;

    if (e->hello.stage == 0 || e->hello.stage >= N_STAGES) {
        core_refuse(c, e->hello.peer, CORE_REFUSE_BAD_MESSAGE, "unknown stage");
        return NULL;
    }
    if (core_is_cut_off(c, name_of(e))) {
        core_refuse(c, e->hello.peer, CORE_REFUSE_STALLED, "it kept a unit far too long: start it anew");
        return NULL;
    }
    if (c->shutdown) {
        core_refuse(c, e->hello.peer, CORE_REFUSE_DRAINING, "the broker is shutting down");
        return NULL;
    }
    if (c->workers_by_peer.n < c->limits.max_workers || core_planted(c, CORE_BUG_WORKERS_WITHOUT_LIMIT))
        pool = pool_get(c, e->hello.stage, &e->hello.fingerprint);
    if (!pool)
        core_refuse(c, e->hello.peer, CORE_REFUSE_LIMIT, "too many workers, or too many kinds of them");
    return pool;
}

/* A worker whose model no open job wants is taken in, too, and waits for a job that does. */
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
    if (core_planted(c, CORE_BUG_IDLE_REFUSED) && !is_wanted(c, w->pool)) {
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

/* -- messages ------------------------------------------------------------------------------------------------------ */

struct core_worker *core_worker_heard(struct core *c, uint64_t peer)
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

int core_on_gone(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_map_get(&c->workers_by_peer, e->gone.peer);

    if (w && (e->gone.clean || e->gone.ended))
        core_worker_remove(c, w, e->gone.clean, "its worker was lost");
    else if (w)
        lose_worker(c, w);
    return 0;
}

int core_on_credit(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_worker_heard(c, e->credit.peer);

    if (!w || core_planted(c, CORE_BUG_CREDIT_IGNORED))
        return 0;
    set_window(w, c, e->credit.window_items, e->credit.window_bytes);
    core_worker_update(w, c);
    return 0;
}

/* -- time ---------------------------------------------------------------------------------------------------------- */

/* Not heard for lease_ms: nothing new. For worker_ms: forgotten. */
void core_worker_is_late(struct core *c, struct core_worker *w)
{
    int64_t forget_at = w->heard_ms + c->limits.worker_ms;

    if (forget_at <= c->now_ms && !core_planted(c, CORE_BUG_SILENT_STAYS)) {
        if (!w->lost)
            core_emit_hung(c, w, "it has fallen silent");
        core_emit_id(c, CORE_DO_FORGET_PEER, w->peer);
        core_worker_remove(c, w, false, "its worker fell silent");
        return;
    }
    w->silent = true;
    core_worker_update(w, c);
    if (core_heap_set(&c->worker_deadlines, &w->deadline_place, forget_at, w) < 0)
        core_break(c);
}
