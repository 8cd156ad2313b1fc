/* Compares what the core does and reports with the ledger. */
#include "tests/simulate/world.h"

#include <string.h>

static struct sim_job *find_job(struct world *w, uint64_t id)
{
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (w->jobs[n].id == id && w->jobs[n].open)
            return &w->jobs[n];
    world_fail(w, "an action for job %llu, which is not open", (unsigned long long)id);
}

/* -- leases -- */

static struct led_subunit *find_subunit(struct world *w, struct sim_job *j, const struct core_work *a)
{
    for (struct led_subunit *p = j->units[a->unit].led.subunits; p; p = p->next)
        if (p->first == a->first && p->count == a->count)
            return p;
    world_fail(w, "lease %llu: unit %u has no subunit [%u+%u]", (unsigned long long)a->lease, a->unit, a->first,
               a->count);
}

/* The first lease of a subunit, which reserves memory. */
static void check_start(struct world *w, const struct sim_job *j, const struct led_subunit *p)
{
    const struct ledger *l = &w->ledger;
    uint64_t need = core_graph_peak_bytes(j->nodes, j->n_nodes) * p->n_wanted + j->units[p->unit].picture_bytes;
    uint64_t rows = (uint64_t)ROW_BYTES * j->n_nodes * p->n_wanted;

    if (j->led.stopped || j->led.paused || j->led.blocked || j->led.failed || j->led.closing)
        world_fail(w, "unit %u starts, and its job is stopped, blocked, failed or closed", p->unit);
    if (need && l->reserved_bytes && l->reserved_bytes + need > w->limits.memory_bytes)
        world_fail(w, "unit %u starts without memory: %llu of %llu bytes are reserved, it needs %llu", p->unit,
                   (unsigned long long)l->reserved_bytes, (unsigned long long)w->limits.memory_bytes,
                   (unsigned long long)need);
    if ((l->n_reserved || w->n_commits) && w->row_bytes + l->reserved_rows + rows > w->limits.row_bytes)
        world_fail(w, "unit %u starts without room for its rows", p->unit);
}

/* The most nodes that may come behind this one. */
static uint32_t nodes_behind(const struct sim_job *j, uint32_t node)
{
    uint32_t most = 0;

    for (uint32_t k = node + 1; k < j->n_nodes; k++)
        if ((j->nodes[k].needs >> node & 1) && nodes_behind(j, k) + 1 > most)
            most = nodes_behind(j, k) + 1;
    return most;
}

static bool has_fresh(const struct sim_job *j, uint32_t node)
{
    for (uint32_t u = 0; u < j->n_units; u++)
        for (const struct led_subunit *p = j->units[u].led.subunits; p; p = p->next)
            if (!p->reserved && !ledger_is_suspect(p) && ledger_is_ready(p, node))
                return true;
    return false;
}

/* A worker starts a subunit of this job only if no other job of which it could start one has got less. */
static void check_share(struct world *w, const struct sim_job *j, uint32_t node, const struct led_worker *k)
{
    for (uint32_t n = 0; n < w->n_jobs; n++) {
        const struct sim_job *other = &w->jobs[n];
        const struct led_job *led = &other->led;

        if (other == j || !other->open || led->stopped || led->paused || led->blocked || led->failed || led->closing)
            continue;
        for (uint32_t i = 0; i < other->n_nodes; i++)
            if (other->nodes[i].needs == 0 && ledger_matches(k, other, i) &&
                nodes_behind(other, i) <= nodes_behind(j, node) && has_fresh(other, i) &&
                (nodes_behind(other, i) < nodes_behind(j, node) || led->pass < j->led.pass))
                world_fail(w, "peer %llu starts a unit of job %llu, and it is the turn of job %llu",
                           (unsigned long long)k->peer, (unsigned long long)j->id, (unsigned long long)other->id);
    }
}

static void check_worker(struct world *w, const struct core_work *a, const struct led_worker *k,
                         const struct sim_job *j, uint64_t bytes)
{
    const struct core_node *n = &j->nodes[a->node];

    if (!k)
        world_fail(w, "lease %llu for a peer that is not known", (unsigned long long)a->lease);
    if (!ledger_matches(k, j, a->node))
        world_fail(w,
                   "lease %llu: stage %u of model %u for a worker of stage %u and model %u, which rests from jobs 0x%x",
                   (unsigned long long)a->lease, n->stage, n->fingerprint.bytes[0], k->stage, k->model, k->kind);
    if (!ledger_has_room(w, k, a->exclusive, a->n_items, bytes))
        world_fail(w,
                   "lease %llu%s of %u items, %llu bytes for peer %llu that holds %u leases, %u items, %llu bytes; "
                   "window %u items, %llu bytes%s%s; late %u times",
                   (unsigned long long)a->lease, a->exclusive ? " exclusive" : "", a->n_items,
                   (unsigned long long)bytes, (unsigned long long)k->peer, k->n_leases, k->held_items,
                   (unsigned long long)k->held_bytes, k->window_items, (unsigned long long)k->window_bytes,
                   k->silent ? ", silent" : "", k->lost ? ", lost" : "", k->n_late);
}

