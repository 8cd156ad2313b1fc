/* Units and their parts: what a result, a failure or a loss does to them. */
#include "broker/core_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* -- masks --------------------------------------------------------------------------------------------------------- */

static void mask_fill(uint64_t *m, uint32_t n_bits)
{
    for (uint32_t i = 0; n_bits > 0; i++, n_bits -= n_bits < 64 ? n_bits : 64)
        m[i] = n_bits >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n_bits) - 1;
}

static uint32_t mask_count(const uint64_t *m, uint32_t n_words)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_words; i++)
        n += (uint32_t)__builtin_popcountll(m[i]);
    return n;
}

/* -- payloads ------------------------------------------------------------------------------------------------------ */

static struct core *core_of(const struct core_part *p)
{
    return p->unit->job->core;
}

static void drop_payload(struct core_task *t)
{
    struct core *c = core_of(t->part);

    if (t->payload == 0)
        return;
    core_map_take(&c->payloads, t->payload);
    core_emit_id(c, CORE_DO_DROP_PAYLOAD, t->payload);
    if (c->faults.drop_twice && t->has_rows)
        core_emit_id(c, CORE_DO_DROP_PAYLOAD, t->payload);
    c->row_bytes -= t->row_bytes;
    t->row_bytes = 0;
    t->payload = 0;
    t->has_tensors = t->has_rows = false;
}

static void drop_tensors(struct core_task *t)
{
    if (!t->has_tensors)
        return;
    t->has_tensors = false;
    if (t->has_rows)
        core_emit_id(core_of(t->part), CORE_DO_DROP_TENSORS, t->payload);
    else
        drop_payload(t);
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

void core_part_reserve(struct core_part *p)
{
    struct core_job *j = p->unit->job;

    assert(!p->is_reserved);
    p->is_reserved = true;
    p->reserved_bytes = j->peak_bytes * p->n_wanted;
    p->reserved_row_bytes = j->row_bytes * p->n_wanted;
    j->n_reserved++;
    j->core->n_reserved++;
    j->core->reserved_bytes += p->reserved_bytes;
    j->core->reserved_row_bytes += p->reserved_row_bytes;
}

static void part_unreserve(struct core_part *p)
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

/* -- making and unmaking ------------------------------------------------------------------------------------------- */

static bool is_wanted(const struct core_unit *u, uint32_t item)
{
    return !u->again || (u->again[item / 64] >> (item % 64) & 1);
}

/* No node has failed any item yet. */
static void part_revive(struct core_part *p)
{
    const struct core_unit *u = p->unit;

    mask_fill(p->alive, p->count);
    for (uint32_t i = 0; i < p->count; i++)
        if (!is_wanted(u, p->first + i))
            p->alive[i / 64] &= ~((uint64_t)1 << (i % 64));
    p->n_alive = p->n_wanted = mask_count(p->alive, p->n_words);
}

/* Of these items of the unit, from the first to the last that is wanted; there is one. So a part of one item is wanted,
 * and one of several has several that are. */
static struct core_part *part_new(struct core_unit *u, uint32_t first, uint32_t count)
{
    uint32_t n_nodes = u->job->n_nodes, n_words;
    size_t masks_at = sizeof(struct core_part) + n_nodes * sizeof(struct core_task);
    struct core_part *p;
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
    part_revive(p);
    for (uint32_t k = 0; k < n_nodes; k++) {
        p->tasks[k] = (struct core_task){.part = p, .node = k, .queue = CORE_QUEUE_NONE};
        p->tasks[k].rows = mask += n_words;
        p->tasks[k].ok = mask += n_words;
    }
    return p;
}

static void part_free(struct core_part *p)
{
    free(p->code);
    free(p);
}

/* What a part that fails once more may still be allowed. */
static uint32_t part_limit(const struct core_part *p)
{
    const struct core_limits *l = &core_of(p)->limits;

    return p->count > 1 && p->split ? l->split_attempts : l->max_attempts;
}

bool core_part_is_alone(const struct core_part *p)
{
    return p->failures + 1 >= part_limit(p) && (p->split || p->failures > 0);
}

/* Nodes whose inputs are there join a queue. */
static void part_ready(struct core_part *p, bool front)
{
    uint32_t done = 0;

    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        done |= (uint32_t)(p->tasks[k].state == CORE_TASK_DONE) << k;
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        if (p->tasks[k].state == CORE_TASK_WAITING && (p->unit->job->nodes[k].spec.needs & ~done) == 0)
            core_queue_push(&p->tasks[k], front);
}

/* Nothing of the part is queued, leased or kept any more; rows for the store only if `keep_rows`. */
static void part_stop(struct core_part *p, bool keep_rows)
{
    struct core *c = core_of(p);

    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++) {
        struct core_task *t = &p->tasks[k];

        if (t->state == CORE_TASK_READY)
            core_queue_remove(t);
        if (t->state == CORE_TASK_LEASED)
            core_lease_end(c, t->lease);
        if (keep_rows)
            drop_tensors(t);
        else
            drop_payload(t);
    }
}

