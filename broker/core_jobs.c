/* Jobs: the window of units, commits, and the states of a job. */
#include "broker/core_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_PRIORITY = 100 };

void core_job_touch(struct core_job *j)
{
    if (j->touched)
        return;
    j->touched = true;
    j->next_touched = j->core->touched;
    j->core->touched = j;
}

static void prepare_nodes(struct core_job *j, const struct core_node *nodes)
{
    for (uint32_t i = 0; i < j->n_nodes; i++) {
        struct core_job_node *n = &j->nodes[i];

        n->spec = nodes[i];
        n->row_bytes = nodes[i].row_bytes;
        j->row_bytes += n->row_bytes;
        n->any_fingerprint = fingerprint_is_none(&n->spec.fingerprint);
        for (uint32_t k = 0; k < i; k++) {
            if (!(n->spec.needs >> k & 1))
                continue;
            j->nodes[k].consumers |= 1u << i;
            n->in_bytes += nodes[k].out_bytes;
        }
    }
    for (uint32_t i = j->n_nodes; i-- > 0;)
        for (uint32_t k = i + 1; k < j->n_nodes; k++)
            if ((j->nodes[i].consumers >> k & 1) && j->nodes[k].rank + 1 > j->nodes[i].rank)
                j->nodes[i].rank = j->nodes[k].rank + 1;
    j->peak_bytes = core_graph_peak_bytes(nodes, j->n_nodes);
}

int core_job_open(struct core *c, const struct core_event *e)
{
    struct core_job *j;

    if (e->job_open.job == 0 || core_graph_check(e->job_open.nodes, e->job_open.n_nodes, NULL) < 0)
        return -EINVAL;
    if (core_map_get(&c->jobs_by_id, e->job_open.job))
        return -EEXIST;
    if (c->n_jobs == c->limits.max_jobs)
        return -ENOSPC;
    j = calloc(1, sizeof(*j));
    if (!j || core_map_put(&c->jobs_by_id, e->job_open.job, j) < 0) {
        free(j);
        core_break(c);
        return -ENOMEM;
    }
    j->core = c;
    j->id = e->job_open.job;
    j->priority = e->job_open.priority ? e->job_open.priority : DEFAULT_PRIORITY;
    j->pass = c->vtime;
    j->n_nodes = e->job_open.n_nodes;
    j->sealed = e->job_open.sealed;
    j->stopped = e->job_open.stopped;
    j->max_failures = e->job_open.max_failures;
    j->max_failed_per_mille = e->job_open.max_failed_per_mille;
    j->back_from = UINT64_MAX;
    prepare_nodes(j, e->job_open.nodes);
    c->jobs[c->n_jobs++] = j;
    core_job_touch(j);
    return 0;
}

void core_job_free(struct core_job *j)
{
    for (size_t i = 0; i < j->units.capacity; i++)
        core_unit_free(j->units.slots[i].value);
    core_map_release(&j->units);
    free(j);
}

/* A job that rested does not catch up on what it missed. */
static void job_wake(struct core_job *j)
{
    if (j->pass < j->core->vtime)
        j->pass = j->core->vtime;
    core_job_touch(j);
}

/* -- the window of units ------------------------------------------------------------------------------------------- */

/* Units before the cursor are looked at again, from this one on. */
static void go_back(struct core_job *j, uint64_t unit)
{
    if (unit < j->back_from)
        j->back_from = unit;
    j->exhausted = false;
    j->added_meanwhile = j->loading;
    core_job_touch(j);
}

int core_job_units_again(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->units_again.job);

    if (!j || j->closing)
        return -ENOENT;
    j->done = false;
    go_back(j, e->units_again.from_unit);
    return 0;
}

static bool makes_sense(const struct core_unit_row *r)
{
    uint32_t last = 0, n = 0;

    if (r->n_items == 0 || r->n_items > CORE_MAX_UNIT_ITEMS)
        return false;
    for (uint32_t i = 0; r->is_again && i < CORE_MAX_UNIT_ITEMS; i++)
        if (r->again[i / 64] >> (i % 64) & 1) {
            last = i;
            n++;
        }
    return !r->is_again || (n > 0 && last < r->n_items);
}

/* Where the store was asked again for what is in memory already: are there items that this unit will not do? */
static bool has_more(const struct core_unit *u, const struct core_unit_row *r)
{
    for (uint32_t i = 0; r->is_again && i < u->n_items; i++)
        if ((r->again[i / 64] >> (i % 64) & 1) && u->again && !(u->again[i / 64] >> (i % 64) & 1))
            return true;
    return false;
}

