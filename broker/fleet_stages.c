#include "broker/fleet_stages.h"

#include "broker/crew.h"

#include "proto/row_fleet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_POOLS = 256, PER_MILLE = 1000, MS_PER_1000_S = 1000000 };

/* Workers of a stage with the same fingerprint. */
struct pool {
    struct row_fleet_stage row;
    uint64_t busy_per_mille; /* the sum of the able workers' */
};

struct pools {
    size_t n;
    struct pool list[MAX_POOLS];
};

uint32_t fleet_busy_per_mille(const struct peer *p, const struct core_worker_info *info, int64_t now_ms)
{
    const uint64_t ms_per_1000_s = rate_get(&p->busy, info->busy_ms, now_ms, false);

    return ms_per_1000_s < (uint64_t)PER_MILLE * 1000 ? (uint32_t)(ms_per_1000_s / 1000) : PER_MILLE;
}

/* NULL: there are too many. */
static struct pool *require(struct pools *all, enum stage stage, const struct fingerprint *fingerprint,
                            const char *model, enum dtype dtype)
{
    struct pool *p;

    for (size_t i = 0; i < all->n; i++)
        if (all->list[i].row.stage == stage && fingerprint_equal(&all->list[i].row.fingerprint, fingerprint))
            return &all->list[i];
    if (all->n == MAX_POOLS)
        return NULL;
    p = &all->list[all->n++];
    *p = (struct pool){.row = {.stage = stage, .dtype = dtype, .fingerprint = *fingerprint}};
    (void)msg_text_set(p->row.model, sizeof(p->row.model), model);
    return p;
}

static void add_worker(struct pools *all, const struct jobs *jobs, const struct peer *p)
{
    const int64_t now_ms = jobs->driver->now_ms;
    struct core_worker_info info;
    enum msg_worker_state state;
    struct pool *pool;

    if (p->role != MSG_ROLE_WORKER || core_worker_get(jobs->driver->core, p->number, now_ms, &info) < 0)
        return;
    pool = require(all, p->stage, &p->fingerprint, p->model, p->dtype);
    if (!pool)
        return;
    state = crew_state(&info);
    pool->row.n_workers++;
    pool->row.rate += rate_get(&p->items, p->n_items, now_ms, info.n_leases > 0);
    if (state != MSG_WORKER_IDLE && state != MSG_WORKER_WORKING)
        return;
    pool->row.n_able++;
    pool->busy_per_mille += fleet_busy_per_mille(p, &info, now_ms);
    pool->row.capacity += info.busy_ms ? p->n_items * MS_PER_1000_S / info.busy_ms : 0;
}

/* The pool whose workers do this node. Any worker of the stage may do a node without a fingerprint. */
static struct pool *pool_of(struct pools *all, const struct msg_node *node, enum dtype dtype)
{
    for (size_t i = 0; fingerprint_is_none(&node->fingerprint) && i < all->n; i++)
        if (all->list[i].row.stage == node->stage)
            return &all->list[i];
    return require(all, node->stage, &node->fingerprint, node->model, dtype);
}

static void add_job(struct pools *all, const struct jobs *jobs, const struct broker_job *job)
{
    struct core_job_stats stats;

    if (job->phase != BROKER_JOB_OPEN || core_job_stats_get(jobs->driver->core, job->id, &stats) < 0)
        return;
    for (uint32_t i = 0; i < stats.n_nodes; i++) {
        const struct msg_node *node = &job->open.nodes[i];
        struct pool *pool = pool_of(all, node, crew_dtype(&job->open.recipe, node->stage));

        if (!pool)
            return;
        pool->row.units_ready += stats.nodes[i].subunits_ready;
        pool->row.units_leased += stats.nodes[i].subunits_leased;
    }
}

static int by_stage(const void *a, const void *b)
{
    const struct row_fleet_stage *x = &((const struct pool *)a)->row, *y = &((const struct pool *)b)->row;

    if (x->stage != y->stage)
        return x->stage < y->stage ? -1 : 1;
    return strcmp(x->model, y->model) ? strcmp(x->model, y->model) : (int)x->dtype - (int)y->dtype;
}

int fleet_stages_append(const struct jobs *jobs, uint64_t from, struct buf *frame, uint32_t *n_rows)
{
    struct pools *all = calloc(1, sizeof(*all));
    size_t at = 0;
    int rc = all ? 0 : -ENOMEM;

    if (!all)
        return rc;
    for (const struct peer *p; (p = peers_next(jobs->peers, &at));)
        add_worker(all, jobs, p);
    for (const struct broker_job *job = jobs->first; job; job = job->next)
        add_job(all, jobs, job);
    qsort(all->list, all->n, sizeof(all->list[0]), by_stage);
    for (size_t i = from < all->n ? (size_t)from : all->n; rc == 0 && i < all->n; i++) {
        struct row_fleet_stage *row = &all->list[i].row;

        row->busy_per_mille = row->n_able ? (uint32_t)(all->list[i].busy_per_mille / row->n_able) : 0;
        ++*n_rows;
        rc = row_fleet_stage_append(frame, row);
    }
    free(all);
    return rc;
}
