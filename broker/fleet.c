#include "broker/fleet.h"

#include "broker/crew.h"
#include "broker/fleet_stages.h"
#include "broker/progress.h"

#include "base/file.h"
#include "proto/rights.h"
#include "proto/row_fleet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 1000 };

/* -- measuring -- */

static void look_at_worker(const struct jobs *jobs, struct peer *p)
{
    const int64_t now_ms = jobs->driver->now_ms;
    struct core_worker_info info;

    if (p->role != MSG_ROLE_WORKER || core_worker_get(jobs->driver->core, p->number, now_ms, &info) < 0)
        return;
    rate_sample(&p->items, p->n_items, now_ms);
    rate_sample(&p->busy, info.busy_ms, now_ms);
    if (p->state == crew_state(&info))
        return;
    p->state = crew_state(&info);
    p->state_at_ms = now_ms;
}

/* Grows with every item that is done or redone. */
static uint64_t n_finished(const struct broker_job *job)
{
    return job->counters.n_done + job->counters.n_redone;
}

int64_t fleet_watch(struct fleet *f)
{
    const struct jobs *jobs = f->jobs;
    const int64_t now_ms = jobs->driver->now_ms;
    size_t at = 0;

    if (!jobs->first && !jobs->peers->by_number.n)
        return INT64_MAX;
    if (now_ms < f->look_at_ms)
        return f->look_at_ms;
    f->look_at_ms = now_ms + LOOK_MS;
    for (struct peer *p; (p = peers_next(jobs->peers, &at));)
        look_at_worker(jobs, p);
    for (struct broker_job *job = jobs->first; job; job = job->next)
        if (job->phase == BROKER_JOB_OPEN)
            rate_sample(&job->finished, n_finished(job), now_ms);
    return f->look_at_ms;
}

/* -- the rows of an answer -- */

struct rows {
    struct buf frame;
    uint32_t n;
    uint64_t next; /* the first that did not fit; 0: all did */
};

