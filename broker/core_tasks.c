/* What results, failures and losses do to a task and its subunit. */
#include "broker/core_job.h"
#include "broker/core_worker.h"

#include <stdlib.h>
#include <string.h>

/* -- results -- */

/* The items that came out: bit r of `row_ok` belongs to the r-th item that went in. */
static void take_rows(struct core_task *t, const uint64_t *row_ok)
{
    uint32_t r = 0;

    for (uint32_t w = 0; w < t->subunit->n_words; w++) {
        uint64_t in = t->rows[w], out = 0;

        if (!row_ok)
            out = in;
        for (; row_ok && in; in &= in - 1, r++)
            if (row_ok[r / 64] >> (r % 64) & 1)
                out |= in & -in;
        t->ok[w] = out;
    }
    t->n_ok = core_mask_count(t->ok, t->subunit->n_words);
}

/* Drop the tensors of inputs whose consumers are all done. */
static void release_inputs(struct core_task *t)
{
    struct core_subunit *p = t->subunit;
    struct core_job *j = p->unit->job;
    uint32_t done = 0;

    for (uint32_t k = 0; k < j->n_nodes; k++)
        done |= (uint32_t)(p->tasks[k].state == CORE_TASK_DONE) << k;
    for (uint32_t k = 0; k < j->n_nodes; k++)
        if ((j->nodes[t->node].spec.needs >> k & 1) &&
            ((j->nodes[k].consumers & ~done) == 0 || core_planted(j->core, CORE_BUG_FREE_AFTER_FIRST_CONSUMER)))
            core_task_drop_tensors(&p->tasks[k]);
    if (j->nodes[t->node].consumers == 0)
        core_task_drop_tensors(t);
}

