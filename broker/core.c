/* The state machine: core_new, core_step, core_free. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct core_limits core_limits_default(void)
{
    return (struct core_limits){
        .memory_bytes = (uint64_t)8 << 30,
        .row_bytes = (uint64_t)1 << 30,
        .lease_ms = 30000,
        .worker_ms = 90000,
        .stall_ms = 300000,
        .first_stall_ms = 1800000,
        .max_given_up = 32,
        .max_attempts = 3,
        .max_unblamed = 16,
        .window_units = 1024,
        .max_jobs = 64,
        .max_workers = 4096,
        .max_pools = 64,
        .max_worker_items = 65536,
        .max_worker_leases = 1024,
    };
}

struct core *core_new(const struct core_limits *limits, uint64_t epoch)
{
    struct core *c;

    assert(limits->memory_bytes && limits->row_bytes && limits->lease_ms > 0 && limits->worker_ms > limits->lease_ms);
    assert(limits->stall_ms > 0 && limits->first_stall_ms > 0);
    assert(limits->max_attempts && limits->window_units && limits->max_jobs);
    assert(limits->max_workers && limits->max_pools && limits->max_worker_items && limits->max_worker_leases);
    c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->limits = *limits;
    c->epoch = epoch;
    c->now_ms = INT64_MIN;
    c->next_lease = 1;
    c->jobs = calloc(limits->max_jobs, sizeof(c->jobs[0]));
    c->pools = calloc(limits->max_pools, sizeof(c->pools[0]));
    if (!c->jobs || !c->pools) {
        free(c->jobs);
        free(c->pools);
        free(c);
        return NULL;
    }
    return c;
}

void core_free(struct core *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->leases.capacity; i++)
        free(c->leases.slots[i].value);
    for (uint32_t i = 0; i < c->n_jobs; i++)
        core_job_free(c->jobs[i]);
    for (size_t i = 0; i < c->workers_by_peer.capacity; i++)
        free(c->workers_by_peer.slots[i].value);
    for (size_t i = 0; i < c->groups.capacity; i++) {
        struct core_group *g = c->groups.slots[i].value;

        if (g)
            core_heap_release(&g->room);
        free(g);
    }
    for (uint32_t i = 0; i < c->n_pools; i++) {
        core_heap_release(&c->pools[i]->room);
        free(c->pools[i]);
    }
    core_map_release(&c->jobs_by_id);
    core_map_release(&c->workers_by_peer);
    core_map_release(&c->workers_by_name);
    core_map_release(&c->groups);
    core_map_release(&c->leases);
    core_map_release(&c->payloads);
    core_heap_release(&c->lease_deadlines);
    core_heap_release(&c->worker_deadlines);
    core_heap_release(&c->rests);
    core_heap_release(&c->unseen_ends);
    free(c->jobs);
    free(c->pools);
    free(c);
}

/* -- steps -- */

static int (*const handlers[CORE_N_EVENTS])(struct core *, const struct core_event *) = {
    [CORE_EVENT_TICK] = core_on_tick,
    [CORE_EVENT_JOB_OPEN] = core_on_job_open,
    [CORE_EVENT_JOB_START] = core_on_job_start,
    [CORE_EVENT_JOB_STOP] = core_on_job_stop,
    [CORE_EVENT_JOB_PRIORITY] = core_on_job_priority,
    [CORE_EVENT_JOB_CLOSE] = core_on_job_close,
    [CORE_EVENT_JOB_FAILED] = core_on_job_failed,
    [CORE_EVENT_JOB_SEALED] = core_on_job_sealed,
    [CORE_EVENT_UNITS_ADDED] = core_on_units_added,
    [CORE_EVENT_UNITS_AGAIN] = core_on_units_again,
    [CORE_EVENT_UNITS] = core_on_units,
    [CORE_EVENT_HELLO] = core_on_hello,
    [CORE_EVENT_CREDIT] = core_on_credit,
    [CORE_EVENT_HEARTBEAT] = core_on_heartbeat,
    [CORE_EVENT_GONE] = core_on_gone,
    [CORE_EVENT_RESULT] = core_on_result,
    [CORE_EVENT_FAILURE] = core_on_failure,
    [CORE_EVENT_RETURN] = core_on_return,
    [CORE_EVENT_UNSEEN] = core_on_unseen,
    [CORE_EVENT_PAYLOAD_LOST] = core_on_payload_lost,
    [CORE_EVENT_COMMITTED] = core_on_committed,
    [CORE_EVENT_COMMIT_FAILED] = core_on_commit_failed,
    [CORE_EVENT_DISK_FULL] = core_on_disk_full,
    [CORE_EVENT_DISK_OK] = core_on_disk_ok,
    [CORE_EVENT_SHUTDOWN] = core_on_shutdown,
};

/* The earliest deadline, by the core's own clock. */
static int64_t next_due(const struct core *c)
{
    int64_t at = INT64_MAX;

    if (c->lease_deadlines.n && c->lease_deadlines.entries[0].key < at)
        at = c->lease_deadlines.entries[0].key;
    if (c->worker_deadlines.n && c->worker_deadlines.entries[0].key < at)
        at = c->worker_deadlines.entries[0].key;
    return at;
}

/* If this process is late for a deadline, it was stopped or got no processor time, and has not read the messages that
 * arrived meanwhile. Its own clock stood still for that time, so that all peers can be heard, or reconnect, first. */
static void set_clock(struct core *c, int64_t now_ms)
{
    const int64_t due = next_due(c);
    int64_t ours = now_ms - c->stood_still_ms;

    if (due != INT64_MAX && ours - due > c->limits.lease_ms / 30 && !core_planted(c, CORE_BUG_STOP_BLAMED)) {
        ours = due - c->limits.lease_ms / 3;
        if (ours < c->now_ms)
            ours = c->now_ms;
        c->stood_still_ms = now_ms - ours;
    }
    if (ours > c->now_ms)
        c->now_ms = ours;
}

int core_step(struct core *c, const struct core_event *event, int64_t now_ms, struct core_actions *ret_actions)
{
    int rc;

    if (c->broken)
        return -ENOMEM;
    c->out = ret_actions;
    set_clock(c, now_ms);
    c->counters.events++;
    assert(event->type < CORE_N_EVENTS);
    rc = handlers[event->type](c, event);
    if ((!c->shutdown || core_planted(c, CORE_BUG_SHUTDOWN_GRANTS)) && !c->broken)
        core_schedule(c);
    core_jobs_settle(c);
    if (c->shutdown && !c->drained_told && (c->leases.n == 0 || core_planted(c, CORE_BUG_DRAINED_WITH_LEASES)) &&
        (c->n_commits == 0 || core_planted(c, CORE_BUG_DRAINED_WITH_COMMITS))) {
        c->drained_told = true;
        core_emit(c, CORE_DO_DRAINED);
    }
    c->out = NULL;
    return c->broken ? -ENOMEM : rc;
}

int64_t core_next_deadline(const struct core *c)
{
    int64_t due = next_due(c);

    if (c->rests.n && c->rests.entries[0].key < due)
        due = c->rests.entries[0].key;
    if (c->unseen_ends.n && c->unseen_ends.entries[0].key < due)
        due = c->unseen_ends.entries[0].key;
    return due == INT64_MAX ? due : due + c->stood_still_ms;
}
