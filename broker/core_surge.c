/* Failures that surge: a source that vanishes for a moment must not become a thousand records that say "missing".
 *
 * Items count in the order in which their units finish. A unit whose last items failed is held: the next good item says
 * that they are but bad items, and they are committed; a surge says that something is wrong with the source, and they
 * are put back as if they had never been tried. Where the job asks for a share of failures instead, the units with more
 * than that are held, for as long as there is room, and those that are still held when the share is too large are put
 * back.
 *
 * Items that were given up, since one worker after the other failed them, say that something is wrong with the workers.
 * A job that lets any number of pictures in a row fail is paused for those alone, after max_given_up of them, unless
 * it says outright that all of its items may fail. */
#include "broker/core_job.h"

#include <stdio.h>

static bool bit(const uint64_t *mask, uint32_t i)
{
    return mask[i / 64] >> (i % 64) & 1;
}

/* Item i of the subunit says nothing about the source. */
static bool is_known_to_fail(const struct core_subunit *p, uint32_t i)
{
    return p->unit->bad && bit(p->unit->bad, p->first + i);
}

/* So many in a row are too many; 0: any number may. */
static uint32_t most_in_row(const struct core_job *j)
{
    if (j->max_failures)
        return j->max_failures;
    return j->max_failed_per_mille >= 1000 ? 0 : j->core->limits.max_given_up;
}

/* Does it count in a row? */
static bool counts(const struct core_subunit *p, uint32_t i)
{
    return !bit(p->alive, i) && (p->unit->job->max_failures || p->quarantined);
}

/* Count the unit's items. The most that have failed in a row, those of units before it included. */
static uint64_t count_items(struct core_unit *u)
{
    struct core_job *j = u->job;
    uint64_t most = 0;

    for (const struct core_subunit *p = u->subunits; p; p = p->next)
        for (uint32_t i = 0; i < p->count; i++) {
            const bool failed = !bit(p->alive, i);

            if (is_known_to_fail(p, i))
                continue;
            j->n_in_row = counts(p, i) ? j->n_in_row + 1 : failed ? j->n_in_row : 0;
            j->n_failed += failed;
            j->n_finished++;
            most = j->n_in_row > most ? j->n_in_row : most;
        }
    return most;
}

static bool share_is_too_large(const struct core_job *j, uint64_t n_failed, uint64_t n_finished)
{
    return j->max_failed_per_mille && n_failed * 1000 > j->max_failed_per_mille * n_finished;
}

static uint32_t n_failed_items(const struct core_unit *u)
{
    uint32_t n = 0;

    for (const struct core_subunit *p = u->subunits; p; p = p->next)
        for (uint32_t i = 0; i < p->count; i++)
            n += !bit(p->alive, i) && !is_known_to_fail(p, i);
    return n;
}

/* The oldest first: they are committed in the order in which they finished. */
static struct core_unit *oldest_held(const struct core_job *j)
{
    struct core_unit *u = j->by_state[CORE_UNIT_HELD];

    while (u && u->next)
        u = u->next;
    return u;
}

void core_job_commit_held(struct core_job *j)
{
    struct core_unit *u;

    while ((u = oldest_held(j)))
        core_unit_commit(u);
}

/* Why the last item that was given up was, as far as the unit knows. */
static const char *why_given_up(const struct core_unit *u)
{
    const struct core_subunit *last = NULL;
    char *text;

    for (const struct core_subunit *p = u->subunits; p; p = p->next)
        last = p->quarantined && p->code ? p : last;
    text = last ? core_emit_alloc(u->job->core, CORE_CODE_BYTES + CORE_TEXT_BYTES) : NULL;
    if (text)
        (void)snprintf(text, CORE_CODE_BYTES + CORE_TEXT_BYTES, "%s: %s", last->code, last->text);
    return text;
}

static void pause_job(struct core_unit *u, uint64_t n_failed, uint64_t n_finished)
{
    struct core_job *j = u->job;
    const char *why = why_given_up(u);
    struct core_action *a = core_emit(j->core, CORE_DO_JOB_PAUSED);

    a->paused.job = j->id;
    a->paused.n_failed = n_failed;
    a->paused.n_finished = n_finished;
    a->paused.given_up = why;
    j->paused = j->stopped = true;
    j->stop_told = false;
    while (j->by_state[CORE_UNIT_HELD])
        core_unit_put_back(j->by_state[CORE_UNIT_HELD]);
}

void core_job_forgive(struct core_job *j)
{
    j->n_in_row = j->n_finished = j->n_failed = 0;
}

/* They stand in the way of others: no more than a quarter of the window, nor (of those that may stay for long) of what
 * is kept of rows. */
static void hold(struct core_unit *u)
{
    struct core_job *j = u->job;
    const struct core *c = j->core;

    core_unit_set_state(u, CORE_UNIT_HELD);
    if (j->n_by_state[CORE_UNIT_HELD] > c->limits.window_units / 4 ||
        (!j->max_failures && c->row_bytes > c->limits.row_bytes / 4))
        core_unit_commit(oldest_held(j));
}

void core_unit_finished(struct core_unit *u)
{
    struct core_job *j = u->job;
    uint64_t in_row;

    core_job_touch(j);
    if (u->again || (most_in_row(j) == 0 && j->max_failed_per_mille == 0) ||
        core_planted(j->core, CORE_BUG_NEVER_PAUSE)) {
        core_unit_commit(u);
        return;
    }
    if (j->paused) {
        if (n_failed_items(u))
            core_unit_put_back(u);
        else
            core_unit_commit(u);
        return;
    }
    in_row = count_items(u);
    if (most_in_row(j) && in_row >= most_in_row(j)) {
        pause_job(u, in_row, 0);
        core_unit_put_back(u);
    } else if (j->n_finished >= CORE_SHARE_ITEMS && share_is_too_large(j, j->n_failed, j->n_finished)) {
        pause_job(u, j->n_failed, j->n_finished);
        core_unit_put_back(u);
    } else if (j->n_in_row == 0 && (j->max_failures || !share_is_too_large(j, n_failed_items(u), u->n_wanted))) {
        if (j->max_failures || j->max_failed_per_mille == 0)
            core_job_commit_held(j);
        core_unit_commit(u);
    } else {
        hold(u);
    }
}
