/* The broker around the core: carries out its actions, checks each of them, keeps the model store. */
#include "tests/simulate/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct sim_job *find_job(struct world *w, uint64_t id)
{
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (w->jobs[n].id == id && w->jobs[n].open)
            return &w->jobs[n];
    world_fail(w, "an action for job %llu, which is not open", (unsigned long long)id);
}

static bool bit(const uint64_t *mask, uint32_t i)
{
    return mask[i / 64] >> (i % 64) & 1;
}

/* -- payloads ------------------------------------------------------------------------------------------------------ */

static uint64_t tensor_bytes(const struct sim_payload *p)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < p->work->n_items; i++)
        n += p->work->ok[i];
    return n * p->work->job->nodes[p->work->node].out_bytes;
}

static struct sim_payload *find_payload(struct world *w, uint64_t handle)
{
    struct sim_payload *p = core_map_get(&w->payloads, handle);

    if (!p)
        world_fail(w, "payload %llu is used after its drop", (unsigned long long)handle);
    return p;
}

static void drop_tensors(struct world *w, struct sim_payload *p)
{
    if (p->tensors)
        w->tensor_bytes -= tensor_bytes(p);
    p->tensors = false;
}

static void drop_payload(struct world *w, uint64_t handle)
{
    struct sim_payload *p = find_payload(w, handle);

    drop_tensors(w, p);
    w->row_bytes -= p->row_bytes;
    core_map_take(&w->payloads, handle);
}

/* -- work ---------------------------------------------------------------------------------------------------------- */

static void gather_inputs(struct world *w, const struct core_work *a, struct sim_work *work)
{
    uint32_t needs = 0;

    for (uint32_t n = 0; n < a->n_inputs; n++) {
        const struct core_input *in = &a->inputs[n];
        struct sim_payload *p = find_payload(w, in->payload);

        if (!p->tensors || p->lost)
            world_fail(w, "lease %llu needs tensors that are gone", (unsigned long long)a->lease);
        needs |= 1u << in->node;
        for (uint32_t i = 0; i < work->n_items; i++) {
            uint32_t row = 0;

            while (row < p->work->n_items && p->work->items[row] != work->items[i])
                row++;
            if (row == p->work->n_items || !p->work->ok[row] || !bit(in->ok, work->items[i] - a->first))
                world_fail(w, "lease %llu: item %u has no row in input %u", (unsigned long long)a->lease,
                           work->items[i], in->node);
            work->inputs[i] = core_mix64(work->inputs[i] ^ p->work->values[row]);
        }
    }
    if (needs != work->job->nodes[work->node].needs)
        world_fail(w, "inputs 0x%x for a node that needs 0x%x", needs, work->job->nodes[work->node].needs);
}

static void do_work(struct world *w, const struct core_work *a)
{
    struct sim_job *j = find_job(w, a->job);
    struct sim_worker *k = worker_of_peer(w, a->peer);
    struct sim_work *work = world_alloc(w, sizeof(*work));
    const struct sim_unit *u = &j->units[a->unit];

    *work = (struct sim_work){.epoch = a->epoch,
                              .lease = a->lease,
                              .job = j,
                              .unit = a->unit,
                              .node = a->node,
                              .first = a->first,
                              .count = a->count,
                              .alone = a->alone,
                              .gone = j->gone && j->nodes[a->node].needs == 0,
                              .opening = j->opening};
    for (uint32_t i = 0; i < a->count; i++)
        if (bit(a->items, i))
            work->items[work->n_items++] = a->first + i;
    work->n_rows = work->n_items;
    if (work->n_items != a->n_items || a->n_items == 0 || a->unit >= j->n_imported || a->first + a->count > u->n_items)
        world_fail(w, "lease %llu: its items make no sense", (unsigned long long)a->lease);
    for (uint32_t i = 0; i < work->n_items && u->done; i++)
        if (!u->items[work->items[i]].again)
            world_fail(w, "lease %llu of item %u of unit %u, which is done", (unsigned long long)a->lease,
                       work->items[i], a->unit);
    if (u->commit_pending || j->stop_told || j->closing || w->shutting_down)
        world_fail(w, "lease %llu of unit %u, which nobody wants now", (unsigned long long)a->lease, a->unit);
    if (a->count == u->n_items && u->attempts_asked < (a->attempt < MAX_ATTEMPTS ? a->attempt : MAX_ATTEMPTS))
        world_fail(w, "unit %u: attempt %u, but only %u were made durable", a->unit, a->attempt, u->attempts_asked);
    gather_inputs(w, a, work);
    world_say(w, "work lease=%llu job=%llu unit=%u [%u+%u] node=%u attempt=%u peer=%llu%s",
              (unsigned long long)a->lease, (unsigned long long)a->job, a->unit, a->first, a->count, a->node,
              a->attempt, (unsigned long long)a->peer, a->alone ? " alone" : "");
    if (k)
        worker_send_work(w, k, work);
}

