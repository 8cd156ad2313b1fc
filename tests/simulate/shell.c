/* The broker around the core: carries out its actions and checks each of them. */
#include "tests/simulate/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sim_job *shell_job(struct world *w, uint64_t id)
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

/* -- payloads -- */

static uint64_t tensor_bytes(const struct sim_payload *p)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < p->work.n_items; i++)
        n += p->work.ok[i];
    return n * p->work.job->nodes[p->work.node].out_bytes;
}

struct sim_payload *shell_payload(struct world *w, uint64_t handle)
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
    struct sim_payload *p = shell_payload(w, handle);

    drop_tensors(w, p);
    w->row_bytes -= p->row_bytes;
    core_map_take(&w->payloads, handle);
}

/* -- work -- */

static void gather_inputs(struct world *w, const struct core_work *a, struct sim_work *work)
{
    uint32_t needs = 0;

    for (uint32_t n = 0; n < a->n_inputs; n++) {
        const struct core_input *in = &a->inputs[n];
        struct sim_payload *p = shell_payload(w, in->payload);

        if (!p->tensors || p->lost)
            world_fail(w, "lease %llu needs tensors that are gone", (unsigned long long)a->lease);
        needs |= 1u << in->node;
        work->refused |= (uint32_t)(p->work.corrupt && work->job->nodes[in->node].out_bytes > 0) << in->node;
        for (uint32_t i = 0; i < work->n_items; i++) {
            uint32_t row = 0;

            while (row < p->work.n_items && p->work.items[row] != work->items[i])
                row++;
            if (row == p->work.n_items || !p->work.ok[row] || !bit(in->ok, work->items[i] - a->first))
                world_fail(w, "lease %llu: item %u has no row in input %u", (unsigned long long)a->lease,
                           work->items[i], in->node);
            work->inputs[i] = core_mix64(work->inputs[i] ^ p->work.values[row]);
        }
    }
    if (needs != work->job->nodes[work->node].needs)
        world_fail(w, "inputs 0x%x for a node that needs 0x%x", needs, work->job->nodes[work->node].needs);
}

static void do_work(struct world *w, const struct core_work *a)
{
    struct sim_job *j = shell_job(w, a->job);
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
                              .exclusive = a->exclusive,
                              .gone = j->gone && j->nodes[a->node].needs == 0};
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
    if (u->commit_pending || j->stop_told || j->closing || j->failed || w->shutting_down)
        world_fail(w, "lease %llu of unit %u, which nobody wants now", (unsigned long long)a->lease, a->unit);
    if (a->count == u->n_items && u->attempts_asked < (a->attempt < MAX_ATTEMPTS ? a->attempt : MAX_ATTEMPTS))
        world_fail(w, "unit %u: attempt %u, but only %u were made durable", a->unit, a->attempt, u->attempts_asked);
    gather_inputs(w, a, work);
    world_say(w, "work lease=%llu job=%llu unit=%u [%u+%u] node=%u attempt=%u peer=%llu%s",
              (unsigned long long)a->lease, (unsigned long long)a->job, a->unit, a->first, a->count, a->node,
              a->attempt, (unsigned long long)a->peer, a->exclusive ? " exclusive" : "");
    if (k)
        worker_send_work(w, k, work);
}

/* -- jobs -- */

static void open_job(struct world *w, struct sim_job *j)
{
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    j->open = true;
    j->opening++;
    j->loading = j->stopped = j->stop_told = j->closing = j->failed = j->paused = false;
    j->n_in_row = 0;
    for (uint32_t u = 0; u < j->n_units; u++) {
        j->units[u].commit_pending = j->units[u].asked = false;
        j->units[u].attempts_asked = j->units[u].attempts;
    }
    e.job_open.job = j->id;
    e.job_open.sealed = j->sealed;
    e.job_open.stopped = j->stopped = !w->quiet && world_chance(w, 50);
    if (j->stopped)
        world_in(w, 100 + (int64_t)world_below(w, 4000), clients_start_later, j, w->epoch);
    e.job_open.priority = (uint32_t)world_below(w, 200);
    e.job_open.max_failures = j->max_failures;
    e.job_open.max_failed_per_mille = j->max_failed_per_mille;
    e.job_open.n_nodes = j->n_nodes;
    e.job_open.nodes = j->nodes;
    shell_step(w, &e);
    clients_opened(w, j);
}

void shell_reopen_job(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (shell_is_stopped(w, shell_reopen_job, job, life))
        return;
    if (life != w->epoch || !w->core || j->open || j->finished || j->cancelled || w->shutting_down)
        return;
    if (j->client_gone)
        world_in(w, 250, shell_reopen_job, j, life);
    else
        open_job(w, j);
}

void shell_close_job(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (shell_is_stopped(w, shell_close_job, job, life))
        return;
    if (life != w->epoch || !w->core || !j->open || j->closing)
        return;
    j->closing = true;
    shell_job_event(w, CORE_EVENT_JOB_CLOSE, j);
}

