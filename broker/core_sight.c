/* Sight: workers that cannot see the pictures of a job, for instance because their host has not mounted a file system.
 *
 * Such a worker returns the units of the job without blame. It then rests from the job: it moves to a pool of workers
 * that may not run its first nodes, and back when the rest is over. The rests grow until a result shows that it sees
 * the pictures after all. Other jobs do not notice. */
#include "broker/core_worker.h"
#include "broker/core_job.h"

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

/* Move the worker to the pool of those that rest from the same jobs. */
static void move(struct core *c, struct core_worker *w)
{
    uint64_t unseen[CORE_MAX_UNSEEN];
    const int64_t next_ms = resting(w, unseen);
    struct core_pool *p = core_pool_get(c, w->pool->stage, &w->pool->fingerprint, unseen);

    core_heap_remove(&c->unseen_ends, &w->unseen_place);
    if (next_ms != INT64_MAX && core_heap_set(&c->unseen_ends, &w->unseen_place, next_ms, w) < 0)
        core_break(c);
    if (!p) { /* too many pools: it rests from all jobs */
        core_worker_rest(c, w, FIRST_REST_MS);
        return;
    }
    if (p == w->pool)
        return;
    core_worker_leave(c, w);
    if (!core_worker_join(c, w, p))
        return; /* no memory: the core is broken */
    core_worker_update(w, c);
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
    u->rest_ms = u->rest_ms == 0 ? FIRST_REST_MS : u->rest_ms * 2;
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
