#include "broker/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LOAD_MAX_UNITS = 1024, LOAD_MAX_BYTES = 32 << 20, MAX_ROWS_BYTES = 128 << 20 };

const struct unit_rows *units_find(const struct job_units *of, uint32_t unit)
{
    return core_map_get(&of->by_number, (uint64_t)unit + 1);
}

void units_drop(struct units *all, struct job_units *of, uint32_t unit)
{
    struct unit_rows *u = core_map_take(&of->by_number, (uint64_t)unit + 1);

    if (u)
        all->rows_bytes -= u->size_bytes;
    free(u);
}

static void stop_waiting(struct units *all, struct job_units *of)
{
    struct job_units **link = &all->first_waiting;

    if (!of->waits)
        return;
    while (*link != of)
        link = &(*link)->next_waiting;
    *link = of->next_waiting;
    of->waits = false;
}

void units_release(struct units *all, struct job_units *of)
{
    size_t at = 0;

    for (struct unit_rows *u; (u = core_map_next(&of->by_number, &at));) {
        all->rows_bytes -= u->size_bytes;
        free(u);
    }
    core_map_release(&of->by_number);
    stop_waiting(all, of);
}

static bool must_wait(const struct units *all, const struct job_units *of)
{
    struct core_job_stats stats;

    return all->rows_bytes >= MAX_ROWS_BYTES && core_job_stats_get(all->driver->core, of->job, &stats) == 0 &&
           stats.units_loaded > 0;
}

void units_load(struct units *all, struct job_units *of, uint32_t from, uint32_t max)
{
    struct committer_request *r;

    of->from = from;
    of->max = max;
    if (must_wait(all, of)) {
        if (!of->waits) {
            of->next_waiting = all->first_waiting;
            all->first_waiting = of;
        }
        of->waits = true;
        return;
    }
    r = committer_request_new(COMMITTER_LOAD, of->job, 0);
    if (r) {
        r->unit = from;
        r->max_units = max < LOAD_MAX_UNITS ? max : LOAD_MAX_UNITS;
        r->max_bytes = LOAD_MAX_BYTES;
    }
    requests_post(all->requests, r);
}

void units_load_waiting(struct units *all)
{
    struct job_units *of = all->first_waiting;

    all->first_waiting = NULL;
    for (struct job_units *next; of; of = next) {
        next = of->next_waiting;
        of->waits = false;
        units_load(all, of, of->from, of->max);
    }
}

void units_load_pushed(struct units *all, struct job_units *of)
{
    if (!of->awaits_pictures)
        return;
    of->awaits_pictures = false;
    units_load(all, of, of->from, of->max);
}

void units_await_no_more(struct units *all, struct job_units *of)
{
    if (!of->awaits_pictures)
        return;
    of->awaits_pictures = false;
    driver_feed_later(all->driver, &(struct core_event){.type = CORE_EVENT_UNITS, .units = {.job = of->job}});
}

/* Rows that are there already may have changed since. */
static int keep_rows(struct units *all, struct job_units *of, uint32_t unit, struct unit_rows **rows)
{
    units_drop(all, of, unit);
    if (core_map_put(&of->by_number, (uint64_t)unit + 1, *rows) < 0)
        return -ENOMEM;
    all->rows_bytes += (*rows)->size_bytes;
    *rows = NULL;
    return 0;
}

void units_loaded(struct units *all, struct job_units *of, struct units_read *load)
{
    struct core_unit_row *rows;
    int rc;

    if (load->waits && load->n == 0) {
        of->awaits_pictures = true;
        return;
    }
    rows = malloc((load->n + 1) * sizeof(*rows));
    rc = rows ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < load->n; i++) {
        const struct store_pending *p = &load->pending[i];

        rows[i] = (struct core_unit_row){.unit = p->unit,
                                         .n_items = p->n_items,
                                         .attempts = p->attempts,
                                         .is_again = p->is_again,
                                         .picture_bytes = load->rows[i]->picture_bytes};
        memcpy(rows[i].subunits, p->parts, sizeof(rows[i].subunits));
        memcpy(rows[i].again, p->again, sizeof(rows[i].again)); /* no unit here has more items */
        memcpy(rows[i].bad, p->bad, sizeof(rows[i].bad));
        rc = keep_rows(all, of, p->unit, &load->rows[i]);
    }
    if (rc < 0)
        driver_fail(all->driver, rc, "no memory for units");
    else
        (void)driver_feed(
            all->driver,
            &(struct core_event){
                .type = CORE_EVENT_UNITS,
                .units = {.job = of->job, .n = (uint32_t)load->n, .rows = rows, .exhausted = load->exhausted}});
    free(rows);
}