/* Keep the rows until the commit; later subunits reserve as much as these take. */
static void keep_rows(struct core_task *t, uint64_t bytes)
{
    struct core_job *j = t->subunit->unit->job;
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

static void subunit_finish(struct core_subunit *p)
{
    struct core_unit *u = p->unit;

    core_subunit_stop(p, !p->quarantined);
    core_subunit_unreserve(p);
    p->finished = true;
    if (++u->n_finished == u->n_subunits)
        core_unit_finished(u);
}

/* The lease has ended; the payload now belongs to the core. */
void core_task_result(struct core_task *t, const struct core_event *e)
{
    struct core_subunit *p = t->subunit;
    struct core_job *j = p->unit->job;

    if (core_map_put(&j->core->payloads, e->result.payload, t) < 0) {
        core_break(j->core);
        return;
    }
    t->state = CORE_TASK_DONE;
    t->payload = e->result.payload;
    take_rows(t, e->result.ok);
    t->has_tensors = true;
    if (e->result.keep_rows || t->n_ok < t->n_rows)
        keep_rows(t, e->result.row_bytes);
    for (uint32_t w = 0; w < p->n_words && !core_planted(j->core, CORE_BUG_ERRORS_GO_ON); w++)
        p->alive[w] &= ~(t->rows[w] & ~t->ok[w]);
    p->n_alive = core_mask_count(p->alive, p->n_words);
    p->n_done++;
    j->nodes[t->node].items_done += t->n_rows;
    release_inputs(t);
    if (p->n_done == j->n_nodes || p->n_alive == 0)
        subunit_finish(p);
    else
        core_subunit_ready(p, false);
}

/* -- failures -- */

/* Kept for the quarantine record; dropped if there is no memory for it. */
static void subunit_note(struct core_subunit *p, const char *code, const char *text)
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

/* Failed attempts, and how they have split the unit, are durable. */
static void put_attempts(struct core_unit *u)
{
    struct core *c = u->job->core;
    struct core_action *a;
    uint8_t *subunits = NULL;

    if (u->attempts < UINT32_MAX)
        u->attempts++;
    if (core_planted(c, CORE_BUG_FORGET_ATTEMPTS))
        return;
    if (core_unit_is_split(u) && !core_planted(c, CORE_BUG_FORGET_SUBUNITS)) {
        subunits = core_emit_alloc(c, u->n_items);
        if (!subunits)
            return;
        core_unit_describe_subunits(u, subunits);
    }
    a = core_emit(c, CORE_DO_ATTEMPTS);
    a->attempts.job = u->job->id;
    a->attempts.unit = u->number;
    a->attempts.attempts = u->attempts;
    a->attempts.n_items = u->n_items;
    a->attempts.subunits = subunits;
}

/* Queue the task again. A subunit that holds nothing else gives its reservation back: otherwise a stopped job would
 * wait for a worker that may never come. */
void core_task_requeue(struct core_task *t)
{
    struct core_subunit *p = t->subunit;
    bool holds = p->n_done > 0;

    for (uint32_t k = 0; k < p->unit->job->n_nodes; k++)
        holds |= p->tasks[k].state == CORE_TASK_LEASED;
    if (holds && !core_planted(core_of_subunit(p), CORE_BUG_RETRY_STARTS_OVER))
        core_queue_push(t, true);
    else
        core_subunit_restart(p);
}

static void subunit_gives_up(struct core_subunit *p)
{
    struct core *c = core_of_subunit(p);
    struct core_unit *u = p->unit;

    core_subunit_stop(p, false);
    if (core_planted(c, CORE_BUG_KEEP_RESERVATION_ON_SPLIT) && p->count > 1) {
        u->job->n_reserved -= p->is_reserved;
        c->n_reserved -= p->is_reserved;
        p->is_reserved = false;
    }
    core_subunit_unreserve(p);
    if (p->count == 1) {
        p->quarantined = true;
        p->n_alive = 0;
        p->alive[0] = 0;
        put_attempts(u);
        subunit_finish(p);
        return;
    }
    c->counters.splits++;
    if (!core_subunit_split(p))
        core_break(c);
    put_attempts(u);
}

/* Only the first of the subunit's leases that ends badly fails an attempt. The others ran at the same time, perhaps on
 * the same lost worker, and perhaps not exclusively as the next attempt will. */
void core_task_failed(struct core_task *t, uint32_t attempt, const char *code, const char *text)
{
    struct core_subunit *p = t->subunit;

    if (attempt != p->failures && !core_planted(core_of_subunit(p), CORE_BUG_BLAMED_TWICE)) {
        core_task_requeue(t);
        return;
    }
    subunit_note(p, code, text);
    if (++p->failures >= core_subunit_limit(p) && !core_planted(core_of_subunit(p), CORE_BUG_NEVER_SPLIT)) {
        if (p->count > 1 || !core_task_needs_another(core_of_subunit(p), t)) {
            subunit_gives_up(p);
            return;
        }
        p->failures--; /* until another worker has failed it, too */
    }
    put_attempts(p->unit);
    core_subunit_suspect(p);
    core_task_requeue(t);
}

void core_task_returned(struct core_task *t, uint32_t attempt)
{
    if (++t->subunit->unblamed > core_of_subunit(t->subunit)->limits.max_unblamed &&
        !core_planted(core_of_subunit(t->subunit), CORE_BUG_RETURNS_WITHOUT_END))
        core_task_failed(t, attempt, "returned", "returned too often");
    else
        core_task_requeue(t);
}

int core_on_payload_lost(struct core *c, const struct core_event *e)
{
    struct core_task *t = core_map_get(&c->payloads, e->payload);
    struct core_subunit *p = t ? t->subunit : NULL;
    bool blame;

    if (!t || !t->has_tensors)
        return 0; /* no longer needed */
    c->counters.payloads_lost++;
    blame = ++p->unblamed > c->limits.max_unblamed || core_planted(c, CORE_BUG_TENSOR_LOSS_BLAMED);
    core_subunit_restart(p);
    if (blame) {
        /* Blame the first node: the subunit starts again from there, and it is in a queue now. */
        t = &p->tasks[0];
        core_queue_remove(t);
        core_task_failed(t, p->failures, "lost", "its tensors were lost too often");
    }
    return 0;
}
