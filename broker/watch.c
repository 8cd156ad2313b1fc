/* watch.c - find out why a job does not move: no connected worker can do its units, or workers make no progress. The
 * reason goes to the log and into the job's progress. */
#include "broker/watch.h"

#include "broker/crew.h"
#include "broker/jobs.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 1000, PATIENCE_MS = 3000, STANDSTILL_MS = 20000 };

/* Write why no worker can run node i; write nothing if one can. */
static void explain(const struct jobs *jobs, const struct broker_job *job, uint32_t i, char *text, size_t size)
{
    const struct msg_node *node = &job->open.nodes[i];
    const struct crew_need need = {
        .job = job->id, .node = node, .dtype = crew_dtype(&job->open.recipe, node->stage), .unseen = job->unseen};

    (void)crew_is_missing(jobs->driver, jobs->peers, &need, text, size);
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

    broker_job_explain_push(job, stats->units_loaded, text, size);
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