static int by_number(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Sort the numbers, and cut them to those of one answer. */
static size_t cut(uint64_t *numbers, size_t n, struct rows *rows)
{
    qsort(numbers, n, sizeof(*numbers), by_number);
    if (n <= MSG_MAX_FLEET_ROWS)
        return n;
    rows->next = numbers[MSG_MAX_FLEET_ROWS];
    return MSG_MAX_FLEET_ROWS;
}

static int append_worker(const struct jobs *jobs, uint64_t number, struct rows *rows)
{
    const int64_t now_ms = jobs->driver->now_ms;
    const struct peer *p = peers_find(jobs->peers, number);
    struct row_fleet_worker row;
    struct core_worker_info info;

    if (!p || core_worker_get(jobs->driver->core, number, now_ms, &info) < 0)
        return 0; /* it was refused, or has just gone */
    row = (struct row_fleet_worker){.number = number,
                                    .pid = p->hello_pid,
                                    .stage = p->stage,
                                    .dtype = p->dtype,
                                    .state = crew_state(&info),
                                    .n_bad = info.n_bad,
                                    .n_items = p->n_items,
                                    .rate = rate_get(&p->items, p->n_items, now_ms, info.n_leases > 0),
                                    .busy_per_mille = fleet_busy_per_mille(p, &info, now_ms),
                                    .n_leases = info.n_leases,
                                    .held_items = info.held_items,
                                    .window_items = info.window_items,
                                    .held_bytes = info.held_bytes,
                                    .window_bytes = info.window_bytes,
                                    .heard_ms = (uint64_t)(now_ms > info.heard_ms ? now_ms - info.heard_ms : 0)};
    row.state_ms = p->state == row.state ? (uint64_t)(now_ms - p->state_at_ms) : 0;
    memcpy(row.host, p->host, sizeof(row.host));
    memcpy(row.device, p->device, sizeof(row.device));
    memcpy(row.model, p->model, sizeof(row.model));
    (void)msg_text_set(row.text, sizeof(row.text), info.benched ? info.why : "");
    rows->n++;
    return row_fleet_worker_append(&rows->frame, &row);
}

static int append_workers(const struct jobs *jobs, uint64_t from, struct rows *rows)
{
    uint64_t *numbers = malloc((jobs->peers->by_number.n + 1) * sizeof(*numbers));
    size_t n = 0, at = 0;
    int rc = numbers ? 0 : -ENOMEM;

    for (const struct peer *p; numbers && (p = peers_next(jobs->peers, &at));)
        if (p->role == MSG_ROLE_WORKER && p->number >= from)
            numbers[n++] = p->number;
    n = numbers ? cut(numbers, n, rows) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = append_worker(jobs, numbers[i], rows);
    free(numbers);
    return rc;
}

static bool may_see(const struct peer *p, const struct broker_job *job)
{
    return msg_right(p->role, MSG_FLEET_QUERY) == MSG_RIGHT_ALL || strcmp(job->owner, p->name) == 0;
}

static int append_job(const struct jobs *jobs, const struct broker_job *job, struct rows *rows)
{
    const enum msg_job_state state = progress_state(jobs, job);
    struct row_fleet_job row = {.job = job->id,
                                .state = state,
                                .n_items = job->counters.n_items,
                                .n_done = job->counters.n_done,
                                .n_failed = job->counters.n_failed,
                                .n_again = job->counters.n_again};
    struct core_job_stats stats;
    uint32_t n_leased = 0;

    if (core_job_stats_get(jobs->driver->core, job->id, &stats) < 0)
        return 0;
    row.wanted = job->entry ? job->entry->wanted : STORED_WANTED_RUN;
    row.priority = stats.priority;
    row.n_stages = stats.n_nodes;
    for (uint32_t i = 0; i < stats.n_nodes; i++) {
        const struct core_node_stats *s = &stats.nodes[i];

        row.stages[i] = (struct row_fleet_units){s->stage, s->subunits_ready, s->subunits_leased};
        n_leased += s->subunits_leased;
    }
    row.rate = rate_get(&job->finished, n_finished(job), jobs->driver->now_ms, n_leased > 0);
    (void)msg_text_set(row.text, sizeof(row.text), progress_text(job, state));
    (void)msg_text_set(row.owner, sizeof(row.owner), job->owner);
    if (job->entry)
        (void)msg_text_set(row.name, sizeof(row.name), job->entry->name);
    else
        file_base_name(job->open.path, row.name, sizeof(row.name));
    rows->n++;
    return row_fleet_job_append(&rows->frame, &row);
}

static int append_jobs(const struct jobs *jobs, const struct peer *peer, uint64_t from, struct rows *rows)
{
    uint64_t *numbers = malloc((jobs->by_id.n + 1) * sizeof(*numbers));
    size_t n = 0;
    int rc = numbers ? 0 : -ENOMEM;

    for (const struct broker_job *job = jobs->first; numbers && job; job = job->next)
        if (job->phase == BROKER_JOB_OPEN && job->id >= from && may_see(peer, job))
            numbers[n++] = job->id;
    n = numbers ? cut(numbers, n, rows) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = append_job(jobs, broker_job_find(jobs, numbers[i]), rows);
    free(numbers);
    return rc;
}

/* -- the answer -- */

static uint64_t memory_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long resident, shared;
    uint64_t pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%*u %lu %lu", &resident, &shared) == 2 && resident > shared)
        pages = resident - shared;
    (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static struct msg_fleet totals(const struct fleet *f, const struct peer *peer, uint64_t next)
{
    struct msg_fleet ret = {.next = next, .memory_bytes = memory_bytes()};
    struct core_stats stats;

    core_stats_get(f->jobs->driver->core, &stats);
    ret.uptime_ms = (uint64_t)(f->jobs->driver->now_ms - f->started_ms);
    ret.tensor_bytes = stats.reserved_bytes;
    ret.tensor_limit = stats.memory_limit;
    ret.row_bytes = stats.row_bytes;
    ret.row_limit = stats.row_limit;
    ret.n_workers = stats.n_workers;
    ret.disk_room = jobs_disk_room(f->jobs);
    for (const struct broker_job *job = f->jobs->first; job; job = job->next) {
        ret.n_jobs += job->phase == BROKER_JOB_OPEN;
        ret.n_other_jobs += job->phase == BROKER_JOB_OPEN && !may_see(peer, job);
    }
    return ret;
}

static int append_rows(const struct fleet *f, const struct peer *p, const struct msg_fleet_query *q, struct rows *rows)
{
    switch (q->what) {
    case MSG_FLEET_WORKERS:
        return append_workers(f->jobs, q->from, rows);
    case MSG_FLEET_JOBS:
        return append_jobs(f->jobs, p, q->from, rows);
    default:
        return fleet_stages_append(f->jobs, q->from, &rows->frame, &rows->n);
    }
}

void fleet_answer(const struct fleet *f, const struct peer *p, const struct msg *m)
{
    struct rows rows = {.n = 0};
    struct wire_message *answer = NULL;
    struct err err = {"no memory"};
    int rc;

    buf_init(&rows.frame, MSG_MAX_ROW_FRAME_BYTES);
    rc = append_rows(f, p, &m->fleet_query, &rows);
    if (rc == 0)
        rc = wire_message_new(MSG_FLEET, &answer);
    if (rc == 0) {
        wire_message_envelope(answer)->seq = m->seq;
        wire_message_envelope(answer)->fleet = totals(f, p, rows.next);
        rc = rows.n ? wire_message_add_rows(answer, &rows.frame, rows.n) : 0;
    }
    if (rc == 0)
        rc = broker_socket_send(f->jobs->answers->socket, p->number, &answer, &err);
    wire_message_free(answer);
    buf_release(&rows.frame);
    if (rc < 0 && rc != -EHOSTUNREACH)
        answer_refuse(f->jobs->answers, p->number, m->seq, MSG_REASON_LIMIT, "the rows cannot be sent: %s", err.text);
}
