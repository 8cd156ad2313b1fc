/* Units: made from a row of the store, kept in their job's lists by state. */
#include "broker/core_job.h"

#include <stdlib.h>
#include <string.h>

bool core_unit_is_split(const struct core_unit *u)
{
    return u->subunits->split;
}

void core_unit_describe_subunits(const struct core_unit *u, uint8_t *ret_subunits)
{
    memset(ret_subunits, 0, u->n_items);
    for (const struct core_subunit *p = u->subunits; p; p = p->next)
        ret_subunits[p->first] = (uint8_t)(1 + (p->failures < UINT8_MAX - 1 ? p->failures : UINT8_MAX - 1));
}

/* Where the subunit that begins at this item ends; *ret_failures: its failures in earlier runs of the broker. */
static uint32_t next_subunit(const struct core_unit_row *row, uint32_t first, uint32_t *ret_failures)
{
    uint32_t next = first + 1;

    while (next < row->n_items && row->subunits[next] == 0)
        next++;
    *ret_failures = row->subunits[first] ? row->subunits[first] - 1 : 0;
    if (next - first == row->n_items)
        *ret_failures = row->attempts;
    return next;
}

/* Split as it was when it was stored. A subunit without attempts left gets one more, which tells why it fails. */
static bool make_subunits(struct core_unit *u, const struct core_unit_row *row)
{
    const bool whole = core_planted(u->job->core, CORE_BUG_IGNORE_SUBUNITS);
    struct core_subunit **at = &u->subunits;

    for (uint32_t first = 0, next, failures; first < u->n_items; first = next) {
        next = next_subunit(row, first, &failures);
        if (whole)
            next = u->n_items;
        if (!core_unit_wants_any(u, first, next))
            continue;
        *at = core_subunit_new(u, first, next - first);
        if (!*at)
            return false;
        (*at)->split = next - first < u->n_items;
        if (core_planted(u->job->core, CORE_BUG_IGNORE_ATTEMPTS))
            failures = 0;
        (*at)->failures = failures < core_subunit_limit(*at) ? failures : core_subunit_limit(*at) - 1;
        u->n_wanted += (*at)->n_wanted;
        u->n_subunits++;
        at = &(*at)->next;
    }
    return true;
}

struct core_unit *core_unit_new(struct core_job *j, const struct core_unit_row *row)
{
    const bool again = row->is_again && !core_planted(j->core, CORE_BUG_REDO_ALL),
               bad = core_mask_count(row->bad, CORE_MASK_WORDS) > 0;
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
    u->picture_bytes = row->picture_bytes;
    u->state = CORE_N_UNIT_STATES;
    if (!make_subunits(u, row) || core_map_put(&j->units, (uint64_t)u->number + 1, u) < 0) {
        core_unit_free(u);
        return NULL;
    }
    core_unit_set_state(u, CORE_UNIT_WAITING);
    for (struct core_subunit *p = u->subunits; p; p = p->next)
        core_subunit_ready(p, false);
    return u;
}

void core_unit_free(struct core_unit *u)
{
    struct core_subunit *p, *next;

    if (!u)
        return;
    for (p = u->subunits; p; p = next) {
        next = p->next;
        core_subunit_free(p);
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
    for (struct core_subunit *p = u->subunits; p; p = p->next) {
        core_subunit_stop(p, false);
        core_subunit_unreserve(p);
    }
}
