/* Subunits: their memory, their way through the graph, their splitting. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <assert.h>
#include <stdlib.h>

/* -- masks -- */

static void mask_fill(uint64_t *m, uint32_t n_bits)
{
    for (uint32_t i = 0; n_bits > 0; i++, n_bits -= n_bits < 64 ? n_bits : 64)
        m[i] = n_bits >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n_bits) - 1;
}

uint32_t core_mask_count(const uint64_t *m, uint32_t n_words)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_words; i++)
        n += (uint32_t)__builtin_popcountll(m[i]);
    return n;
}

/* -- memory -- */

void core_subunit_reserve(struct core_subunit *p)
{
    struct core_job *j = p->unit->job;

    assert(!p->is_reserved);
    p->is_reserved = true;
    p->reserved_bytes = core_subunit_need(p);
    p->reserved_row_bytes = j->row_bytes * p->n_wanted;
    j->n_reserved++;
    j->core->n_reserved++;
    j->core->reserved_bytes += p->reserved_bytes;
    j->core->reserved_row_bytes += p->reserved_row_bytes;
}

void core_subunit_unreserve(struct core_subunit *p)
{
    struct core_job *j = p->unit->job;

    if (!p->is_reserved)
        return;
    p->is_reserved = false;
    j->n_reserved--;
    j->core->n_reserved--;
    j->core->reserved_bytes -= p->reserved_bytes;
    j->core->reserved_row_bytes -= p->reserved_row_bytes;
    p->reserved_bytes = p->reserved_row_bytes = 0;
    core_job_touch(j);
}

void core_task_drop_payload(struct core_task *t)
{
    struct core *c = core_of_subunit(t->subunit);

    if (t->payload == 0)
        return;
    core_map_take(&c->payloads, t->payload);
    core_emit_id(c, CORE_DO_DROP_PAYLOAD, t->payload);
    if (core_planted(c, CORE_BUG_DROP_TWICE) && t->has_rows)
        core_emit_id(c, CORE_DO_DROP_PAYLOAD, t->payload);
    c->row_bytes -= t->row_bytes;
    t->row_bytes = 0;
    t->payload = 0;
    t->has_tensors = t->has_rows = false;
}

void core_task_drop_tensors(struct core_task *t)
{
    if (!t->has_tensors)
        return;
    t->has_tensors = false;
    if (t->has_rows)
        core_emit_id(core_of_subunit(t->subunit), CORE_DO_DROP_TENSORS, t->payload);
    else
        core_task_drop_payload(t);
}

/* -- making and unmaking -- */

static bool is_wanted(const struct core_unit *u, uint32_t item)
{
    return !u->again || (u->again[item / 64] >> (item % 64) & 1);
}

bool core_unit_wants_any(const struct core_unit *u, uint32_t first, uint32_t end)
{
    while (first < end && !is_wanted(u, first))
        first++;
    return first < end;
}

/* No node has failed any item yet. */
static void subunit_revive(struct core_subunit *p)
{
    const struct core_unit *u = p->unit;

    mask_fill(p->alive, p->count);
    for (uint32_t i = 0; i < p->count; i++)
        if (!is_wanted(u, p->first + i))
            p->alive[i / 64] &= ~((uint64_t)1 << (i % 64));
    p->n_alive = p->n_wanted = core_mask_count(p->alive, p->n_words);
}

/* A subunit begins and ends with a wanted item: one of a single item is wanted, one of several has at least two. */
struct core_subunit *core_subunit_new(struct core_unit *u, uint32_t first, uint32_t count)
{
    uint32_t n_nodes = u->job->n_nodes, n_words;
    size_t masks_at = sizeof(struct core_subunit) + n_nodes * sizeof(struct core_task);
    struct core_subunit *p;
    uint64_t *mask;