static void grant(struct world *w, const struct core_work *a)
{
    struct sim_job *j = find_job(w, a->job);
    struct led_subunit *p = find_subunit(w, j, a);
    struct led_worker *k = ledger_worker(w, a->peer);
    struct led_lease *l = world_alloc(w, sizeof(*l));
    uint64_t bytes = j->nodes[a->node].needs ? 0 : j->units[a->unit].picture_bytes;

    for (uint32_t n = 0; n < a->node; n++)
        bytes += (j->nodes[a->node].needs >> n & 1) ? j->nodes[n].out_bytes * a->n_items : 0;
    if (w->ledger.shutdown)
        world_fail(w, "lease %llu while the broker shuts down", (unsigned long long)a->lease);
    if (a->epoch != w->epoch || a->lease <= w->ledger.last_lease)
        world_fail(w, "lease %llu is not new", (unsigned long long)a->lease);
    if (!ledger_is_ready(p, a->node))
        world_fail(w, "lease %llu: unit %u [%u+%u] is not ready for node %u, or was there",
                   (unsigned long long)a->lease, a->unit, a->first, a->count, a->node);
    if (memcmp(a->items, p->alive, (p->count + 63) / 64 * sizeof(p->alive[0])) != 0)
        world_fail(w, "lease %llu: unit %u [%u+%u] has other items left", (unsigned long long)a->lease, a->unit,
                   a->first, a->count);
    if (a->attempt != p->failures || a->exclusive != ledger_is_suspect(p))
        world_fail(w, "lease %llu: attempt %u%s of unit %u [%u+%u], which failed %u times",
                   (unsigned long long)a->lease, a->attempt, a->exclusive ? " exclusive" : "", a->unit, a->first,
                   a->count, p->failures);
    if (!p->reserved)
        check_start(w, j, p);
    check_worker(w, a, k, j, bytes);
    if (ledger_avoids(w, p, a->node, k))
        world_fail(w, "lease %llu: peer %llu has failed it, and another could do it", (unsigned long long)a->lease,
                   (unsigned long long)a->peer);
    if (!p->reserved && !a->exclusive)
        check_share(w, j, a->node, k);
    if (!p->reserved) {
        j->led.pass += ((uint64_t)p->n_wanted << 20) / j->led.priority + 1;
        w->ledger.most_pass = j->led.pass > w->ledger.most_pass ? j->led.pass : w->ledger.most_pass;
    }
    *l = (struct led_lease){.next = w->ledger.leases,
                            .id = a->lease,
                            .bytes = bytes,
                            .worker = k,
                            .subunit = p,
                            .node = a->node,
                            .n_items = a->n_items,
                            .attempt = p->failures,
                            .granted = w->ledger.now,
                            .held_at_grant = k->held_items + a->n_items,
                            .rows = {p->alive[0], p->alive[1]},
                            .exclusive = a->exclusive,
                            .on_trial = k->n_late > 0};
    w->ledger.leases = l;
    ledger_extend(w, l);
    w->ledger.last_lease = a->lease;
    w->ledger.sum.leases_granted++;
    w->tally->faults[FAULT_IDLE_WORKER] += k->idle;
    k->idle = false;
    p->state[a->node] = LED_LEASED;
    p->leases[a->node] = l;
    j->units[a->unit].led.started = true;
    k->n_leases++;
    k->held_items += a->n_items;
    k->held_bytes += bytes;
    ledger_set_reserved(w, p, true);
}

/* -- other actions -- */

static void check_attempts(struct world *w, const struct core_action *a)
{
    struct sim_job *j = find_job(w, a->attempts.job);
    const struct sim_unit *su = &j->units[a->attempts.unit];
    const struct led_unit *u = &su->led;
    uint8_t subunits[MAX_ITEMS];
    bool is_cut = u->subunits && u->subunits->split;

    if (!u->in_memory)
        return; /* it failed and its job was closed in one step */
    if (a->attempts.attempts > u->attempts || a->attempts.n_items != su->n_items)
        world_fail(w, "unit %u: %u attempts, but %u failed", a->attempts.unit, a->attempts.attempts, u->attempts);
    if (a->attempts.attempts < u->attempts)
        return; /* more attempts failed in this step; they are reported next */
    ledger_describe_subunits(u, su->n_items, subunits);
    if (is_cut != (a->attempts.subunits != NULL) ||
        (is_cut && memcmp(subunits, a->attempts.subunits, su->n_items) != 0))
        world_fail(w, "unit %u: its subunits are not those that are written down", a->attempts.unit);
}

