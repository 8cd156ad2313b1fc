/* watch.c - find out why a job does not move: no connected worker can do its units, or workers make no progress. The
 * reason goes to the log and into the job's progress. */
#include "broker/watch.h"

#include "broker/jobs.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 1000, PATIENCE_MS = 3000, STANDSTILL_MS = 20000 };

static enum dtype dtype_of(const struct msg_recipe *r, enum stage stage)
{
    return stage == STAGE_ENCODE ? r->dtype_encode : stage == STAGE_QFORMER ? r->dtype_qformer : r->dtype_llm;
}

/* The first digits tell fingerprints apart. */
static const char *short_hex(const struct fingerprint *f, char ret[9])
{
    (void)snprintf(ret, 9, "%02x%02x%02x%02x", f->bytes[0], f->bytes[1], f->bytes[2], f->bytes[3]);
    return fingerprint_is_none(f) ? "none" : ret;
}

/* Connected workers of the node's stage. */
struct crew {
    uint32_t n, n_fit, n_benched; /* all; those that can run the node; how many of these are benched */
    uint32_t n_unseen;            /* how many others of these cannot see the pictures */
    const struct peer *other;     /* one that cannot */
    const struct peer *benched;   /* one that can, and is benched */
};

static struct crew crew_of(const struct jobs *jobs, const struct broker_job *job, const struct msg_node *node)
{
    struct crew crew = {0};
    size_t at = 0;

    for (const struct peer *p; (p = peers_next(jobs->peers, &at));) {
        if (p->role != MSG_ROLE_WORKER || p->stage != node->stage)
            continue;
        crew.n++;
        if (!fingerprint_is_none(&node->fingerprint) && !fingerprint_equal(&p->fingerprint, &node->fingerprint)) {
            crew.other = p;
            continue;
        }
        crew.n_fit++;
        crew.n_benched += p->benched[0] != '\0';
        if (p->benched[0])
            crew.benched = p;
        else
            crew.n_unseen += !node->needs && !core_worker_sees(jobs->driver->core, p->number, job->id);
    }
    return crew;
}

/* Write why no worker can run node i; write nothing if one can. */
static void explain(const struct jobs *jobs, const struct broker_job *job, uint32_t i, char *text, size_t size)
{
    const struct msg_node *node = &job->open.nodes[i];
    const struct crew crew = crew_of(jobs, job, node);
    const struct peer *other = crew.other;
    char want[9], have[9];

    if (crew.n_fit > crew.n_benched + crew.n_unseen)
        return;
    if (crew.n_unseen > 1)
        (void)snprintf(text, size, "none of %u %s workers can see the pictures: %.900s", crew.n_unseen,
                       stage_name(node->stage), job->unseen);
    else if (crew.n_unseen)
        (void)snprintf(text, size, "%s", job->unseen);
    else if (crew.n_benched)
        (void)snprintf(text, size, "%s is on a bench: what %s did went wrong again and again (%.500s)",
                       crew.n_benched == 1 ? "the only worker" : "every worker", crew.n_benched == 1 ? "it" : "they",
                       crew.benched->benched);
    else if (crew.n == 0)
        (void)snprintf(text, size, "no %s worker is connected; model %s in %s is wanted (%s)", stage_name(node->stage),
                       node->model, dtype_word(dtype_of(&job->open.recipe, node->stage)),
                       short_hex(&node->fingerprint, want));
    else
        (void)snprintf(
            text, size,
            "none of %u connected %s workers can do it: model %s in %s is wanted (%s), one has model %s in %s (%s)",
            crew.n, stage_name(node->stage), node->model, dtype_word(dtype_of(&job->open.recipe, node->stage)),
            short_hex(&node->fingerprint, want), other->model, dtype_word(other->dtype),
            short_hex(&other->fingerprint, have));
}

/* No item has moved for a long time: say which workers hold the units. */
static void explain_standstill(const struct broker_job *job, const struct core_job_stats *stats, char *text,
                               size_t size)
{
    for (uint32_t i = 0; i < stats->n_nodes && !text[0]; i++)
        if (stats->nodes[i].subunits_leased)
            (void)snprintf(text, size, "no item has got through a stage for %d s or more; %s workers hold %u unit%s",
                           STANDSTILL_MS / 1000, stage_name(job->open.nodes[i].stage), stats->nodes[i].subunits_leased,
                           stats->nodes[i].subunits_leased == 1 ? "" : "s");
}

/* Write what the job waits for, once it has waited for some time; write nothing while it moves. */
static void look_closely(struct jobs *jobs, struct broker_job *job, const struct core_job_stats *stats, char *text,
                         size_t size)
{
    uint64_t n_items = 0;

    for (uint32_t i = 0; i < stats->n_nodes; i++) {
        const struct core_node_stats *n = &stats->nodes[i];

        n_items += n->items_done;
        if (!text[0] && n->subunits_ready + n->subunits_leased > 0)
            explain(jobs, job, i, text, size);
    }
    if (n_items != job->items_seen || job->moved_at_ms == 0 || stats->units_started == 0) {
        job->items_seen = n_items;
        job->moved_at_ms = jobs->driver->now_ms;
    }
    if (!text[0]) {
        job->unschedulable_at_ms = 0;
        if (jobs->driver->now_ms - job->moved_at_ms >= STANDSTILL_MS)
            explain_standstill(job, stats, text, size);
    } else if (job->unschedulable_at_ms == 0) {
        job->unschedulable_at_ms = jobs->driver->now_ms;
    }
    if (job->unschedulable_at_ms && jobs->driver->now_ms - job->unschedulable_at_ms < PATIENCE_MS)
        text[0] = '\0';
}

static void look_at(struct jobs *jobs, struct broker_job *job)
{
    struct core_job_stats stats;
    char text[MSG_TEXT_SIZE] = "";

    if (core_job_stats_get(jobs->driver->core, job->id, &stats) == 0 &&
        (stats.state == CORE_JOB_IMPORTING || stats.state == CORE_JOB_RUNNING || stats.state == CORE_JOB_STOPPING ||
         stats.state == CORE_JOB_BLOCKED))
        look_closely(jobs, job, &stats, text, sizeof(text));
    if (text[0] && strcmp(text, job->waiting) != 0)
        log_warn("event=%s job=%" PRIu64 " msg=\"waiting: %s\"",
                 job->unschedulable_at_ms ? "unschedulable" : "standstill", job->id, text);
    memcpy(job->waiting, text, sizeof(job->waiting));
}

int64_t watch_jobs(struct jobs *jobs)
{
    if (!jobs->first)
        return INT64_MAX;
    if (jobs->driver->now_ms < jobs->watch_at_ms)
        return jobs->watch_at_ms;
    jobs->watch_at_ms = jobs->driver->now_ms + LOOK_MS;
    for (struct broker_job *job = jobs->first; job; job = job->next)
        look_at(jobs, job);
    return jobs->watch_at_ms;
}