static void part_restart(struct core_part *p)
{
    part_stop(p, false);
    part_unreserve(p);
    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        p->tasks[k].state = CORE_TASK_WAITING;
    p->n_done = 0;
    part_revive(p);
    part_ready(p, true);
}

static void part_finish(struct core_part *p)
{
    struct core_unit *u = p->unit;

    part_stop(p, !p->quarantined);
    part_unreserve(p);
    p->finished = true;
    if (++u->n_finished == u->n_parts)
        core_unit_finished(u);
}

/* How many items the first half has: as many wanted ones as the second, or one more. */
static uint32_t first_half(const struct core_part *p)
{
    uint32_t n = 0, i = 0;

    for (; n < (p->n_wanted + 1) / 2; i++)
        n += is_wanted(p->unit, p->first + i);
    return i;
}

/* Halves in place of the part. False: no memory, nothing has changed. */
static bool part_split(struct core_part *p)
{
    struct core_unit *u = p->unit;
    uint32_t half = first_half(p);
    struct core_part *a = part_new(u, p->first, half);
    struct core_part *b = part_new(u, p->first + half, p->count - half);
    struct core_part **at = &u->parts;

    if (!a || !b) {
        free(a);
        free(b);
        return false;
    }
    while (*at != p)
        at = &(*at)->next;
    *at = a;
    a->next = b;
    b->next = p->next;
    a->split = b->split = true;
    u->n_parts++;
    part_free(p);
    part_ready(b, true);
    part_ready(a, true);
    return true;
}

struct core_unit *core_unit_new(struct core_job *j, const struct core_unit_row *row)
{
    uint32_t max_attempts = j->core->limits.max_attempts;
    const bool again = row->is_again && !j->core->faults.redo_all, bad = mask_count(row->bad, CORE_MASK_WORDS) > 0;
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
    u->parts = part_new(u, 0, u->n_items);
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
        return part_split(u->parts) ? u : NULL;
    u->parts->failures = u->attempts < max_attempts ? u->attempts : max_attempts - 1;
    part_ready(u->parts, false);
    return u;
}

void core_unit_free(struct core_unit *u)
{
    struct core_part *p, *next;

    if (!u)
        return;
    for (p = u->parts; p; p = next) {
        next = p->next;
        part_free(p);
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
        part_stop(p, false);
        part_unreserve(p);
    }
}

/* -- what happens to a task ---------------------------------------------------------------------------------------- */

/* The items that came out: bit r of `row_ok` belongs to the r-th item that went in. */
static void take_rows(struct core_task *t, const uint64_t *row_ok)
{
    uint32_t r = 0;

    for (uint32_t w = 0; w < t->part->n_words; w++) {
        uint64_t in = t->rows[w], out = 0;

        if (!row_ok)
            out = in;
        for (; row_ok && in; in &= in - 1, r++)
            if (row_ok[r / 64] >> (r % 64) & 1)
                out |= in & -in;
        t->ok[w] = out;
    }
    t->n_ok = mask_count(t->ok, t->part->n_words);
}

/* Inputs whose consumers are all done lose their tensors. */
static void release_inputs(struct core_task *t)
{
    struct core_part *p = t->part;
    struct core_job *j = p->unit->job;
    uint32_t done = 0;

    for (uint32_t k = 0; k < j->n_nodes; k++)
        done |= (uint32_t)(p->tasks[k].state == CORE_TASK_DONE) << k;
    for (uint32_t k = 0; k < j->n_nodes; k++)
        if ((j->nodes[t->node].spec.needs >> k & 1) &&
            ((j->nodes[k].consumers & ~done) == 0 || j->core->faults.free_after_first_consumer))
            drop_tensors(&p->tasks[k]);
    if (j->nodes[t->node].consumers == 0)
        drop_tensors(t);
}

/* Rows that stay until the commit; and a lesson for the parts to come. */
static void keep_rows(struct core_task *t, uint64_t bytes)
{
    struct core_job *j = t->part->unit->job;
    struct core_job_node *n = &j->nodes[t->node];
    uint64_t each = bytes / t->n_rows;

    t->has_rows = true;
    t->row_bytes = bytes;
    j->core->row_bytes += bytes;
    if (each > n->row_bytes) {
        j->row_bytes += each - n->row_bytes;
        n->row_bytes = each;
    }
}