static void restart(struct world *w, void *what, uint64_t life)
{
    if (shell_is_stopped(w, restart, what, life))
        return;
    if (life != w->epoch || !w->core)
        return;
    shell_crash(w);
}

/* The user reads why the job paused, and starts it again or allows any number of failures. */
static void go_on(struct world *w, void *job, uint64_t life)
{
    struct sim_job *j = job;

    if (shell_is_stopped(w, go_on, job, life))
        return;
    if (life != w->epoch || !w->core || !j->open || j->closing || j->failed || !j->paused || j->cancelled)
        return;
    if (j->n_surges < 4 && world_chance(w, 500)) {
        shell_start_job(w, j);
        return;
    }
    j->max_failures = 0;
    j->max_failed_per_mille = 1000; /* any number may fail, for any reason */
    j->closing = true;
    shell_job_event(w, CORE_EVENT_JOB_CLOSE, j);
}

static void do_pause(struct world *w, const struct core_action *a)
{
    struct sim_job *j = shell_job(w, a->paused.job);
    const uint32_t most_given_up = j->max_failed_per_mille < 1000 ? w->limits.max_given_up : 0;
    const uint32_t most = j->max_failures ? j->max_failures : most_given_up; /* in a row */

    if (j->paused || a->paused.n_failed == 0 || (a->paused.n_finished == 0 && a->paused.n_failed < most) ||
        !(a->paused.n_finished ? j->max_failed_per_mille : most))
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
    struct sim_job *j = shell_job(w, a->job);

    if (j->failed && a->type != CORE_DO_JOB_CLOSED)
        world_fail(w, "job %llu goes on, and it has failed", (unsigned long long)j->id);
    if (a->type == CORE_DO_JOB_DONE) {
        struct core_unit_row ignored;

        if (!j->sealed)
            world_fail(w, "job %llu is called done before it is sealed", (unsigned long long)j->id);
        if (j->retry.on)
            return; /* it has not ended: there may be more to do */
        for (uint32_t u = 0; u < j->n_imported; u++)
            if (units_row(&j->units[u], u, &ignored))
                world_fail(w, "job %llu is called done before its unit %u", (unsigned long long)j->id, u);
        j->finished = j->n_imported == j->n_units;
        if (j->finished || world_chance(w, 500))
            world_in(w, (int64_t)world_below(w, 500), shell_close_job, j, w->epoch);
    } else if (a->type == CORE_DO_JOB_STOPPED) {
        if (!j->stopped || j->stop_told)
            world_fail(w, "job %llu stopped unasked", (unsigned long long)j->id);
        j->stop_told = true;
        if (j->cancelled || j->client_gone)
            world_in(w, (int64_t)world_below(w, 500), shell_close_job, j, w->epoch);
        else if (j->paused)
            world_in(w, (int64_t)world_below(w, 2000), go_on, j, w->epoch);
    } else {
        if (!j->closing)
            world_fail(w, "job %llu closed unasked", (unsigned long long)j->id);
        j->open = false;
        w->tally->faults[FAULT_DONE_REOPENED] += j->led.done && !j->finished;
        if (!j->finished && !j->cancelled)
            world_in(w, 50 + (int64_t)world_below(w, 500), shell_reopen_job, j, w->epoch);
    }
}

void shell_start_job(struct world *w, struct sim_job *j)
{
    j->n_in_row = j->paused ? 0 : j->n_in_row;
    j->stopped = j->stop_told = j->paused = false;
    shell_job_event(w, CORE_EVENT_JOB_START, j);
}

/* Outstanding answers may come or not. The store works again when the job is opened again. */
void shell_fail_job(struct world *w, struct sim_job *j)
{
    j->failed = true;
    j->loading = false;
    for (uint32_t u = 0; u < j->n_units; u++) {
        w->n_commits -= j->units[u].commit_pending;
        j->units[u].commit_pending = false;
    }
    shell_step(w, &(struct core_event){.type = CORE_EVENT_JOB_FAILED, .job = j->id});
    if (!j->closing)
        world_in(w, 50 + (int64_t)world_below(w, 1000), shell_close_job, j, w->epoch);
}

void shell_job_event(struct world *w, enum core_event_type type, struct sim_job *j)
{
    if (w->core && j->open && (type == CORE_EVENT_JOB_CLOSE || !j->closing))
        shell_step(w, &(struct core_event){.type = type, .job = j->id});
}

bool shell_is_stopped(struct world *w, agenda_fn *fn, void *what, uint64_t life)
{
    if (w->now >= w->stopped_until)
        return false;
    world_in(w, w->stopped_until - w->now, fn, what, life);
    return true;
}

/* -- steps -- */