static void check_commit(struct world *w, const struct core_commit *m)
{
    struct sim_job *j = find_job(w, m->job);
    struct led_unit *u = &j->units[m->unit].led;
    uint32_t n_quarantined = 0, n_failed = 0;

    u->committing = true;
    if (!ledger_is_through(u))
        world_fail(w, "unit %u is committed before its subunits are through", m->unit);
    for (const struct led_subunit *p = u->subunits; p; p = p->next) {
        n_quarantined += p->quarantined;
        n_failed += p->n_wanted - (uint32_t)(__builtin_popcountll(p->alive[0]) + __builtin_popcountll(p->alive[1]));
    }
    if (m->attempts != u->attempts || m->n_quarantined != n_quarantined || m->n_failed != n_failed)
        world_fail(w, "unit %u: committed with %u attempts, %u quarantined, %u failed; %u, %u, %u were", m->unit,
                   m->attempts, m->n_quarantined, m->n_failed, u->attempts, n_quarantined, n_failed);
}

static void check_forget(struct world *w, uint64_t peer)
{
    struct ledger *l = &w->ledger;

    for (uint32_t i = 0; i < l->n_forgets; i++)
        if (l->forgets[i] == peer) {
            l->forgets[i] = l->forgets[--l->n_forgets];
            return;
        }
    world_fail(w, "peer %llu is forgotten without a reason", (unsigned long long)peer);
}

/* The reported failures have happened since the job was started. */
static void check_pause(struct world *w, struct sim_job *j, const struct core_action *a)
{
    if (a->paused.n_failed > j->led.n_failed || a->paused.n_finished > j->led.n_finished)
        world_fail(w, "job %llu pauses since %llu of %llu failed; %llu of %llu did", (unsigned long long)j->id,
                   (unsigned long long)a->paused.n_failed, (unsigned long long)a->paused.n_finished,
                   (unsigned long long)j->led.n_failed, (unsigned long long)j->led.n_finished);
    j->led.paused = true;
    j->led.stop_told = false;
}

/* Nothing of it is in flight. */
static void check_stopped(struct world *w, const struct sim_job *j)
{
    for (const struct led_lease *l = w->ledger.leases; l; l = l->next)
        if (l->subunit->job == j)
            world_fail(w, "job %llu is called stopped, and lease %llu is out", (unsigned long long)j->id,
                       (unsigned long long)l->id);
    for (uint32_t u = 0; u < j->n_units; u++) {
        if (!j->led.paused && !w->ledger.shutdown && ledger_is_through(&j->units[u].led) && !j->units[u].led.committing)
            world_fail(w, "job %llu is called stopped, and unit %u is held", (unsigned long long)j->id, u);
        if (j->units[u].commit_pending)
            world_fail(w, "job %llu is called stopped, and unit %u is committed", (unsigned long long)j->id, u);
        for (const struct led_subunit *p = j->units[u].led.subunits; p; p = p->next)
            if (p->reserved && !w->ledger.shutdown)
                world_fail(w, "job %llu is called stopped, and unit %u holds memory", (unsigned long long)j->id, u);
    }
}

void ledger_action(struct world *w, const struct core_action *a)
{
    struct ledger *l = &w->ledger;

    if (l->vague)
        return;
    switch (a->type) {
    case CORE_DO_REFUSE:
        if (l->refused && l->refused == a->refuse.peer && a->refuse.reason == CORE_REFUSE_STALLED) {
            l->refused = 0;
            return;
        }
        if (l->answer == a->type && a->refuse.reason != l->reason)
            world_fail(w, "refused for reason %d, not %d: %s", (int)a->refuse.reason, (int)l->reason, a->refuse.text);
        /* fall through */
    case CORE_DO_WELCOME:
    case CORE_DO_HELLO_AGAIN:
        if (l->answer != a->type)
            world_fail(w, "peer %llu is answered by action %d, not %d", (unsigned long long)a->peer, (int)a->type,
                       (int)l->answer);
        l->answer = CORE_N_ACTIONS;
        return;
    case CORE_DO_FORGET_PEER:
        check_forget(w, a->peer);
        return;
    case CORE_DO_WORK:
        grant(w, &a->work);
        return;
    case CORE_DO_ATTEMPTS:
        check_attempts(w, a);
        return;
    case CORE_DO_COMMIT:
        check_commit(w, &a->commit);
        return;
    case CORE_DO_LOAD_UNITS:
        find_job(w, a->load.job)->led.loading = true;
        find_job(w, a->load.job)->led.load_from = a->load.from_unit;
        return;
    case CORE_DO_JOB_PAUSED:
        check_pause(w, find_job(w, a->paused.job), a);
        return;
    case CORE_DO_JOB_STOPPED:
        check_stopped(w, find_job(w, a->job));
        find_job(w, a->job)->led.stop_told = true;
        return;
    case CORE_DO_JOB_DONE:
        find_job(w, a->job)->led.done = true;
        return;
    case CORE_DO_DRAINED:
        if (!l->shutdown || l->leases)
            world_fail(w, "drained with leases outstanding");
        return;
    default:
        return;
    }
}

