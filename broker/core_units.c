/* Units: made from a row of the store, moved between the lists of their job. */
#include "broker/core_private.h"

#include <stdlib.h>
#include <string.h>

struct core_unit *core_unit_new(struct core_job *j, const struct core_unit_row *row)
{
    uint32_t max_attempts = j->core->limits.max_attempts;
    const bool again = row->is_again && !j->core->faults.redo_all, bad = core_mask_count(row->bad, CORE_MASK_WORDS) > 0;
    struct core_unit *u = calloc(1, sizeof(*u) + again * sizeof(row->again) + bad * sizeof(row->bad));
    uint64_t *mask = u ? (uint64_t *)(u + 1) : NULL;

    if (!u)
        return NULL;
    if (again) {
        u->again = memcpy(mask, row->again, sizeof(row->again));
        mask += CORE_MASK_WORDS;
    }
    if (bad)
        u->bad = memcpy(mask, row->bad, sizeof(row->bad));
    u->job = j;
    u->number = row->unit;
    u->n_items = row->n_items;
    u->attempts = row->attempts;
    u->n_parts = 1;
    u->state = CORE_N_UNIT_STATES;
    u->parts = core_part_new(u, 0, u->n_items);
    if (!u->parts || core_map_put(&j->units, (uint64_t)u->number + 1, u) < 0) {
        free(u->parts);
        free(u);
        return NULL;
    }
    u->n_wanted = u->parts->n_wanted;
    core_unit_set_state(u, CORE_UNIT_WAITING);
    /* A unit that used up its attempts in an earlier life is split at once; a single item gets one more, alone, so that
     * its reason can be told. */
    if (u->attempts >= max_attempts && u->n_wanted > 1)
        return core_part_split(u->parts) ? u : NULL;
    u->parts->failures = u->attempts < max_attempts ? u->attempts : max_attempts - 1;
    core_part_ready(u->parts, false);
    return u;
}

void core_unit_free(struct core_unit *u)
{
    struct core_part *p, *next;

    if (!u)
        return;
    for (p = u->parts; p; p = next) {
        next = p->next;
        core_part_free(p);
    }
    free(u);
}

void core_unit_set_state(struct core_unit *u, enum core_unit_state state)
{
    struct core_job *j = u->job;

    if (u->state != CORE_N_UNIT_STATES) {
        if (u->prev)
            u->prev->next = u->next;
        else
            j->by_state[u->state] = u->next;
        if (u->next)
            u->next->prev = u->prev;
        j->n_by_state[u->state]--;
        j->core->n_commits -= u->state == CORE_UNIT_COMMIT;
    }
    u->state = state;
    u->prev = u->next = NULL;
    if (state != CORE_N_UNIT_STATES) {
        u->next = j->by_state[state];
        if (u->next)
            u->next->prev = u;
        j->by_state[state] = u;
        j->n_by_state[state]++;
        j->core->n_commits += state == CORE_UNIT_COMMIT;
    }
}

void core_unit_drop(struct core_unit *u)
{
    for (struct core_part *p = u->parts; p; p = p->next) {
        core_part_stop(p, false);
        core_part_unreserve(p);
    }
}
