#include "tests/simulate/world.h"

static struct sim_job *job_of(struct world *w, uint64_t id)
{
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (w->jobs[n].id == id && w->jobs[n].open)
            return &w->jobs[n];
    return NULL;
}

void ledger_start(struct world *w)
{
    w->ledger = (struct ledger){.now = INT64_MIN, .answer = CORE_N_ACTIONS};
    for (uint32_t n = 0; n < w->n_jobs; n++) {
        w->jobs[n].led = (struct led_job){0};
        for (uint32_t u = 0; u < w->jobs[n].n_units; u++)
            w->jobs[n].units[u].led = (struct led_unit){0};
    }
}

/* -- time -- */

static int64_t next_due(const struct world *w)
{
    int64_t due = INT64_MAX;

    for (const struct led_lease *l = w->ledger.leases; l; l = l->next)
        due = l->deadline < due ? l->deadline : due;
    for (const struct led_worker *k = w->ledger.workers; k; k = k->next) {
        int64_t at = k->heard + (k->late_told ? w->limits.worker_ms : w->limits.lease_ms);

        due = at < due ? at : due;
    }
    return due;
}

static void set_clock(struct world *w)
{
    struct ledger *l = &w->ledger;
    int64_t due = next_due(w), ours = w->now - l->stood_still;

    if (due != INT64_MAX && ours > due + w->limits.lease_ms / 30) {
        ours = due - w->limits.lease_ms / 3;
        ours = ours > l->now ? ours : l->now;
        l->stood_still = w->now - ours;
    }
    l->now = ours > l->now ? ours : l->now;
}

/* Of two leases that end together it may matter which one ends first: it decides which worker failed the subunit first;
 * once a subunit is given up, its other lease no longer counts; and a late worker is no alternative for a subunit. */
static bool order_matters(const struct led_lease *a, const struct led_lease *b)
{
    if (a->subunit == b->subunit)
        return a->worker != b->worker || ledger_gives_up(a->subunit);
    return a->worker != b->worker && (ledger_gives_up(a->subunit) || ledger_gives_up(b->subunit));
}

/* The lease that ends first. If several end together, the core may take any of them. */
static struct led_lease *next_expired(struct world *w)
{
    struct led_lease *first = NULL;

    for (struct led_lease *l = w->ledger.leases; l; l = l->next)
        if (l->deadline <= w->ledger.now && (!first || l->deadline < first->deadline))
            first = l;
    for (struct led_lease *l = w->ledger.leases; l && first; l = l->next)
        w->ledger.vague |= l != first && l->deadline == first->deadline && order_matters(l, first);
    return first;
}

static void expire(struct world *w, struct led_lease *l)
{
    struct led_worker *k = l->worker;
    struct led_subunit *p = l->subunit;

    p->job->led.nodes[l->node].expiries++;
    w->ledger.sum.expiries++;
    if (l->on_trial || k->n_late == 0)
        k->n_late++;
    if (l->on_trial)
        ledger_rest(w, k, w->limits.lease_ms << (k->n_late < 6 ? k->n_late - 2 : 4));
    k->silent = true;
    ledger_failed_on(p, l->node, k);
    ledger_lease_close(w, l);
    if (l->on_trial)
        ledger_returned(w, p, l->node, l->attempt);
    else
        ledger_blame(w, p, l->node, l->attempt);
    if (k->lost && k->n_leases == 0)
        ledger_worker_forgotten(w, k);
}

static void pass_time(struct world *w)
{
    struct led_lease *l;

    while ((l = next_expired(w)) && !w->ledger.vague) {
        if (l->until <= w->ledger.now)
            expire(w, l);
        else if (ledger_stall_at(w, l) <= w->ledger.now)
            ledger_stalls(w, l->worker);
        else
            l->deadline = l->until < ledger_stall_at(w, l) ? l->until : ledger_stall_at(w, l);
    }
    for (struct led_worker *k = w->ledger.workers; k; k = k->next)
        k->rest_until = k->rest_until > w->ledger.now ? k->rest_until : 0;
    ledger_looks_again(w);
    for (struct led_worker *k = w->ledger.workers, *next; k; k = next) {
        next = k->next;
        if (k->heard + w->limits.worker_ms <= w->ledger.now) {
            ledger_expect_forget(w, k->peer);
            ledger_worker_remove(w, k, false);
        } else if (k->heard + w->limits.lease_ms <= w->ledger.now) {
            k->late_told = k->silent = true;
        }
    }
}