int core_job_units(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->units.job);

    if (!j)
        return -ENOENT;
    for (uint32_t i = 0; i < e->units.n; i++) {
        const struct core_unit_row *r = &e->units.rows[i];

        if (!makes_sense(r) || (i > 0 && r->unit <= r[-1].unit))
            return -EINVAL;
    }
    if (!j->loading || (e->units.n && e->units.rows[0].unit < j->cursor) || e->units.n > c->limits.window_units) {
        c->counters.dropped_bad++;
        return -EINVAL;
    }
    if (j->n_by_state[CORE_UNIT_WAITING] == 0)
        job_wake(j);
    j->loading = false;
    if (j->load_is_stale) {
        j->load_is_stale = false;
        go_back(j, j->load_from);
        return 0;
    }
    j->exhausted = e->units.exhausted && !j->added_meanwhile;
    j->added_meanwhile = false;
    core_job_touch(j);
    for (uint32_t i = 0; i < e->units.n && !j->closing; i++) {
        struct core_unit *there = core_map_get(&j->units, (uint64_t)e->units.rows[i].unit + 1);

        if (there)
            there->load_again |= has_more(there, &e->units.rows[i]);
        else if (!core_unit_new(j, &e->units.rows[i])) {
            core_break(c);
            return -ENOMEM;
        }
        j->cursor = (uint64_t)e->units.rows[i].unit + 1;
    }
    return 0;
}

static void load_more(struct core_job *j)
{
    uint32_t window = j->core->limits.window_units;
    struct core_action *a;

    if (j->loading || j->exhausted || j->closing || j->stopped || j->core->shutdown || j->units.n > window / 2)
        return;
    j->loading = true;
    if (j->back_from < j->cursor)
        j->cursor = j->back_from;
    j->back_from = UINT64_MAX;
    j->load_from = (uint32_t)j->cursor;
    a = core_emit(j->core, CORE_DO_LOAD_UNITS);
    a->load.job = j->id;
    a->load.from_unit = j->load_from;
    a->load.max = window - (uint32_t)j->units.n;
}

/* -- commits ------------------------------------------------------------------------------------------------------- */

static void count_rows(const struct core_unit *u, uint32_t *ret_payloads, uint32_t *ret_quarantined,
                       uint32_t *ret_failed)
{
    uint32_t n_payloads = 0, n_quarantined = 0, n_failed = 0;

    for (const struct core_subunit *p = u->subunits; p; p = p->next) {
        n_quarantined += p->quarantined ? p->count : 0;
        n_failed += p->n_wanted - p->n_alive;
        for (uint32_t k = 0; k < u->job->n_nodes; k++)
            n_payloads += p->tasks[k].has_rows;
    }
    *ret_payloads = n_payloads;
    *ret_quarantined = n_quarantined;
    *ret_failed = n_failed;
}

static void emit_commit(struct core_unit *u)
{
    struct core *c = u->job->core;
    uint32_t n_payloads, n_quarantined, n_failed, np = 0, nq = 0;
    struct core_commit_payload *payloads;
    struct core_quarantined *quarantined;
    struct core_commit *m;

    count_rows(u, &n_payloads, &n_quarantined, &n_failed);
    payloads = core_emit_alloc(c, (n_payloads + 1) * sizeof(payloads[0]));
    quarantined = core_emit_alloc(c, (n_quarantined + 1) * sizeof(quarantined[0]));
    if (!payloads || !quarantined)
        return;
    for (const struct core_subunit *p = u->subunits; p; p = p->next) {
        for (uint32_t i = 0; p->quarantined && i < p->count; i++)
            quarantined[nq++] = (struct core_quarantined){p->first + i, p->code ? p->code : "", p->text ? p->text : ""};
        for (uint32_t k = 0; k < u->job->n_nodes; k++) {
            const struct core_task *t = &p->tasks[k];

            if (t->has_rows)
                payloads[np++] = (struct core_commit_payload){t->payload, k, p->first, p->count, t->n_rows, t->rows};
        }
    }
    m = &core_emit(c, CORE_DO_COMMIT)->commit;
    *m = (struct core_commit){
        .job = u->job->id,
        .unit = u->number,
        .n_items = u->n_items,
        .n_failed = n_failed,
        .attempts = u->attempts,
        .n_payloads = n_payloads,
        .n_quarantined = n_quarantined,
        .payloads = payloads,
        .quarantined = quarantined,
        .again = u->again,
    };
}

void core_unit_commit(struct core_unit *u)
{
    core_unit_set_state(u, CORE_UNIT_COMMIT);
    emit_commit(u);
    if (core_planted(u->job->core, CORE_BUG_COMMIT_TWICE))
        emit_commit(u);
}

static void unit_finish(struct core_unit *u)
{
    struct core_job *j = u->job;

    if (u->load_again)
        go_back(j, u->number);
    core_unit_drop(u);
    core_map_take(&j->units, (uint64_t)u->number + 1);
    core_unit_set_state(u, CORE_N_UNIT_STATES);
    core_unit_free(u);
    core_job_touch(j);
}

void core_unit_put_back(struct core_unit *u)
{
    u->load_again = !core_planted(u->job->core, CORE_BUG_FORGET_PUT_BACK);
    unit_finish(u);
}

