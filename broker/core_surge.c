/* Surges of failures: a source that vanishes for a moment must not turn into a thousand records that say "missing".
 *
 * Items count in the order in which their units finish. A unit whose last items failed is held. If a good item follows,
 * they were just bad items, and the held units are committed. If failures surge, something is wrong with the source,
 * and the held units are put back as if they had never been tried. If the job limits the share of failures instead,
 * units with a larger share are held while there is room, and those still held when the limit is exceeded are put back.
 *
 * Items that were given up because several workers failed them show that something is wrong with the workers. A job
 * that lets any number of pictures in a row fail is still paused after max_given_up of those, unless it allows all of
 * its items to fail. */
#include "broker/core_job.h"

#include <stdio.h>

static bool bit(const uint64_t *mask, uint32_t i)
{
    return mask[i / 64] >> (i % 64) & 1;
}

/* Item i of the subunit is known to fail, so it says nothing about the source. */
static bool is_known_to_fail(const struct core_subunit *p, uint32_t i)
{
    return p->unit->bad && bit(p->unit->bad, p->first + i);
}

/* This many failures in a row are a surge; 0: any number may fail. */
static uint32_t most_in_row(const struct core_job *j)
{
    if (j->max_failures)
        return j->max_failures;
    return j->max_failed_per_mille >= 1000 ? 0 : j->core->limits.max_given_up;
}

/* Does item i count as a failure in a row? */
static bool counts(const struct core_subunit *p, uint32_t i)
{
    return !bit(p->alive, i) && (p->unit->job->max_failures || p->quarantined);
}

/* Count the unit's items. Returns the longest run of failures, including those of units before it. */
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

/* Held units are committed in the order in which they finished. */
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

/* Why the last item of the unit that was given up failed; NULL: none was. */
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

void core_job_reset_failures(struct core_job *j)
{
    struct core_unit *next;

    j->n_in_row = j->n_finished = j->n_failed = 0;
    /* Units of which some items have failed and others are not finished: their failures are part of the surge. */
    for (struct core_unit *u = j->by_state[CORE_UNIT_STARTED]; u; u = next) {
        next = u->next;
        if (!u->again && n_failed_items(u))
            core_unit_put_back(u);
    }
}

/* Held units take room from others: at most a quarter of the window and, if they may stay for long, a quarter of the
 * limit for rows. */
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