/* -- events of workers -- */

static struct led_lease *current_lease(struct world *w, const struct core_lease_ref *ref)
{
    struct led_lease *l = ledger_lease(w, ref->lease);

    if (l && ref->epoch == w->epoch && l->worker->peer == ref->peer) {
        if (l->worker->n_late > 0) { /* it ended a lease itself: its trial is over */
            l->worker->silent = l->worker->lost;
            l->worker->rest_until = ledger_is_careful(l->worker) ? l->worker->rest_until : 0;
        }
        l->worker->n_late = 0;
        return l;
    }
    w->ledger.sum.dropped_stale++;
    return NULL;
}

static void bad_end(struct world *w, struct led_lease *l)
{
    l->subunit->job->led.nodes[l->node].failures++;
    w->ledger.sum.failures++;
    ledger_fails(w, l);
}

static void result(struct world *w, const struct core_event *e)
{
    struct led_lease *l = current_lease(w, &e->result.lease);

    if (!l)
        return;
    if (l->n_items != e->result.n_rows) {
        w->ledger.sum.dropped_bad++;
        l->subunit->job->led.nodes[l->node].bad_results++;
        bad_end(w, l);
        return;
    }
    w->ledger.sum.results++;
    ledger_measure(w, l);
    ledger_did_well(w, l);
    ledger_saw(w, l);
    l->subunit->makers[l->node] = ledger_name(l->worker);
    l->subunit->job->led.nodes[l->node].items_done += l->n_items;
    ledger_result(w, l->subunit, l->node, e->result.ok);
}

static void heartbeat(struct world *w, struct led_worker *k, const struct core_event *e)
{
    struct led_lease *l;

    for (uint32_t i = 0; i < e->heartbeat.n && e->heartbeat.epoch == w->epoch; i++)
        if (i < w->limits.max_worker_leases && (l = ledger_lease(w, e->heartbeat.leases[i])) && l->worker == k)
            ledger_extend(w, l);
    if (e->heartbeat.epoch == w->epoch && e->heartbeat.n > w->limits.max_worker_leases)
        w->ledger.sum.dropped_bad++;
}

static void worker_event(struct world *w, const struct core_event *e, uint64_t peer)
{
    struct led_worker *k = ledger_worker(w, peer);
    struct led_lease *l;

    if (k) {
        ledger_heard(w, k);
    } else {
        w->ledger.sum.dropped_unknown++;
        w->ledger.answer = CORE_DO_HELLO_AGAIN;
    }
    if (e->type == CORE_EVENT_RESULT) {
        result(w, e);
    } else if (e->type == CORE_EVENT_FAILURE && (l = current_lease(w, &e->failure.lease))) {
        if (e->failure.refused)
            ledger_refuses(w, l, e->failure.refused);
        else
            bad_end(w, l);
    } else if (e->type == CORE_EVENT_RETURN && (l = current_lease(w, &e->lease))) {
        ledger_hands_back(w, l);
    } else if (e->type == CORE_EVENT_UNSEEN && (l = current_lease(w, &e->lease))) {
        ledger_unseen(w, l);
    } else if (e->type == CORE_EVENT_HEARTBEAT && k) {
        heartbeat(w, k, e);
    } else if (e->type == CORE_EVENT_CREDIT && k) {
        k->window_items = e->credit.window_items;
        k->window_bytes = e->credit.window_bytes;
    }
}