/* -- loading ------------------------------------------------------------------------------------------------------- */

struct load {
    struct sim_job *job;
    uint32_t from, max;
    struct core_event answer;
    struct core_unit_row rows[64];
};

static void answer_load(struct world *w, void *what, uint64_t life)
{
    struct load *l = what;

    if (life != w->epoch || !w->core)
        return;
    l->job->loading = false;
    shell_step(w, &l->answer);
}

/* False: there is nothing to be done. */
static bool row_of(const struct sim_unit *u, uint32_t number, struct core_unit_row *ret)
{
    *ret = (struct core_unit_row){.unit = number, .n_items = u->n_items, .attempts = u->attempts, .is_again = u->done};
    for (uint32_t i = 0; i < u->n_items; i++)
        ret->again[i / 64] |= (uint64_t)u->items[i].again << (i % 64);
    return !u->done || ret->again[0] || ret->again[1];
}

/* The store is read some time before the core hears of it. */
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
        if (row_of(&l->job->units[u], u, &l->rows[e->units.n]))
            e->units.n++;
    e->units.job = l->job->id;
    e->units.rows = l->rows;
    e->units.exhausted = u == l->job->n_imported;
    world_in(w, (int64_t)world_below(w, 60), answer_load, l, life);
}

static void do_load(struct world *w, const struct core_action *a)
{
    struct load *l = world_alloc(w, sizeof(*l));

    *l = (struct load){.job = find_job(w, a->load.job), .from = a->load.from_unit, .max = a->load.max};
    if (l->job->loading || l->max == 0 || l->max > w->limits.window_units)
        world_fail(w, "two loads at once, or one of %u units", l->max);
    l->job->loading = true;
    world_in(w, (int64_t)world_below(w, 30), read_units, l, w->epoch);
}

void shell_import(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    (void)life;
    world_fault(w, FAULT_LATE_UNITS);
    j->n_imported += 1 + (uint32_t)world_below(w, j->n_units - j->n_imported);
    shell_job_event(w, CORE_EVENT_UNITS_ADDED, j);
    if (j->n_imported < j->n_units) {
        world_in(w, 100 + (int64_t)world_below(w, 3000), shell_import, j, 0);
        return;
    }
    j->sealed = true;
    shell_job_event(w, CORE_EVENT_JOB_SEALED, j);
}

/* -- commits ------------------------------------------------------------------------------------------------------- */

/* No more failures are written down than the job allows, and none at all while it is paused. */
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

