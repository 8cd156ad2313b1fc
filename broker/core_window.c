/* The window of units that a job has in memory: what is loaded from the store, and when. */
#include "broker/core_job.h"

#include <errno.h>

void core_job_go_back(struct core_job *j, uint64_t unit)
{
    if (unit < j->back_from)
        j->back_from = unit;
    j->exhausted = false;
    j->added_meanwhile = j->loading;
    core_job_touch(j);
}

int core_on_units_again(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->units_again.job, &j);

    if (!j)
        return rc;
    j->done = j->done && core_planted(c, CORE_BUG_AGAIN_WHILE_DONE);
    core_job_go_back(j, e->units_again.from_unit);
    return 0;
}

int core_on_units_added(struct core *c, const struct core_event *e)
{
    struct core_job *j;
    int rc = core_job_find(c, e->job, &j);

    if (!j)
        return rc;
    j->sealed = j->sealed && core_planted(c, CORE_BUG_SEALED_FOR_GOOD);
    j->done = j->done && core_planted(c, CORE_BUG_DONE_FOR_GOOD);
    j->exhausted = false;
    j->added_meanwhile = j->loading;
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

/* The unit is in memory already: does the row name items to do that the unit in memory will not do? */
static bool has_more(const struct core_unit *u, const struct core_unit_row *r)
{
    for (uint32_t i = 0; r->is_again && i < u->n_items; i++)
        if ((r->again[i / 64] >> (i % 64) & 1) && u->again && !(u->again[i / 64] >> (i % 64) & 1))
            return true;
    return false;
}

int core_on_units(struct core *c, const struct core_event *e)
{
    struct core_job *j = core_map_get(&c->jobs_by_id, e->units.job);

    if (!j)
        return -ENOENT;
    if (j->failed)
        return 0;
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
        core_job_wake(j);
    j->loading = false;
    if (j->load_is_stale) {
        j->load_is_stale = false;
        core_job_go_back(j, j->load_from);
        return 0;
    }
    j->exhausted = e->units.exhausted && !j->added_meanwhile;
    j->added_meanwhile = false;
    core_job_touch(j);
    for (uint32_t i = 0; i < e->units.n && !j->closing; i++) {
        struct core_unit *there = core_map_get(&j->units, (uint64_t)e->units.rows[i].unit + 1);

        if (there)
            there->load_again |= has_more(there, &e->units.rows[i]) && !core_planted(c, CORE_BUG_MORE_AGAIN_FORGOTTEN);
        else if (!core_unit_new(j, &e->units.rows[i])) {
            core_break(c);
            return -ENOMEM;
        }
        j->cursor = (uint64_t)e->units.rows[i].unit + 1;
    }
    return 0;
}

void core_job_load_more(struct core_job *j)
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