static void payload_lost(struct world *w, uint64_t payload)
{
    const struct sim_payload *p = core_map_get(&w->payloads, payload);
    struct led_subunit *subunit;

    if (!p || !p->tensors)
        return;
    for (subunit = p->work.job->units[p->work.unit].led.subunits; subunit; subunit = subunit->next)
        if (subunit->first == p->work.first && subunit->count == p->work.count &&
            subunit->state[p->work.node] == LED_DONE)
            break;
    if (!subunit)
        return; /* dropped by something else in the same step */
    w->ledger.sum.payloads_lost++;
    subunit->unblamed++;
    ledger_restart(w, subunit);
    if (subunit->unblamed > w->limits.max_unblamed)
        ledger_blame(w, subunit, 0, subunit->failures);
}

static void shutdown_begins(struct world *w)
{
    w->ledger.shutdown = true;
    for (struct led_worker *k = w->ledger.workers, *next; k; k = next) {
        next = k->next;
        if (k->lost)
            ledger_worker_forgotten(w, k);
    }
}

/* -- events of jobs -- */

static uint32_t priority_of(uint32_t given)
{
    return given ? given : 100;
}

/* It was idle, and does not get later what it could not use. */
static void wake(const struct world *w, struct led_job *j)
{
    if (j->pass < w->ledger.most_pass)
        j->pass = w->ledger.most_pass;
}

static bool is_idle(const struct sim_job *j)
{
    for (uint32_t u = 0; u < j->n_units; u++)
        if (j->units[u].led.in_memory && !j->units[u].led.started)
            return false;
    return true;
}

static void units(struct world *w, struct sim_job *j, const struct core_event *e)
{
    bool stale = j->led.load_is_stale || j->led.failed;

    if (is_idle(j))
        wake(w, &j->led);
    j->led.loading = j->led.load_is_stale = false;
    for (uint32_t i = 0; i < e->units.n && !stale && !j->led.closing; i++)
        ledger_load(w, j, &e->units.rows[i]);
}

static void committed(struct world *w, struct sim_job *j, uint32_t unit)
{
    struct led_unit *u = &j->units[unit].led;

    if (!u->committing) {
        w->ledger.sum.dropped_bad++;
        return;
    }
    for (const struct led_subunit *p = u->subunits; p; p = p->next) {
        uint32_t n_alive = (uint32_t)(__builtin_popcountll(p->alive[0]) + __builtin_popcountll(p->alive[1]));

        j->led.items_done += p->n_wanted;
        j->led.items_failed += p->n_wanted - n_alive;
        j->led.items_quarantined += p->quarantined;
        w->ledger.sum.quarantined += p->quarantined;
    }
    j->led.units_done++;
    j->led.load_is_stale |= j->led.loading && unit >= j->led.load_from;
    ledger_forget_unit(w, j, unit);
}

/* Units with a commit under way stay, unless the job has failed. */
static void forget_units(struct world *w, struct sim_job *j)
{
    for (uint32_t u = 0; u < j->n_units; u++)
        if (!j->units[u].commit_pending || j->led.failed)
            ledger_forget_unit(w, j, u);
}

/* Units with failed items are done again from the start. */
static void put_back_failed(struct world *w, struct sim_job *j)
{
    for (uint32_t u = 0; u < j->n_units; u++) {
        uint32_t n = 0;

        for (const struct led_subunit *p = j->units[u].led.subunits; p; p = p->next)
            n += p->n_wanted - (uint32_t)(__builtin_popcountll(p->alive[0]) + __builtin_popcountll(p->alive[1]));
        if (n > 0 && !j->units[u].led.committing && !j->units[u].led.row.is_again)
            ledger_forget_unit(w, j, u);
    }
}

static void set_stopped(struct led_job *j, bool stopped)
{
    j->n_failed = j->paused && !stopped ? 0 : j->n_failed;
    j->n_finished = j->paused && !stopped ? 0 : j->n_finished;
    j->paused = j->paused && stopped;
    j->stopped = stopped;
    j->stop_told = false;
}