/* What COMMIT says of every item is what the world knows of it. */
static void check_content(struct world *w, const struct core_commit *m, struct sim_job *j)
{
    bool failed[MAX_ITEMS] = {false};
    const struct sim_unit *u = &j->units[m->unit];
    uint32_t last = j->n_nodes - 1, n_failed = 0;
    uint32_t seen[MAX_ITEMS] = {0}; /* bit k: node k left a value; bit 8: an error; bit 9: quarantined; bit 10: an
                                       error since the source was gone */

    for (uint32_t n = 0; n < m->n_payloads; n++) {
        const struct sim_payload *p = find_payload(w, m->payloads[n].payload);
        const struct sim_work *r = p->work;

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
    bool ok, is_again;
    bool again[MAX_ITEMS];
};

static void try_disk(struct world *w, void *job, uint64_t life)
{
    if (life == w->epoch)
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
    m->job->units[m->unit].commit_pending = false;
    w->n_commits--;
    e.commit.job = m->job->id;
    e.commit.unit = m->unit;
    if (!m->ok)
        world_in(w, 200, try_disk, m->job, life);
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
    world_in(w, (int64_t)world_below(w, 20), answer_commit, m, life);
}

static void do_commit(struct world *w, const struct core_commit *a)
{
    struct sim_job *j = find_job(w, a->job);
    struct commit *m = world_alloc(w, sizeof(*m));

    if (a->unit >= j->n_imported || j->units[a->unit].done != (a->again != NULL) || j->units[a->unit].commit_pending)
        world_fail(w, "unit %u: a second COMMIT", a->unit);
    check_content(w, a, j);
    world_say(w, "commit job=%llu unit=%u failed=%u", (unsigned long long)a->job, a->unit, a->n_failed);
    j->units[a->unit].commit_pending = j->units[a->unit].asked = true;
    w->n_commits++;
    *m = (struct commit){.job = j, .unit = a->unit, .is_again = a->again != NULL};
    for (uint32_t i = 0; i < a->n_items; i++)
        m->again[i] = a->again && bit(a->again, i);
    world_in(w, (int64_t)world_below(w, 40), apply_commit, m, w->epoch);
}

static void apply_attempts(struct world *w, void *what, uint64_t life)
{
    const struct commit *m = what;

    if (life == w->epoch && w->core)
        m->job->units[m->unit].attempts = m->attempts;
}

static void do_attempts(struct world *w, const struct core_action *a)
{
    struct commit *m = world_alloc(w, sizeof(*m));

    *m = (struct commit){
        .job = find_job(w, a->attempts.job), .unit = a->attempts.unit, .attempts = a->attempts.attempts};
    if (m->attempts != m->job->units[m->unit].attempts_asked + 1)
        world_fail(w, "unit %u: attempts go from %u to %u", m->unit, m->job->units[m->unit].attempts_asked,
                   m->attempts);
    m->job->units[m->unit].attempts_asked = m->attempts;
    world_in(w, (int64_t)world_below(w, 40), apply_attempts, m, w->epoch);
}

/* -- jobs ---------------------------------------------------------------------------------------------------------- */

static void open_job(struct world *w, struct sim_job *j)
{
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    j->open = true;
    j->opening++;
    j->loading = j->stopped = j->stop_told = j->closing = j->cancelled = j->paused = false;
    j->n_in_row = 0;
    for (uint32_t u = 0; u < j->n_units; u++) {
        j->units[u].commit_pending = j->units[u].asked = false;
        j->units[u].attempts_asked = j->units[u].attempts;
    }
    e.job_open.job = j->id;
    e.job_open.sealed = j->sealed;
    e.job_open.priority = (uint32_t)world_below(w, 200);
    e.job_open.max_failures = j->max_failures;
    e.job_open.max_failed_per_mille = j->max_failed_per_mille;
    e.job_open.n_nodes = j->n_nodes;
    e.job_open.nodes = j->nodes;
    shell_step(w, &e);
}

static void reopen_job(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (life == w->epoch && w->core && !j->open && !w->shutting_down)
        open_job(w, j);
}

static void close_job(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (life != w->epoch || !w->core || !j->open || j->closing)
        return;
    j->closing = true;
    shell_job_event(w, CORE_EVENT_JOB_CLOSE, j);
}

static void restart(struct world *w, void *what, uint64_t life)
{
    (void)what;
    if (life != w->epoch || !w->core)
        return;
    shell_crash(w);
}

/* Whoever reads why the job paused looks after the source and goes on; or lets everything fail that will. */
static void go_on(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (life != w->epoch || !w->core || !j->open || j->closing || !j->paused)
        return;
    if (j->n_surges < 4 && world_chance(w, 500)) {
        shell_start_job(w, j);
        return;
    }
    j->max_failures = j->max_failed_per_mille = 0;
    j->closing = true;
    shell_job_event(w, CORE_EVENT_JOB_CLOSE, j);
}

static void do_pause(struct world *w, const struct core_action *a)
{
    struct sim_job *j = find_job(w, a->paused.job);

    if (j->paused || a->paused.n_failed == 0 || (a->paused.n_finished == 0 && a->paused.n_failed < j->max_failures) ||
        !(a->paused.n_finished ? j->max_failed_per_mille : j->max_failures))
        world_fail(w, "job %llu pauses for no reason", (unsigned long long)j->id);
    world_fault(w, FAULT_SURGE);
    world_say(w, "pause job=%llu failed=%llu of %llu", (unsigned long long)j->id,
              (unsigned long long)a->paused.n_failed, (unsigned long long)a->paused.n_finished);
    j->n_surges++;
    j->paused = j->stopped = true;
    j->stop_told = false;
}

static void do_job(struct world *w, const struct core_action *a)
{
    struct sim_job *j = find_job(w, a->job);

    if (a->type == CORE_DO_JOB_DONE) {
        struct core_unit_row ignored;

        for (uint32_t u = 0; u < j->n_units; u++)
            if (!j->sealed || row_of(&j->units[u], u, &ignored))
                world_fail(w, "job %llu is called done before its unit %u", (unsigned long long)j->id, u);
        j->finished = true;
        world_in(w, (int64_t)world_below(w, 500), close_job, j, w->epoch);
    } else if (a->type == CORE_DO_JOB_STOPPED) {
        if (!j->stopped || j->stop_told)
            world_fail(w, "job %llu stopped unasked", (unsigned long long)j->id);
        j->stop_told = true;
        if (j->paused)
            world_in(w, (int64_t)world_below(w, 2000), go_on, j, w->epoch);
    } else {
        if (!j->closing)
            world_fail(w, "job %llu closed unasked", (unsigned long long)j->id);
        j->open = false;
        if (!j->finished)
            world_in(w, 50 + (int64_t)world_below(w, 500), reopen_job, j, w->epoch);
    }
}

void shell_start_job(struct world *w, struct sim_job *j)
{
    j->n_in_row = j->paused ? 0 : j->n_in_row;
    j->stopped = j->stop_told = j->paused = false;
    shell_job_event(w, CORE_EVENT_JOB_START, j);
}

void shell_job_event(struct world *w, enum core_event_type type, struct sim_job *j)
{
    if (w->core && j->open && (type == CORE_EVENT_JOB_CLOSE || !j->closing))
        shell_step(w, &(struct core_event){.type = type, .job = j->id});
}

/* -- steps --------------------------------------------------------------------------------------------------------- */

static void carry_out(struct world *w, const struct core_action *a)
{
    struct sim_worker *k = NULL;

    switch (a->type) {
    case CORE_DO_WELCOME:
    case CORE_DO_REFUSE:
    case CORE_DO_HELLO_AGAIN:
        k = worker_of_peer(w, a->peer);
        if (a->type == CORE_DO_REFUSE && a->refuse.reason == CORE_REFUSE_MODEL && k && !k->wrong_model)
            world_fail(w, "worker %u is refused: %s", k->index, a->refuse.text);
        if (k)
            worker_send_answer(w, k, a->type == CORE_DO_REFUSE, a->type == CORE_DO_HELLO_AGAIN);
        return;
    case CORE_DO_FORGET_PEER:
        return;
    case CORE_DO_WORK:
        do_work(w, &a->work);
        return;
    case CORE_DO_DROP_TENSORS:
        if (!find_payload(w, a->payload)->tensors)
            world_fail(w, "tensors of payload %llu are dropped twice", (unsigned long long)a->payload);
        drop_tensors(w, find_payload(w, a->payload));
        return;
    case CORE_DO_DROP_PAYLOAD:
        drop_payload(w, a->payload);
        return;
    case CORE_DO_LOAD_UNITS:
        do_load(w, a);
        return;
    case CORE_DO_ATTEMPTS:
        do_attempts(w, a);
        return;
    case CORE_DO_COMMIT:
        do_commit(w, &a->commit);
        return;
    case CORE_DO_JOB_PAUSED:
        do_pause(w, a);
        return;
    case CORE_DO_JOB_DONE:
    case CORE_DO_JOB_STOPPED:
    case CORE_DO_JOB_CLOSED:
        do_job(w, a);
        return;
    case CORE_DO_DRAINED:
        if (!w->shutting_down || w->n_commits > 0)
            world_fail(w, "drained with %u commits outstanding", w->n_commits);
        world_in(w, 0, restart, NULL, w->epoch);
        return;
    case CORE_N_ACTIONS:
        break;
    }
    world_fail(w, "action %d", (int)a->type);
}

static void check_memory(struct world *w)
{
    struct core_stats s;

    core_stats_get(w->core, &s);
    if (w->tensor_bytes > s.reserved_bytes)
        world_fail(w, "%llu bytes of tensors, %llu reserved", (unsigned long long)w->tensor_bytes,
                   (unsigned long long)s.reserved_bytes);
    if (w->row_bytes > w->limits.row_bytes && s.n_reserved > 1)
        world_fail(w, "%llu bytes of rows are kept, the limit is %llu, and %u parts go on",
                   (unsigned long long)w->row_bytes, (unsigned long long)w->limits.row_bytes, s.n_reserved);
    if (w->row_bytes != s.row_bytes)
        world_fail(w, "%llu bytes of rows are kept, not %llu", (unsigned long long)w->row_bytes,
                   (unsigned long long)s.row_bytes);
}

/* Before the core decides: what it may have to keep. */
static void take_payload(struct world *w, const struct core_event *e)
{
    struct sim_payload *p = core_map_get(&w->payloads, e->result.payload);
    struct core_lease_info lease;
    bool errors = false;

    if (!p)
        return;
    w->tensor_bytes += tensor_bytes(p);
    for (uint32_t i = 0; i < p->work->n_items; i++)
        errors = errors || !p->work->ok[i];
    if ((e->result.keep_rows || errors) && core_lease_get(w->core, &e->result.lease, &lease) == 0 &&
        lease.n_items == e->result.n_rows)
        p->row_bytes = e->result.row_bytes;
    w->row_bytes += p->row_bytes;
}

void shell_step(struct world *w, const struct core_event *e)
{
    int rc;

    if (!w->core)
        return;
    if (e->type == CORE_EVENT_RESULT)
        take_payload(w, e);
    core_actions_clear(&w->actions);
    rc = core_step(w->core, e, w->now, &w->actions);
    if (rc < 0)
        world_fail(w, "event %d: %s", (int)e->type, strerror(-rc));
    w->tally->steps++;
    core_validate(w->core);
    for (size_t i = 0; i < w->actions.n; i++)
        carry_out(w, &w->actions.items[i]);
    check_memory(w);
}

/* -- life of the broker -------------------------------------------------------------------------------------------- */

static void start_again(struct world *w, void *what, uint64_t life)
{
    (void)what;
    if (life == w->epoch && !w->core)
        shell_start(w);
}

void shell_start(struct world *w)
{
    w->epoch++;
    w->core = core_new(&w->limits, w->epoch);
    if (!w->core)
        abort();
    w->shutting_down = false;
    w->n_commits = 0;
    world_say(w, "broker epoch=%llu", (unsigned long long)w->epoch);
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (!w->jobs[n].finished)
            open_job(w, &w->jobs[n]);
}

void shell_crash(struct world *w)
{
    struct core_stats s;

    world_say(w, "broker down");
    core_stats_get(w->core, &s);
    w->tally->splits += s.splits;
    core_free(w->core);
    w->core = NULL;
    core_map_release(&w->payloads);
    w->tensor_bytes = w->row_bytes = 0;
    for (uint32_t n = 0; n < w->n_jobs; n++)
        w->jobs[n].open = false;
    world_in(w, 10 + (int64_t)world_below(w, 2000), start_again, NULL, w->epoch);
}