static void count_done(struct core_job *j, const struct core_unit *u)
{
    uint32_t n_payloads, n_quarantined, n_failed;

    count_rows(u, &n_payloads, &n_quarantined, &n_failed);
    j->units_done++;
    j->items_done += u->n_wanted;
    j->items_failed += core_planted(j->core, CORE_BUG_ERRORS_NOT_FAILED) ? n_quarantined : n_failed;
    j->items_quarantined += n_quarantined;
    j->core->counters.quarantined += n_quarantined;
}

void core_job_commit_answer(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->commit.job);
    struct core_unit *u = j ? core_map_get(&j->units, (uint64_t)e->commit.unit + 1) : NULL;

    if (!u || u->state != CORE_UNIT_COMMIT) {
        c->counters.dropped_bad++;
        return;
    }
    if (e->type == CORE_EVENT_COMMITTED) {
        count_done(j, u);
        j->load_is_stale |= j->loading && u->number >= j->load_from && !core_planted(c, CORE_BUG_STALE_LOAD);
        unit_finish(u);
    } else if (j->closing) {
        unit_finish(u);
    } else {
        j->blocked = true;
        core_unit_set_state(u, CORE_UNIT_COMMIT_FAILED);
        core_job_touch(j);
    }
}

static void disk_ok(struct core_job *j)
{
    struct core_unit *u;

    if (!j->blocked || j->closing)
        return;
    j->blocked = false;
    job_wake(j);
    while ((u = j->by_state[CORE_UNIT_COMMIT_FAILED]))
        core_unit_commit(u);
}

/* -- states -------------------------------------------------------------------------------------------------------- */

static void job_close(struct core_job *j)
{
    static const enum core_unit_state gone[] = {CORE_UNIT_WAITING, CORE_UNIT_STARTED, CORE_UNIT_COMMIT_FAILED,
                                                CORE_UNIT_HELD};
    struct core_unit *u;

    j->closing = true;
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
        while ((u = j->by_state[gone[i]]))
            unit_finish(u);
    core_job_touch(j);
}

int core_job_event(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->job);

    if (e->type == CORE_EVENT_DISK_OK && e->job == 0) {
        for (uint32_t i = 0; i < c->n_jobs; i++)
            disk_ok(c->jobs[i]);
        return 0;
    }
    if (!j || (j->closing && e->type == CORE_EVENT_JOB_CLOSE))
        return -ENOENT;
    core_job_touch(j);
    switch (e->type) {
    case CORE_EVENT_JOB_START:
        if (j->stopped)
            job_wake(j);
        if (j->paused)
            core_job_forgive(j);
        j->stopped = j->stop_told = j->paused = false;
        break;
    case CORE_EVENT_JOB_STOP:
        j->stopped = true;
        j->stop_told = false;
        break;
    case CORE_EVENT_JOB_CLOSE:
        job_close(j);
        break;
    case CORE_EVENT_JOB_SEALED:
        j->sealed = true;
        break;
    case CORE_EVENT_UNITS_ADDED:
        j->sealed = j->done = false;
        j->exhausted = false;
        j->added_meanwhile = j->loading;
        break;
    case CORE_EVENT_DISK_OK:
        disk_ok(j);
        break;
    default:
        assert(!"not an event of a job");
    }
    return 0;
}

/* Nothing will come that could tell whether failures surge. */
static bool nothing_follows(const struct core_job *j)
{
    if (j->stopped)
        return j->n_leases == 0 && j->n_reserved == 0;
    return j->exhausted && !j->loading && j->n_by_state[CORE_UNIT_WAITING] == 0 &&
           j->n_by_state[CORE_UNIT_STARTED] == 0;
}

/* True: the job is gone. */
static bool job_settle(struct core_job *j)
{
    struct core *c = j->core;
    bool in_flight;

    if (!j->closing && nothing_follows(j))
        core_job_commit_held(j);
    in_flight = j->n_by_state[CORE_UNIT_COMMIT] > 0 ||
                ((j->n_leases > 0 || (j->n_reserved > 0 && !c->shutdown)) && !core_planted(c, CORE_BUG_STOPPED_EARLY));
    if (j->closing) {
        if (j->units.n > 0 || j->loading)
            return false;
        core_emit_id(c, CORE_DO_JOB_CLOSED, j->id);
        return true;
    }
    load_more(j);
    if (!j->done && (j->sealed || core_planted(c, CORE_BUG_DONE_UNSEALED)) && j->exhausted && !j->loading &&
        j->units.n == 0) {
        j->done = true;
        core_emit_id(c, CORE_DO_JOB_DONE, j->id);
    }
    if (j->stopped && !j->stop_told && !in_flight) {
        j->stop_told = true;
        core_emit_id(c, CORE_DO_JOB_STOPPED, j->id);
    }
    return false;
}

void core_jobs_settle(struct core *c)
{
    struct core_job *j;

    while ((j = c->touched)) {
        c->touched = j->next_touched;
        j->touched = false;
        if (!job_settle(j))
            continue;
        for (uint32_t i = 0; i < c->n_jobs; i++)
            if (c->jobs[i] == j)
                c->jobs[i] = c->jobs[--c->n_jobs];
        core_map_take(&c->jobs_by_id, j->id);
        core_job_free(j);
    }
}