static void job_event(struct world *w, struct sim_job *j, const struct core_event *e)
{
    if (j->led.failed && e->type != CORE_EVENT_JOB_CLOSE)
        return;
    switch (e->type) {
    case CORE_EVENT_JOB_START:
    case CORE_EVENT_JOB_STOP:
        if (j->led.paused && e->type == CORE_EVENT_JOB_START)
            put_back_failed(w, j);
        if ((j->led.stopped || j->led.paused) && e->type == CORE_EVENT_JOB_START)
            wake(w, &j->led);
        set_stopped(&j->led, e->type == CORE_EVENT_JOB_STOP);
        return;
    case CORE_EVENT_JOB_PRIORITY:
        j->led.priority = priority_of(e->job_priority.priority);
        return;
    case CORE_EVENT_JOB_CLOSE:
        j->led.closing = true;
        forget_units(w, j);
        return;
    case CORE_EVENT_JOB_FAILED:
        j->led.failed = true;
        j->led.loading = j->led.load_is_stale = false;
        forget_units(w, j);
        return;
    case CORE_EVENT_JOB_SEALED:
        j->led.sealed = true;
        return;
    case CORE_EVENT_UNITS_ADDED:
        j->led.sealed = j->led.done = false;
        return;
    case CORE_EVENT_UNITS_AGAIN:
        j->led.done = false;
        return;
    case CORE_EVENT_DISK_FULL:
        j->led.blocked = true;
        return;
    case CORE_EVENT_UNITS:
        units(w, j, e);
        return;
    case CORE_EVENT_COMMITTED:
        committed(w, j, e->commit.unit);
        return;
    case CORE_EVENT_COMMIT_FAILED:
        j->led.blocked = !j->led.closing;
        if (j->led.closing)
            ledger_forget_unit(w, j, e->commit.unit);
        return;
    case CORE_EVENT_DISK_OK:
        if (j->led.blocked && !j->led.closing)
            wake(w, &j->led);
        j->led.blocked = false;
        return;
    default:
        return;
    }
}

void ledger_event(struct world *w, const struct core_event *e, int expected)
{
    struct led_worker *k;

    if (w->ledger.vague)
        return;
    w->ledger.sum.events++;
    w->ledger.answer = CORE_N_ACTIONS;
    w->ledger.n_forgets = 0;
    set_clock(w);
    if (expected < 0) {
        w->ledger.sum.dropped_bad += e->type == CORE_EVENT_UNITS;
        return;
    }
    switch (e->type) {
    case CORE_EVENT_HELLO:
        ledger_hello(w, e);
        return;
    case CORE_EVENT_GONE:
        k = ledger_worker(w, e->gone.peer);
        if (k)
            ledger_gone(w, k, e->gone.clean, e->gone.ended);
        return;
    case CORE_EVENT_CREDIT:
        worker_event(w, e, e->credit.peer);
        return;
    case CORE_EVENT_HEARTBEAT:
        worker_event(w, e, e->heartbeat.peer);
        return;
    case CORE_EVENT_RESULT:
        worker_event(w, e, e->result.lease.peer);
        return;
    case CORE_EVENT_FAILURE:
        worker_event(w, e, e->failure.lease.peer);
        return;
    case CORE_EVENT_RETURN:
    case CORE_EVENT_UNSEEN:
        worker_event(w, e, e->lease.peer);
        return;
    case CORE_EVENT_PAYLOAD_LOST:
        payload_lost(w, e->payload);
        return;
    case CORE_EVENT_SHUTDOWN:
        shutdown_begins(w);
        return;
    case CORE_EVENT_TICK:
        pass_time(w);
        return;
    case CORE_EVENT_JOB_OPEN:
        if (job_of(w, e->job_open.job))
            job_of(w, e->job_open.job)->led = (struct led_job){.stopped = e->job_open.stopped,
                                                               .sealed = e->job_open.sealed,
                                                               .priority = priority_of(e->job_open.priority)};
        return;
    default:
        if (e->job && job_of(w, e->job)) /* `job` is the first field of every one of these */
            job_event(w, job_of(w, e->job), e);
    }
}
