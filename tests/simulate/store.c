/* The simulated store: checks the content of commits and keeps it. */
#include "tests/simulate/world.h"

#include <string.h>

static bool bit(const uint64_t *mask, uint32_t i)
{
    return mask[i / 64] >> (i % 64) & 1;
}

/* No more failures are committed than the job allows, and none while it is paused. */
static void check_surge(struct world *w, const struct core_commit *m, struct sim_job *j, const bool *failed)
{
    if (m->again || j->units[m->unit].asked || !(j->max_failures || j->max_failed_per_mille))
        return;
    if (j->paused && m->n_failed)
        world_fail(w, "unit %u: %u failures are written down while job %llu is paused", m->unit, m->n_failed,
                   (unsigned long long)j->id);
    for (uint32_t i = 0; i < m->n_items && !j->paused; i++) {
        j->n_in_row = failed[i] ? j->n_in_row + 1 : 0;
        if (j->max_failures && j->n_in_row >= j->max_failures)
            world_fail(w, "unit %u: %u failures in a row are written down", m->unit, j->n_in_row);
    }
}

/* COMMIT says of every item what the world knows of it. */
static void check_content(struct world *w, const struct core_commit *m, struct sim_job *j)
{
    bool failed[MAX_ITEMS] = {false};
    const struct sim_unit *u = &j->units[m->unit];
    uint32_t last = j->n_nodes - 1, n_failed = 0;
    uint32_t seen[MAX_ITEMS] = {0}; /* bit k: node k left a value; bit 8: an error; bit 9: quarantined; bit 10: an
                                       error since the source was gone */

    for (uint32_t n = 0; n < m->n_payloads; n++) {
        const struct sim_payload *p = shell_payload(w, m->payloads[n].payload);
        const struct sim_work *r = &p->work;

        if (!p->rows || r->job != j || r->unit != m->unit || r->node != m->payloads[n].node)
            world_fail(w, "unit %u: a payload that is not its own", m->unit);
        for (uint32_t i = 0; i < r->n_items; i++) {
            uint32_t item = r->items[i];

            if (!bit(m->payloads[n].items, item - m->payloads[n].first))
                world_fail(w, "unit %u: item %u is not in the mask of its payload", m->unit, item);
            if (m->again && !bit(m->again, item))
                world_fail(w, "unit %u: item %u was not to be done again", m->unit, item);
            if (!r->ok[i] && !r->gone &&
                (u->items[item].fate != FATE_ERROR || u->items[item].node != r->node || seen[item] >> 8 & 3))
                world_fail(w, "unit %u: item %u has an error that it should not have", m->unit, item);
            if (r->ok[i] && r->values[i] != world_truth(j, m->unit, item, r->node))
                world_fail(w, "unit %u: item %u has a wrong value at node %u", m->unit, item, r->node);
            seen[item] |= r->ok[i] ? 1u << r->node : r->gone ? 1u << 10 : 1u << 8;
        }
    }
    for (uint32_t n = 0; n < m->n_quarantined; n++) {
        uint32_t item = m->quarantined[n].item;

        if (item >= u->n_items || m->quarantined[n].code[0] == '\0')
            world_fail(w, "unit %u: item %u is quarantined without a reason", m->unit, item);
        if (u->items[item].fate < FATE_KILLER && !w->wild)
            world_fail(w, "unit %u: innocent item %u is quarantined (%s: %s)", m->unit, item, m->quarantined[n].code,
                       m->quarantined[n].text);
        w->tally->unlucky += u->items[item].fate < FATE_KILLER;
        w->tally->quarantined++;
        seen[item] |= 1u << 9;
    }
    for (uint32_t i = 0; i < u->n_items; i++) {
        bool good = u->items[i].fate == FATE_GOOD;

        if (m->again && !bit(m->again, i))
            continue;
        n_failed += seen[i] >> 8 != 0;
        failed[i] = seen[i] >> 8 != 0;
        if (!(seen[i] >> 9) && (good ? !(seen[i] >> last & 1) || seen[i] >> 8 : seen[i] >> 8 != 1))
            world_fail(w, "unit %u: item %u ends as 0x%x, its fate is %d", m->unit, i, seen[i], u->items[i].fate);
    }
    if (n_failed != m->n_failed || m->n_items != u->n_items)
        world_fail(w, "unit %u: %u failed of %u, but %u are said", m->unit, n_failed, u->n_items, m->n_failed);
    check_surge(w, m, j, failed);
}

struct commit {
    struct sim_job *job;
    uint32_t unit, attempts;
    uint64_t opening; /* of the job */
    bool ok, is_again;
    bool again[MAX_ITEMS];
    uint8_t subunits[MAX_ITEMS];
};