static void end_stalled(struct world *w, void *worker, uint64_t life)
{
    struct sim_worker *k = worker;

    if (k->alive && k->life == life)
        worker_crash(w, k);
}

static void carry_out(struct world *w, const struct core_action *a)
{
    struct sim_worker *k = NULL;

    switch (a->type) {
    case CORE_DO_WELCOME:
    case CORE_DO_REFUSE:
    case CORE_DO_HELLO_AGAIN:
        k = worker_of_peer(w, a->peer);
        if (k)
            worker_send_answer(w, k, a->type == CORE_DO_REFUSE, a->type == CORE_DO_HELLO_AGAIN);
        if (k && a->type == CORE_DO_REFUSE && a->refuse.reason == CORE_REFUSE_STALLED) {
            world_fault(w, FAULT_WORKER_STALLED);
            world_in(w, 1 + (int64_t)world_below(w, 1000), end_stalled, k,
                     k->life); /* whoever started the worker ends it */
        }
        return;
    case CORE_DO_FORGET_PEER:
    case CORE_DO_BENCH:
    case CORE_DO_HUNG:
        return;
    case CORE_DO_WORK:
        do_work(w, &a->work);
        return;
    case CORE_DO_DROP_TENSORS:
        if (!shell_payload(w, a->payload)->tensors)
            world_fail(w, "tensors of payload %llu are dropped twice", (unsigned long long)a->payload);
        drop_tensors(w, shell_payload(w, a->payload));
        return;
    case CORE_DO_DROP_PAYLOAD:
        drop_payload(w, a->payload);
        return;
    case CORE_DO_LOAD_UNITS:
        units_load(w, a);
        return;
    case CORE_DO_ATTEMPTS:
        store_attempts(w, a);
        return;
    case CORE_DO_COMMIT:
        store_commit(w, &a->commit);
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
        world_fail(w, "%llu bytes of rows are kept, the limit is %llu, and %u subunits go on",
                   (unsigned long long)w->row_bytes, (unsigned long long)w->limits.row_bytes, s.n_reserved);
    if (w->row_bytes != s.row_bytes)
        world_fail(w, "%llu bytes of rows are kept, not %llu", (unsigned long long)w->row_bytes,
                   (unsigned long long)s.row_bytes);
}

/* Count what the core may have to keep, before it decides. */
static void take_payload(struct world *w, const struct core_event *e)
{
    struct sim_payload *p = core_map_get(&w->payloads, e->result.payload);
    struct core_lease_info lease;
    bool errors = false;

    if (!p)
        return;
    w->tensor_bytes += tensor_bytes(p);
    for (uint32_t i = 0; i < p->work.n_items; i++)
        errors = errors || !p->work.ok[i];
    if ((e->result.keep_rows || errors) && core_lease_get(w->core, &e->result.lease, &lease) == 0 &&
        lease.n_items == e->result.n_rows)
        p->row_bytes = e->result.row_bytes;
    w->row_bytes += p->row_bytes;
}

void shell_step_to(struct world *w, const struct core_event *e, int expected)
{
    int rc;

    if (!w->core)
        return;
    if (e->type == CORE_EVENT_RESULT)
        take_payload(w, e);
    core_actions_clear(&w->actions);
    world_say(w, "event %d", (int)e->type);
    ledger_event(w, e, expected);
    rc = core_step(w->core, e, w->now, &w->actions);
    if (rc != expected)
        world_fail(w, "event %d: %s", (int)e->type, strerror(-rc));
    w->tally->steps++;
    core_validate(w->core);
    for (size_t i = 0; i < w->actions.n; i++) {
        ledger_action(w, &w->actions.items[i]);
        carry_out(w, &w->actions.items[i]);
    }
    check_memory(w);
    ledger_check(w);
}

void shell_step(struct world *w, const struct core_event *e)
{
    shell_step_to(w, e, 0);
}

/* -- life of the broker -- */

static void start_again(struct world *w, void *what, uint64_t life)
{
    (void)what;
    if (life == w->epoch && !w->core)
        shell_start(w);
}

void shell_start(struct world *w)
{
    w->epoch++;
    ledger_start(w);
    w->core = core_new(&w->limits, w->epoch);
    if (!w->core)
        abort();
    w->shutting_down = false;
    w->stopped_until = 0;
    w->n_commits = 0;
    world_say(w, "broker epoch=%llu", (unsigned long long)w->epoch);
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (!w->jobs[n].finished && !w->jobs[n].cancelled) {
            w->tally->faults[FAULT_RETRY_CUT] += w->jobs[n].retry.on && w->jobs[n].retry.unit > 0;
            open_job(w, &w->jobs[n]);
        }
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

void shell_cut_off(struct world *w, void *what, uint64_t life)
{
    if (life != w->epoch || !w->core || shell_is_stopped(w, shell_cut_off, what, life))
        return;
    world_fault(w, FAULT_BROKER_CRASH);
    shell_crash(w);
}
