#include "broker/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"

enum { LOAD_MAX_UNITS = 1024, LOAD_MAX_BYTES = 32 << 20, MAX_ROWS_BYTES = 128 << 20 };

const struct unit_rows *units_find(const struct broker_job *job, uint32_t unit)
{
    return core_map_get(&job->units, (uint64_t)unit + 1);
}

void units_drop(struct broker *b, struct broker_job *job, uint32_t unit)
{
    struct unit_rows *u = core_map_take(&job->units, (uint64_t)unit + 1);

    if (u)
        b->units.rows_bytes -= u->size_bytes;
    free(u);
}

void units_release(struct broker *b, struct broker_job *job)
{
    size_t at = 0;

    for (struct unit_rows *u; (u = core_map_next(&job->units, &at));) {
        b->units.rows_bytes -= u->size_bytes;
        free(u);
    }
    core_map_release(&job->units);
    b->units.n_held -= job->load_held;
}

static bool must_wait(const struct broker *b, const struct broker_job *job)
{
    struct core_job_stats stats;

    return b->units.rows_bytes >= MAX_ROWS_BYTES && core_job_stats_get(b->driver.core, job->id, &stats) == 0 &&
           stats.units_loaded > 0;
}

void units_load(struct broker *b, struct broker_job *job, uint32_t from_unit, uint32_t max_units)
{
    struct committer_request *r;

    if (must_wait(b, job)) {
        b->units.n_held += !job->load_held;
        job->load_held = true;
        job->load_from = from_unit;
        job->load_max = max_units;
        return;
    }
    r = committer_request_new(COMMITTER_LOAD, job->id, 0);
    if (r) {
        r->unit = from_unit;
        r->max_units = max_units < LOAD_MAX_UNITS ? max_units : LOAD_MAX_UNITS;
        r->max_bytes = LOAD_MAX_BYTES;
    }
    requests_post(&b->requests, r);
}

void units_load_held(struct broker *b)
{
    for (struct broker_job *job = b->units.n_held ? b->jobs.first : NULL; job; job = job->next) {
        if (!job->load_held)
            continue;
        job->load_held = false;
        b->units.n_held--;
        units_load(b, job, job->load_from, job->load_max);
    }
}

/* Rows that are there already may have changed since. */
static int keep_rows(struct broker *b, struct broker_job *job, uint32_t unit, struct unit_rows **rows)
{
    units_drop(b, job, unit);
    if (core_map_put(&job->units, (uint64_t)unit + 1, *rows) < 0)
        return -ENOMEM;
    b->units.rows_bytes += (*rows)->size_bytes;
    *rows = NULL;
    return 0;
}

void units_loaded(struct broker *b, struct broker_job *job, struct units_read *load)
{
    struct core_unit_row *rows = malloc((load->n + 1) * sizeof(*rows));
    int rc = rows ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < load->n; i++) {
        const struct store_pending *p = &load->pending[i];

        rows[i] = (struct core_unit_row){
            .unit = p->unit, .n_items = p->n_items, .attempts = p->attempts, .is_again = p->is_again};
        memcpy(rows[i].subunits, p->parts, sizeof(rows[i].subunits));
        memcpy(rows[i].again, p->again, sizeof(rows[i].again)); /* no unit here has more items */
        memcpy(rows[i].bad, p->bad, sizeof(rows[i].bad));
        rc = keep_rows(b, job, p->unit, &load->rows[i]);
    }
    if (rc < 0)
        driver_fail(&b->driver, rc, "no memory for units");
    else
        (void)driver_feed(
            &b->driver,
            &(struct core_event){
                .type = CORE_EVENT_UNITS,
                .units = {.job = job->id, .n = (uint32_t)load->n, .rows = rows, .exhausted = load->exhausted}});
    free(rows);
}
