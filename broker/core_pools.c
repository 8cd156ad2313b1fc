/* Pools of workers that compute the same, and which of these workers have room for more work. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <stdlib.h>
#include <string.h>

/* -- how far a worker is trusted -- */

bool core_worker_is_careful(const struct core_worker *w)
{
    return core_worker_n_in_row(w) >= CORE_CAREFUL_FROM;
}

static void set_good(struct core_worker *w)
{
    const bool good = !w->silent && w->window_items > 0 && core_worker_n_in_row(w) < CORE_TRUSTED_BELOW;

    w->pool->n_good += (uint32_t)good - (uint32_t)w->good;
    w->good = good;
}

/* -- room -- */

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

    set_good(w);
    if (w->pool->draining == w && (w->silent || w->rest_place || w->window_items == 0))
        w->pool->draining = NULL; /* it may never become empty */
    if (!has_room(w, c)) {
        core_heap_remove(&w->pool->room, &w->pool_place);
        core_heap_remove(&w->group->room, &w->group_place);
        return;
    }
    /* Empty workers first, since they take a task of any size; then by free items; workers on trial last. */
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

void core_worker_rest(struct core *c, struct core_worker *w, int64_t ms)
{
    const int64_t until_ms = c->now_ms + ms;

    if (w->rest_place && w->rest_until_ms >= until_ms)
        return;
    w->rest_until_ms = until_ms;
    if (core_heap_set(&c->rests, &w->rest_place, until_ms, w) < 0)
        core_break(c);
    core_worker_update(w, c);
}

/* -- pools and groups -- */

struct core_pool *core_pool_get(struct core *c, uint32_t stage, const struct fingerprint *fingerprint,
                                const uint64_t unseen[CORE_MAX_UNSEEN])
{
    struct core_pool *p;

    for (uint32_t i = 0; i < c->n_pools; i++)
        if (c->pools[i]->stage == stage && fingerprint_equal(&c->pools[i]->fingerprint, fingerprint) &&
            memcmp(c->pools[i]->unseen, unseen, sizeof(c->pools[i]->unseen)) == 0)
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
    memcpy(p->unseen, unseen, sizeof(p->unseen));
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

bool core_worker_join(struct core *c, struct core_worker *w, struct core_pool *p)
{
    w->group_key = core_group_key(p, w->host);
    w->group = group_get(c, w->group_key);
    if (!w->group)
        return false;
    w->pool = p;
    w->group->n_workers++;
    p->n_workers++;
    return true;
}

void core_worker_leave(struct core *c, struct core_worker *w)
{
    struct core_pool *p = w->pool;

    core_heap_remove(&p->room, &w->pool_place);
    core_heap_remove(&w->group->room, &w->group_place);
    p->n_good -= w->good;
    w->good = false;
    if (p->draining == w)
        p->draining = NULL;
    w->group->n_workers--;
    group_put(c, w->group, w->group_key);
    p->n_workers--;
    pool_put(c, p);
}

/* Can its workers see the pictures that the node reads? */
static bool pool_sees(const struct core *c, const struct core_pool *p, const struct core_job_node *n)
{
    for (uint32_t i = 0; n->pictures_of && i < CORE_MAX_UNSEEN; i++)
        if (p->unseen[i] == n->pictures_of)
            return core_planted(c, CORE_BUG_UNSEEN_GETS_MORE);
    return true;
}

bool core_pool_matches(const struct core *c, const struct core_pool *p, const struct core_job_node *n)
{
    return p->stage == n->spec.stage && pool_sees(c, p, n) &&
           (n->any_fingerprint || (n->spec.needs && core_planted(c, CORE_BUG_FINGERPRINT_AT_FIRST_NODE)) ||
            fingerprint_equal(&p->fingerprint, &n->spec.fingerprint));
}

/* Does any open job have a node that workers of this pool may run? */
bool core_pool_is_wanted(const struct core *c, const struct core_pool *p)
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

    return w && core_pool_is_wanted(c, w->pool);
}
