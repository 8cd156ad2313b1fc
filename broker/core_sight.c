/* Sight: workers that cannot see the pictures of a job, for instance because their host has not mounted a file system.
 *
 * Such a worker returns the units of the job without blame. It then rests from the job: it moves to a pool of workers
 * that may not run its first nodes, and back when the rest is over. The rests grow until a result shows that it sees
 * the pictures after all. Other jobs do not notice. */
#include "broker/core_worker.h"
#include "broker/core_job.h"

#include <string.h>

enum { FIRST_REST_MS = 5000, LONGEST_REST_MS = 60000 };

static struct core_unseen *find(struct core_worker *w, uint64_t job)
{
    for (uint32_t i = 0; i < CORE_MAX_UNSEEN; i++)
        if (w->unseen[i].job == job)
            return &w->unseen[i];
    return NULL;
}

/* An entry for another job: a free one, else the one whose rest ends first. */
static struct core_unseen *make_room(struct core_worker *w)
{
    struct core_unseen *u = w->unseen;

    for (uint32_t i = 1; i < CORE_MAX_UNSEEN; i++)
        if (w->unseen[i].until_ms < u->until_ms) /* a free one has 0 */
            u = &w->unseen[i];
    return u;
}

/* The jobs from which the worker rests, ascending, then 0s; and when it next looks again. */
static int64_t resting(const struct core_worker *w, uint64_t ret[CORE_MAX_UNSEEN])
{
    int64_t next_ms = INT64_MAX;
    uint32_t n = 0;

    for (uint32_t i = 0; i < CORE_MAX_UNSEEN; i++) {
        const struct core_unseen *u = &w->unseen[i];
        uint32_t at = n;

        if (!u->rests)
            continue;
        for (; at > 0 && ret[at - 1] > u->job; at--)
            ret[at] = ret[at - 1];
        ret[at] = u->job;
        n++;
        next_ms = u->until_ms < next_ms ? u->until_ms : next_ms;
    }
    while (n < CORE_MAX_UNSEEN)
        ret[n++] = 0;
    return next_ms;
}

/* Move the worker to the pool of those that rest from the same jobs. *ret_full: that would be a pool too many, and it
 * stays where it is. False: no memory; the core is broken. */
static bool change_pool(struct core *c, struct core_worker *w, const uint64_t unseen[CORE_MAX_UNSEEN], bool *ret_full)
{
    const struct core_pool before = *w->pool;
    struct core_pool *p;

    *ret_full = false;
    if (memcmp(before.unseen, unseen, sizeof(before.unseen)) == 0)
        return true;
    core_worker_leave(c, w); /* a pool that it leaves empty makes room */
    p = core_pool_get(c, before.stage, &before.fingerprint, unseen);
    if (!p) {
        *ret_full = true;
        p = core_pool_get(c, before.stage, &before.fingerprint, before.unseen);
    }
    if (!p || !core_worker_join(c, w, p))
        return false;
    core_worker_update(w, c);
    return true;
}

/* Without a place in another pool it rests from all jobs, and tries again. */
static void move(struct core *c, struct core_worker *w)
{
    uint64_t unseen[CORE_MAX_UNSEEN];
    int64_t next_ms = resting(w, unseen);
    bool full;

    if (!change_pool(c, w, unseen, &full))
        return;
    if (full) {
        core_worker_rest(c, w, FIRST_REST_MS);
        next_ms = next_ms < w->rest_until_ms ? next_ms : w->rest_until_ms;
    }
    core_heap_remove(&c->unseen_ends, &w->unseen_place);
    if (next_ms != INT64_MAX && core_heap_set(&c->unseen_ends, &w->unseen_place, next_ms, w) < 0)
        core_break(c);
}

void core_worker_cannot_see(struct core *c, struct core_worker *w, uint64_t job)
{
    struct core_unseen *u = find(w, job);

    if (u && u->rests)
        return; /* it held several units of the job */
    if (!u) {
        u = make_room(w);
        *u = (struct core_unseen){.job = job};
    }
    u->rest_ms = u->rest_ms == 0 || core_planted(c, CORE_BUG_UNSEEN_REST_FIXED) ? FIRST_REST_MS : u->rest_ms * 2;
    if (u->rest_ms > LONGEST_REST_MS)
        u->rest_ms = LONGEST_REST_MS;
    u->until_ms = c->now_ms + u->rest_ms;
    u->rests = true;
    move(c, w);
}

void core_worker_saw(struct core *c, const struct core_lease *l)
{
    const uint64_t job = core_node_of(l->task)->pictures_of;
    struct core_unseen *u = job ? find(l->worker, job) : NULL;

    if (!u)
        return;
    *u = (struct core_unseen){0};
    move(c, l->worker);
}

void core_worker_looks_again(struct core *c, struct core_worker *w)
{
    for (uint32_t i = 0; i < CORE_MAX_UNSEEN; i++) {
        struct core_unseen *u = &w->unseen[i];

        if (!u->rests || u->until_ms > c->now_ms)
            continue;
        u->rests = false;
        if (!core_map_get(&c->jobs_by_id, u->job))
            *u = (struct core_unseen){0};
    }
    move(c, w);
}

bool core_worker_sees(const struct core *c, uint64_t peer, uint64_t job)
{
    struct core_worker *w = core_map_get(&c->workers_by_peer, peer);

    return !w || !find(w, job);
}