void store_try_disk(struct world *w, void *job, uint64_t life)
{
    if (life == w->epoch && !shell_is_stopped(w, store_try_disk, job, life))
        shell_job_event(w, CORE_EVENT_DISK_OK, job);
}

static void answer_commit(struct world *w, void *what, uint64_t life)
{
    const struct commit *m = what;
    struct core_event e = {.type = m->ok ? CORE_EVENT_COMMITTED : CORE_EVENT_COMMIT_FAILED};

    if (life != w->epoch || !w->core) {
        w->tally->faults[FAULT_ANSWER_CUT] += m->ok;
        return;
    }
    if (shell_is_stopped(w, answer_commit, what, life))
        return;
    if (m->opening != m->job->opening || !m->job->open || (m->job->failed && world_chance(w, 500)))
        return; /* the core expects no answer */
    if (!m->job->failed) {
        m->job->units[m->unit].commit_pending = false;
        w->n_commits--;
    }
    e.commit.job = m->job->id;
    e.commit.unit = m->unit;
    if (!m->ok)
        world_in(w, 200, store_try_disk, m->job, life);
    shell_step(w, &e);
}

static void apply_commit(struct world *w, void *what, uint64_t life)
{
    struct commit *m = what;
    struct sim_unit *u = &m->job->units[m->unit];

    if (life != w->epoch || !w->core) {
        world_fault(w, FAULT_COMMIT_CUT);
        return;
    }
    m->ok = !w->disk_full;
    if (m->ok) {
        if (u->done && !m->is_again)
            world_fail(w, "unit %u is committed twice", m->unit);
        for (uint32_t i = 0; i < u->n_items; i++)
            u->items[i].again = u->items[i].again && !m->again[i];
        w->tally->items += u->done ? 0 : u->n_items;
        u->done = true;
    }
    if (!w->quiet && world_chance(w, 15)) /* before the answer */
        world_in(w, 0, shell_cut_off, NULL, w->epoch);
    world_in(w, (int64_t)world_below(w, 20), answer_commit, m, life);
}

void store_commit(struct world *w, const struct core_commit *a)
{
    struct sim_job *j = shell_job(w, a->job);
    struct commit *m = world_alloc(w, sizeof(*m));

    if (j->failed)
        world_fail(w, "unit %u is committed, and job %llu has failed", a->unit, (unsigned long long)j->id);
    if (a->unit >= j->n_imported || j->units[a->unit].done != (a->again != NULL) || j->units[a->unit].commit_pending)
        world_fail(w, "unit %u: a second COMMIT", a->unit);
    check_content(w, a, j);
    world_say(w, "commit job=%llu unit=%u failed=%u", (unsigned long long)a->job, a->unit, a->n_failed);
    j->units[a->unit].commit_pending = j->units[a->unit].asked = true;
    w->n_commits++;
    *m = (struct commit){.job = j, .unit = a->unit, .opening = j->opening, .is_again = a->again != NULL};
    for (uint32_t i = 0; i < a->n_items; i++)
        m->again[i] = a->again && bit(a->again, i);
    world_in(w, (int64_t)world_below(w, 40), apply_commit, m, w->epoch);
    if (!w->quiet && world_chance(w, 10))
        world_in(w, (int64_t)world_below(w, 20), shell_cut_off, NULL, w->epoch);
}

static void apply_attempts(struct world *w, void *what, uint64_t life)
{
    const struct commit *m = what;

    if (life == w->epoch && w->core && m->attempts > m->job->units[m->unit].attempts) { /* in their order */
        m->job->units[m->unit].attempts = m->attempts;
        memcpy(m->job->units[m->unit].subunits, m->subunits, sizeof(m->subunits));
    }
}

void store_attempts(struct world *w, const struct core_action *a)
{
    struct commit *m = world_alloc(w, sizeof(*m));

    *m = (struct commit){
        .job = shell_job(w, a->attempts.job), .unit = a->attempts.unit, .attempts = a->attempts.attempts};
    if (m->job->failed)
        world_fail(w, "attempts of unit %u are written, and its job has failed", m->unit);
    if (m->attempts != m->job->units[m->unit].attempts_asked + 1 && !w->ledger.vague)
        world_fail(w, "unit %u: attempts go from %u to %u", m->unit, m->job->units[m->unit].attempts_asked,
                   m->attempts);
    m->job->units[m->unit].attempts_asked = m->attempts;
    if (a->attempts.subunits)
        memcpy(m->subunits, a->attempts.subunits, a->attempts.n_items);
    world_in(w, (int64_t)world_below(w, 40), apply_attempts, m, w->epoch);
}