/* The lease has ended; the payload is the core's. */
void core_task_result(struct core_task *t, const struct core_event *e, uint64_t host)
{
    struct core_part *p = t->part;
    struct core_job *j = p->unit->job;

    if (core_map_put(&j->core->payloads, e->result.payload, t) < 0) {
        core_break(j->core);
        return;
    }
    t->state = CORE_TASK_DONE;
    t->host = host;
    t->payload = e->result.payload;
    take_rows(t, e->result.ok);
    t->has_tensors = true;
    if (e->result.keep_rows || t->n_ok < t->n_rows)
        keep_rows(t, e->result.row_bytes);
    for (uint32_t w = 0; w < p->n_words; w++)
        p->alive[w] &= ~(t->rows[w] & ~t->ok[w]);
    p->n_alive = mask_count(p->alive, p->n_words);
    p->n_done++;
    j->nodes[t->node].items_done += t->n_rows;
    release_inputs(t);
    if (p->n_done == j->n_nodes || p->n_alive == 0)
        part_finish(p);
    else
        part_ready(p, false);
}

/* Kept for the quarantine record. Forgotten when there is no memory: the reason is worth less than the work. */
static void part_note(struct core_part *p, const char *code, const char *text)
{
    size_t code_n = strnlen(code, CORE_CODE_BYTES - 1), text_n = strnlen(text, CORE_TEXT_BYTES - 1);
    char *note = malloc(code_n + text_n + 2);

    free(p->code);
    p->code = note;
    p->text = note ? note + code_n + 1 : NULL;
    if (!note)
        return;
    memcpy(p->code, code, code_n);
    p->code[code_n] = '\0';
    memcpy(p->text, text, text_n);
    p->text[text_n] = '\0';
}

static void count_attempt(struct core_unit *u)
{
    struct core *c = u->job->core;
    struct core_action *a;

    /* Past max_attempts the store knows all that a later life needs: this unit starts split. */
    if (u->attempts < UINT32_MAX)
        u->attempts++;
    if (u->attempts > c->limits.max_attempts || c->faults.forget_attempts)
        return;
    a = core_emit(c, CORE_DO_ATTEMPTS);
    a->attempts.job = u->job->id;
    a->attempts.unit = u->number;
    a->attempts.attempts = u->attempts;
}

/* Ready once more. A part that holds nothing gives its reservation back: a stopped job has nothing in flight then, and does not wait for a
 * worker that may never come. */
static void task_again(struct core_task *t)
{
    struct core_part *p = t->part;
    bool holds = p->n_done > 0;

    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        holds |= p->tasks[k].state == CORE_TASK_LEASED;
    if (holds)
        core_queue_push(t, true);
    else
        part_restart(p);
}

/* The lease has ended badly. */
void core_task_failed(struct core_task *t, const char *code, const char *text)
{
    struct core_part *p = t->part;
    struct core *c = core_of(p);

    part_note(p, code, text);
    count_attempt(p->unit);
    if (++p->failures < part_limit(p) || c->faults.never_split) {
        /* Its leases elsewhere in the graph go on; what is queued changes its queue if it must now be alone. */
        for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
            if (p->tasks[k].state == CORE_TASK_READY) {
                core_queue_remove(&p->tasks[k]);
                core_queue_push(&p->tasks[k], true);
            }
        task_again(t);
        return;
    }
    part_stop(p, false);
    if (c->faults.keep_reservation_on_split && p->count > 1) {
        p->unit->job->n_reserved -= p->is_reserved;
        c->n_reserved -= p->is_reserved;
        p->is_reserved = false;
    }
    part_unreserve(p);
    if (p->count == 1) {
        p->quarantined = true;
        p->n_alive = 0;
        p->alive[0] = 0;
        part_finish(p);
        return;
    }
    c->counters.splits++;
    if (!part_split(p))
        core_break(c);
}

void core_task_returned(struct core_task *t)
{
    if (++t->part->unblamed > core_of(t->part)->limits.max_unblamed)
        core_task_failed(t, "returned", "handed back too often");
    else
        task_again(t);
}

void core_payload_lost(struct core *c, uint64_t payload)
{
    struct core_task *t = core_map_get(&c->payloads, payload);
    struct core_part *p = t ? t->part : NULL;
    bool blame;

    if (!t || !t->has_tensors)
        return; /* nobody wants them any more */
    c->counters.payloads_lost++;
    blame = ++p->unblamed > c->limits.max_unblamed;
    part_restart(p);
    if (blame) {
        /* The first node takes the blame: it is queued now, and everything starts from it again. */
        t = &p->tasks[0];
        core_queue_remove(t);
        core_task_failed(t, "lost", "its tensors were lost too often");
    }
}