    for (; !is_wanted(u, first); first++)
        count--;
    while (!is_wanted(u, first + count - 1))
        count--;
    n_words = (count + 63) / 64;
    p = calloc(1, masks_at + (1 + 2 * n_nodes) * n_words * sizeof(uint64_t));
    if (!p)
        return NULL;
    mask = (uint64_t *)((char *)p + masks_at);
    p->unit = u;
    p->first = first;
    p->count = count;
    p->n_words = n_words;
    p->alive = mask;
    subunit_revive(p);
    for (uint32_t k = 0; k < n_nodes; k++) {
        p->tasks[k] = (struct core_task){.subunit = p, .node = k, .queue = CORE_QUEUE_NONE};
        p->tasks[k].rows = mask += n_words;
        p->tasks[k].ok = mask += n_words;
    }
    return p;
}

void core_subunit_free(struct core_subunit *p)
{
    free(p->code);
    free(p);
}

/* A single item may fail max_attempts times. Several items that failed together are suspect, run exclusively, and are
 * split as soon as they fail once more. */
uint32_t core_subunit_limit(const struct core_subunit *p)
{
    const uint32_t max_attempts = core_of_subunit(p)->limits.max_attempts;

    if (p->count == 1)
        return max_attempts - core_planted(core_of_subunit(p), CORE_BUG_QUARANTINE_EARLY);
    return p->split || max_attempts == 1 ? 1 : 2;
}

/* -- on their way -- */

void core_subunit_ready(struct core_subunit *p, bool front)
{
    uint32_t done = 0;

    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        done |= (uint32_t)(p->tasks[k].state == CORE_TASK_DONE) << k;
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        if (p->tasks[k].state == CORE_TASK_WAITING && (p->unit->job->nodes[k].spec.needs & ~done) == 0)
            core_queue_push(&p->tasks[k], front);
}

void core_subunit_stop(struct core_subunit *p, bool keep_rows)
{
    struct core *c = core_of_subunit(p);

    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++) {
        struct core_task *t = &p->tasks[k];

        if (t->state == CORE_TASK_READY)
            core_queue_remove(t);
        if (t->state == CORE_TASK_LEASED)
            core_lease_end(c, t->lease);
        if (keep_rows)
            core_task_drop_tensors(t);
        else
            core_task_drop_payload(t);
    }
}

void core_subunit_restart(struct core_subunit *p)
{
    core_subunit_stop(p, false);
    core_subunit_unreserve(p);
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        p->tasks[k].state = CORE_TASK_WAITING;
    p->n_done = 0;
    subunit_revive(p);
    core_subunit_ready(p, true);
}

/* Where the k-th of n pieces ends, counted within the unit. Their numbers of wanted items differ by one at most. */
static uint32_t piece_end(const struct core_subunit *p, uint32_t k, uint32_t n)
{
    uint32_t n_before = (k + 1) * p->n_wanted / n, at = p->first;

    for (uint32_t seen = 0; seen < n_before; at++)
        seen += is_wanted(p->unit, at);
    return at;
}

bool core_subunit_split(struct core_subunit *p)
{
    struct core_unit *u = p->unit;
    const uint32_t n = p->n_wanted < CORE_PIECES ? p->n_wanted : CORE_PIECES;
    struct core_subunit *pieces[CORE_PIECES], **at = &u->subunits;

    for (uint32_t k = 0, first = p->first; k < n; k++) {
        pieces[k] = core_subunit_new(u, first, piece_end(p, k, n) - first);
        if (!pieces[k]) {
            while (k > 0)
                core_subunit_free(pieces[--k]);
            return false;
        }
        pieces[k]->split = true;
        pieces[k]->failed_before = p->failed_before;
        first = piece_end(p, k, n);
    }
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    for (uint32_t k = n; k > 0; k--) {
        pieces[k - 1]->next = *at;
        *at = pieces[k - 1];
    }
    u->n_subunits += n - 1;
    core_subunit_free(p);
    for (uint32_t k = n; k > 0; k--)
        core_subunit_ready(pieces[k - 1], true);
    return true;
}