/* -- after a step -- */

static void check_units(struct world *w, struct sim_job *j, struct core_job_stats *sum)
{
    for (uint32_t i = 0; i < j->n_units; i++) {
        struct sim_unit *u = &j->units[i];

        if (!u->led.in_memory)
            continue;
        if (!u->led.committing && ledger_is_through(&u->led) && j->led.paused) {
            ledger_forget_unit(w, j, i); /* put back */
            continue;
        }
        if (u->led.attempts != u->attempts_asked)
            world_fail(w, "unit %u: %u attempts failed, %u are written down", i, u->led.attempts, u->attempts_asked);
        sum->units_loaded++;
        sum->units_commit += u->commit_pending;
        sum->units_started += u->led.started && !ledger_is_through(&u->led);
        for (const struct led_subunit *p = u->led.subunits; p; p = p->next)
            for (uint32_t k = 0; k < j->n_nodes; k++) {
                sum->nodes[k].subunits_ready += ledger_is_ready(p, k);
                sum->nodes[k].subunits_leased += p->state[k] == LED_LEASED;
            }
    }
}

#define SAME(what, a, b)                                                                                 \
    do {                                                                                                 \
        if ((a) != (b))                                                                                  \
            world_fail(w, "%s: %llu, not %llu", what, (unsigned long long)(a), (unsigned long long)(b)); \
    } while (0)

/* JOB_STOPPED is not forgotten. */
static void check_told(struct world *w, const struct sim_job *j, const struct core_job_stats *sum)
{
    uint32_t n = sum->units_commit;

    for (uint32_t u = 0; u < j->n_units; u++)
        for (const struct led_subunit *p = j->units[u].led.subunits; p; p = p->next)
            n += p->reserved;
    if ((j->led.stopped || j->led.paused) && !j->stop_told && !j->led.closing && !j->led.failed && n == 0)
        world_fail(w, "job %llu is stopped, and JOB_STOPPED is missing", (unsigned long long)j->id);
}

static enum core_job_state state_of(const struct led_job *j)
{
    if (j->closing || j->failed)
        return j->closing ? CORE_JOB_CLOSING : CORE_JOB_FAILED;
    if (j->blocked || j->done)
        return j->blocked ? CORE_JOB_BLOCKED : CORE_JOB_DONE;
    if (j->paused || j->stopped)
        return !j->stop_told ? CORE_JOB_STOPPING : j->paused ? CORE_JOB_PAUSED : CORE_JOB_STOPPED;
    return j->sealed ? CORE_JOB_RUNNING : CORE_JOB_IMPORTING;
}

static void check_job(struct world *w, struct sim_job *j)
{
    struct core_job_stats s, sum = {0};

    if (core_job_stats_get(w->core, j->id, &s) < 0)
        world_fail(w, "job %llu is not open", (unsigned long long)j->id);
    check_units(w, j, &sum);
    check_told(w, j, &sum);
    SAME("state", s.state, state_of(&j->led));
    SAME("priority", s.priority, j->led.priority);
    SAME("units loaded", s.units_loaded, sum.units_loaded);
    SAME("units started", s.units_started, sum.units_started);
    SAME("units in commits", s.units_commit, sum.units_commit);
    SAME("units done", s.units_done, j->led.units_done);
    SAME("items done", s.items_done, j->led.items_done);
    SAME("items failed", s.items_failed, j->led.items_failed);
    SAME("items quarantined", s.items_quarantined, j->led.items_quarantined);
    SAME("nodes", s.n_nodes, j->n_nodes);
    for (uint32_t k = 0; k < j->n_nodes; k++) {
        const struct core_node_stats *n = &s.nodes[k], *m = &j->led.nodes[k];

        SAME("stage of a node", n->stage, j->nodes[k].stage);
        SAME("subunits ready", n->subunits_ready, sum.nodes[k].subunits_ready);
        SAME("subunits leased", n->subunits_leased, sum.nodes[k].subunits_leased);
        SAME("items done at a node", n->items_done, m->items_done);
        SAME("failures at a node", n->failures, m->failures);
        SAME("isolations at a node", n->isolations, m->isolations);
        SAME("expiries at a node", n->expiries, m->expiries);
        SAME("bad results at a node", n->bad_results, m->bad_results);
        SAME("returns at a node", n->returns, m->returns);
        SAME("stalls at a node", n->stalls, m->stalls);
        SAME("tensors refused at a node", n->tensors_refused, m->tensors_refused);
    }
}

