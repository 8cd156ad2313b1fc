/* Units: imported little by little, and loaded from the store. */
#include "tests/simulate/world.h"

#include <string.h>

struct load {
    struct sim_job *job;
    uint32_t from, max;
    uint64_t opening; /* of the job */
    struct core_event answer;
    struct core_unit_row rows[64];
};

static void answer_load(struct world *w, void *what, uint64_t life)
{
    struct load *l = what;

    if (life != w->epoch || !w->core || shell_is_stopped(w, answer_load, what, life))
        return;
    if (l->opening != l->job->opening || !l->job->open || (l->job->failed && world_chance(w, 500)))
        return; /* the core expects no answer */
    l->job->loading = false;
    world_say(w, "units job=%llu from=%u n=%u%s", (unsigned long long)l->job->id, l->from, l->answer.units.n,
              l->answer.units.exhausted ? ", all" : "");
    shell_step(w, &l->answer);
}

bool units_row(const struct sim_unit *u, uint32_t number, struct core_unit_row *ret)
{
    *ret = (struct core_unit_row){.unit = number,
                                  .n_items = u->n_items,
                                  .attempts = u->attempts,
                                  .is_again = u->done,
                                  .picture_bytes = u->picture_bytes};
    memcpy(ret->subunits, u->subunits, u->n_items);
    for (uint32_t i = 0; i < u->n_items; i++)
        ret->again[i / 64] |= (uint64_t)u->items[i].again << (i % 64);
    return !u->done || ret->again[0] || ret->again[1];
}

/* The store is read some time before the core gets the answer. */
static void read_units(struct world *w, void *what, uint64_t life)
{
    struct load *l = what;
    struct core_event *e = &l->answer;
    uint32_t u = l->from, max = l->max;

    if (life != w->epoch || !w->core)
        return;
    if (world_chance(w, 200))
        max = 1 + (uint32_t)world_below(w, max);
    e->type = CORE_EVENT_UNITS;
    for (; u < l->job->n_imported && e->units.n < max; u++)
        if (units_row(&l->job->units[u], u, &l->rows[e->units.n]))
            e->units.n++;
    e->units.job = l->job->id;
    e->units.rows = l->rows;
    e->units.exhausted = u == l->job->n_imported;
    world_in(w, (int64_t)world_below(w, 60), answer_load, l, life);
}

void units_load(struct world *w, const struct core_action *a)
{
    struct load *l = world_alloc(w, sizeof(*l));

    *l = (struct load){.job = shell_job(w, a->load.job), .from = a->load.from_unit, .max = a->load.max};
    l->opening = l->job->opening;
    if (l->job->failed)
        world_fail(w, "units of job %llu are loaded, which has failed", (unsigned long long)l->job->id);
    if (l->job->loading || l->max == 0 || l->max > w->limits.window_units)
        world_fail(w, "two loads at once, or one of %u units", l->max);
    l->job->loading = true;
    world_say(w, "load job=%llu from=%u max=%u", (unsigned long long)l->job->id, l->from, l->max);
    world_in(w, (int64_t)world_below(w, 30), read_units, l, w->epoch);
}

/* New units have to wait. If the disk is full, the core is told. */
static bool cannot_write(struct world *w, struct sim_job *j)
{
    if (!w->core || !j->open || !(j->failed || w->disk_full))
        return false;
    if (!j->failed) {
        shell_job_event(w, CORE_EVENT_DISK_FULL, j);
        world_in(w, 200, store_try_disk, j, w->epoch);
    }
    return true;
}

void shell_import(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (shell_is_stopped(w, shell_import, job, life))
        return;
    if (j->cancelled)
        return;
    if (!w->quiet && world_chance(w, 100))
        clients_vanish(w, j);
    if (j->client_gone || cannot_write(w, j)) {
        world_in(w, 250, shell_import, j, 0);
        return;
    }
    world_fault(w, FAULT_LATE_UNITS);
    w->tally->faults[FAULT_UNSEALED] += j->sealed;
    w->tally->faults[FAULT_DONE_EXTENDED] += j->open && j->led.done;
    j->sealed = false;
    j->n_imported += 1 + (uint32_t)world_below(w, j->n_units - j->n_imported);
    shell_job_event(w, CORE_EVENT_UNITS_ADDED, j);
    if (j->n_imported == j->n_units || world_chance(w, 300)) {
        j->sealed = true;
        shell_job_event(w, CORE_EVENT_JOB_SEALED, j);
    }
    if (j->n_imported < j->n_units) /* perhaps once all others are done */
        world_in(w, 100 + (int64_t)world_below(w, j->sealed ? 40000 : 3000), shell_import, j, 0);
}