static void check_sums(struct world *w)
{
    struct ledger *l = &w->ledger;
    struct core_stats s, sum = l->sum;
    uint32_t n_leases = 0;

    core_stats_get(w->core, &s);
    for (const struct led_lease *i = l->leases; i; i = i->next) {
        struct core_lease_ref ref = {i->worker->peer, w->epoch, i->id};
        struct core_lease_info info;

        n_leases++;
        if (core_lease_get(w->core, &ref, &info) < 0)
            world_fail(w, "lease %llu of peer %llu has ended too early", (unsigned long long)i->id,
                       (unsigned long long)ref.peer);
    }
    for (const struct led_worker *k = l->workers; k; k = k->next) {
        sum.n_workers += !k->lost;
        sum.workers[k->stage] += !k->lost;
        sum.benched[k->stage] += k->benched;
    }
    SAME("leases", s.n_leases, n_leases);
    SAME("workers", s.n_workers, sum.n_workers);
    for (uint32_t i = 0; i < N_STAGES; i++) {
        SAME("workers of a stage", s.workers[i], sum.workers[i]);
        SAME("benched workers of a stage", s.benched[i], sum.benched[i]);
    }
    SAME("subunits that hold memory", s.n_reserved, l->n_reserved);
    SAME("bytes reserved", s.reserved_bytes, l->reserved_bytes);
    SAME("events", s.events, sum.events);
    SAME("leases granted", s.leases_granted, sum.leases_granted);
    SAME("results", s.results, sum.results);
    SAME("failures", s.failures, sum.failures);
    SAME("expiries", s.expiries, sum.expiries);
    SAME("returns", s.returns, sum.returns);
    SAME("benches", s.benches, sum.benches);
    SAME("stalls", s.stalls, sum.stalls);
    SAME("tensors refused", s.tensors_refused, sum.tensors_refused);
    SAME("payloads lost", s.payloads_lost, sum.payloads_lost);
    SAME("splits", s.splits, sum.splits);
    SAME("quarantined", s.quarantined, sum.quarantined);
    SAME("stale messages", s.dropped_stale, sum.dropped_stale);
    SAME("messages of strangers", s.dropped_unknown, sum.dropped_unknown);
    SAME("bad messages", s.dropped_bad, sum.dropped_bad);
}

/* No started subunit waits for a node while an empty worker may do it and is not on trial. */
static void check_idle(struct world *w, const struct sim_job *j)
{
    for (uint32_t u = 0; u < j->n_units; u++)
        for (const struct led_subunit *p = j->units[u].led.subunits; p; p = p->next)
            for (uint32_t k = 0; k < j->n_nodes; k++)
                for (const struct led_worker *m = w->ledger.workers; m && p->reserved && ledger_is_ready(p, k);
                     m = m->next)
                    if (m->n_leases == 0 && m->n_late == 0 && !ledger_is_careful(m) && ledger_matches(m, j, k) &&
                        ledger_has_room(w, m, true, 0, 0) && !ledger_avoids(w, p, k, m))
                        world_fail(w, "peer %llu holds nothing, and unit %u [%u+%u] waits for node %u",
                                   (unsigned long long)m->peer, u, p->first, p->count, k);
}

void ledger_check(struct world *w)
{
    if (w->ledger.vague)
        return;
    if (w->ledger.answer != CORE_N_ACTIONS)
        world_fail(w, "action %d is missing", (int)w->ledger.answer);
    if (w->ledger.refused)
        world_fail(w, "peer %llu is not refused, and it is cut off", (unsigned long long)w->ledger.refused);
    if (w->ledger.n_forgets > 0)
        world_fail(w, "peer %llu is not forgotten", (unsigned long long)w->ledger.forgets[0]);
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (w->jobs[n].open) {
            check_job(w, &w->jobs[n]);
            if (!w->ledger.shutdown)
                check_idle(w, &w->jobs[n]);
        }
    check_sums(w);
}
