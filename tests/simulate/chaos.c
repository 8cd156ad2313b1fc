/* Chooses which fault happens when. */
#include "tests/simulate/world.h"

#include <errno.h>
#include <string.h>

static void free_disk(struct world *w, void *what, uint64_t life)
{
    (void)what;
    (void)life;
    w->disk_full = false; /* the shell notices by itself */
}

static void fill_disk(struct world *w)
{
    if (w->disk_full)
        return;
    world_fault(w, FAULT_DISK_FULL);
    w->disk_full = true;
    world_in(w, 200 + (int64_t)world_below(w, 3000), free_disk, NULL, 0);
}

static void fail_job(struct world *w, struct sim_job *j)
{
    if (!w->core || !j->open || j->failed)
        return; /* a closing job may fail, too */
    world_fault(w, FAULT_JOB_FAILED);
    world_say(w, "fail job=%llu", (unsigned long long)j->id);
    shell_fail_job(w, j);
}

/* The pictures of a job are on a file system that one host loses for a while, or all hosts. */
static void see_all(struct world *w, void *blind, uint64_t life)
{
    (void)w;
    (void)life;
    *(uint32_t *)blind = 0;
}

static void hide_pictures(struct world *w, const struct sim_job *j)
{
    const uint64_t only = world_below(w, N_HOSTS); /* 0: all */
    const int64_t ms = 500 + (int64_t)world_below(w, 30000);

    for (uint64_t host = 1; host < N_HOSTS; host++) {
        if (only && host != only)
            continue;
        w->blind[host] |= 1u << j->index;
        world_in(w, ms, see_all, &w->blind[host], 0);
    }
}

static void bring_back(struct world *w, void *job, uint64_t life)
{
    (void)w;
    (void)life;
    ((struct sim_job *)job)->gone = false;
}

static void take_away(struct world *w, struct sim_job *j)
{
    if (j->gone || j->finished)
        return;
    world_fault(w, FAULT_SOURCE_GONE);
    j->gone = true;
    world_in(w, 100 + (int64_t)world_below(w, 2000), bring_back, j, 0);
}

static void lose_payload(struct world *w)
{
    struct sim_payload *p = NULL;

    for (size_t n = 0, i = world_below(w, w->payloads.capacity + 1); w->core && n < w->payloads.capacity && !p;
         n++, i++)
        p = w->payloads.slots[i % w->payloads.capacity].value;
    if (!p || !p->tensors || p->lost || p->work.job->nodes[p->work.node].out_bytes == 0)
        return;
    world_fault(w, FAULT_PAYLOAD_LOST);
    p->lost = true;
    shell_step(w, &(struct core_event){.type = CORE_EVENT_PAYLOAD_LOST, .payload = p->handle});
}

static void shut_down(struct world *w, void *what, uint64_t life)
{
    if (life != w->epoch || !w->core || w->shutting_down || shell_is_stopped(w, shut_down, what, life))
        return;
    world_fault(w, FAULT_BROKER_SHUTDOWN);
    w->shutting_down = true;
    shell_step(w, &(struct core_event){.type = CORE_EVENT_SHUTDOWN});
}

static void hurt_broker(struct world *w)
{
    uint64_t dice = world_below(w, 10);

    if (!w->core)
        return;
    if (dice < 3) {
        world_fault(w, FAULT_BROKER_STOPPED);
        world_say(w, "broker stopped");
        w->stopped_until = w->now + 50 + (int64_t)world_below(w, 5 * LEASE_MS);
    } else if (dice < 6) {
        world_fault(w, FAULT_BROKER_CRASH);
        shell_crash(w);
    } else if (!w->shutting_down) {
        struct sim_worker *k = &w->workers[world_below(w, w->n_workers)];

        if (k->alive && !k->draining) /* its connection will be missing at the shutdown */
            worker_reconnect(w, k, true);
        world_in(w, 0, shut_down, NULL, w->epoch);
    }
}

/* -- nonsense -- */

/* Invalid job events change nothing. */
static void talk_nonsense(struct world *w, struct sim_job *j)
{
    struct core_event open = {.type = CORE_EVENT_JOB_OPEN,
                              .job_open = {.job = j->id, .n_nodes = j->n_nodes, .nodes = j->nodes}};
    struct core_event units = {.type = CORE_EVENT_UNITS, .units.job = j->id};
    struct core_event committed = {.type = CORE_EVENT_COMMITTED, .commit = {j->id, 0}};
    struct core_stats s;

    if (!w->core || !j->open || j->failed)
        return;
    world_fault(w, FAULT_NONSENSE);
    shell_step_to(w, &open, -EEXIST);
    open.job_open.job = 999;
    core_stats_get(w->core, &s);
    if (s.n_jobs == w->limits.max_jobs)
        shell_step_to(w, &open, -ENOSPC);
    open.job_open.n_nodes = CORE_MAX_NODES + 1;
    shell_step_to(w, &open, -EINVAL);
    shell_step_to(w, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = 999}, -ENOENT);
    if (!j->loading)
        shell_step_to(w, &units, -EINVAL);
    if (!j->units[0].led.committing && !w->ledger.vague)
        shell_step(w, &committed);
}

static void visitor_leaves(struct world *w, void *peer, uint64_t how)
{
    struct core_event e = {.type = CORE_EVENT_GONE};

    if (!w->core || shell_is_stopped(w, visitor_leaves, peer, how))
        return;
    e.gone.peer = *(uint64_t *)peer;
    e.gone.clean = how == 1;
    e.gone.ended = how == 2;
    shell_step(w, &e);
}

/* A visitor takes a place among the workers, but no work. */
static void visit(struct world *w)
{
    struct core_event e = {.type = CORE_EVENT_HELLO};
    uint64_t *peer = world_alloc(w, sizeof(*peer)), how = world_below(w, 4);

    if (!w->core)
        return;
    world_fault(w, FAULT_VISITOR);
    *peer = w->next_peer++;
    e.hello.peer = *peer;
    e.hello.host = 9;
    e.hello.nonce = w->next_nonce++;
    e.hello.stage = world_chance(w, 50) ? (uint32_t)world_below(w, 2) * N_STAGES : 1 + (uint32_t)world_below(w, 3);
    e.hello.fingerprint.bytes[0] = (uint8_t)(7 + world_below(w, 5));
    shell_step(w, &e);
    if (how < 3) /* or it falls silent */
        world_in(w, (int64_t)world_below(w, 4000), visitor_leaves, peer, how);
}

/* A lease at random. NULL: there is none. */
static const struct led_lease *any_lease(struct world *w)
{
    const struct led_lease *l = w->ledger.leases;

    for (uint64_t n = world_below(w, 8); n > 0 && l && l->next; n--)
        l = l->next;
    return l;
}

/* More leases than a worker may hold: the last one is ignored. */
static void long_heartbeat(struct world *w, const struct led_lease *l)
{
    uint64_t leases[1025] = {0};
    struct core_event e = {.type = CORE_EVENT_HEARTBEAT};

    leases[w->limits.max_worker_leases] = l->id;
    e.heartbeat.peer = l->worker->peer;
    e.heartbeat.epoch = w->epoch;
    e.heartbeat.leases = leases;
    e.heartbeat.n = w->limits.max_worker_leases + 1;
    shell_step(w, &e);
}

/* A peer names a lease of another peer, or its own lease in another epoch. */
static void lie(struct world *w)
{
    const struct led_lease *l = w->core ? any_lease(w) : NULL;
    const struct led_worker *k = w->ledger.workers;
    bool own = world_chance(w, 300);
    struct core_lease_ref ref;
    struct core_event e = {0};

    if (!l || w->ledger.vague)
        return;
    while (k && (k->lost || k == l->worker))
        k = k->next;
    k = own ? l->worker : k;
    if (!k || k->lost)
        return;
    world_fault(w, FAULT_FOREIGN_LEASE);
    ref = (struct core_lease_ref){k->peer, w->epoch - own, l->id};
    if (own && world_chance(w, 500)) {
        long_heartbeat(w, l);
        return;
    }
    switch (world_below(w, 3)) {
    case 0:
        e.type = CORE_EVENT_HEARTBEAT;
        e.heartbeat.peer = ref.peer;
        e.heartbeat.epoch = ref.epoch;
        e.heartbeat.leases = &ref.lease;
        e.heartbeat.n = 1;
        break;
    case 1:
        e.type = CORE_EVENT_FAILURE;
        e.failure.lease = ref;
        break;
    default:
        e.type = world_chance(w, 300) ? CORE_EVENT_UNSEEN : CORE_EVENT_RETURN;
        e.lease = ref;
    }
    shell_step(w, &e);
}

/* -- the dice -- */

static void hurt_worker(struct world *w, struct sim_worker *k)
{
    if (!k->alive || k->hung || k->stuck || k->draining)
        return;
    if (w->wild && k->lie == LIE_NONE && world_chance(w, 60)) {
        world_fault(w, FAULT_WORKER_LIAR);
        k->lie = LIE_KEEPS;
        return;
    }
    switch (world_below(w, 6)) {
    case 0:
        if (worker_may_hit(w, k->held, k->n_held)) {
            world_fault(w, FAULT_WORKER_CRASH);
            worker_crash(w, k);
        }
        return;
    case 1:
    case 2:
        if (worker_may_hit(w, k->held, k->n_held)) {
            bool only_stuck = world_chance(w, 500);

            world_fault(w, only_stuck ? FAULT_WORKER_STUCK : FAULT_WORKER_HANG);
            worker_hang(w, k, 100 + (int64_t)world_below(w, 6000), only_stuck);
        }
        return;
    case 3:
        world_fault(w, FAULT_WORKER_DRAIN);
        worker_drain(w, k);
        return;
    case 4:
        worker_return_one(w, k);
        return;
    default:
        world_fault(w, FAULT_WORKER_RECONNECT);
        worker_reconnect(w, k, false);
        return;
    }
}

static void hurt_jobs(struct world *w, struct sim_job *j, uint64_t dice)
{
    if (dice < 68)
        lose_payload(w);
    else if (dice < 70)
        clients_vanish(w, j);
    else if (dice < 72)
        clients_retry(w, j);
    else if (dice < 74)
        hide_pictures(w, j);
    else if (dice < 75)
        clients_cancel(w, j);
    else if (dice < 78)
        visit(w);
    else if (dice < 81)
        lie(w);
    else if (dice < 83)
        talk_nonsense(w, j);
    else if (dice < 89)
        hurt_broker(w);
    else if (dice < 93)
        fill_disk(w);
    else if (dice < 95)
        clients_stop(w, j);
    else if (dice < 96)
        clients_change_priority(w, j);
    else if (dice < 97)
        take_away(w, j);
    else if (dice < 99)
        clients_close(w, j);
    else
        fail_job(w, j);
}

static void chaos(struct world *w, void *what, uint64_t life)
{
    uint64_t dice = world_below(w, 100);
    struct sim_job *j = &w->jobs[world_below(w, w->n_jobs)];

    (void)what;
    (void)life;
    if (w->now >= w->faults_end) {
        world_say(w, "quiet from now on");
        w->quiet = true;
        for (uint32_t n = 0; n < w->n_workers; n++) {
            w->workers[n].slow = false;
            w->workers[n].lie = LIE_NONE;
        }
        for (uint32_t n = 0; n < w->n_jobs; n++)
            w->jobs[n].gone = false;
        memset(w->blind, 0, sizeof(w->blind));
        return;
    }
    if (dice < 60)
        hurt_worker(w, &w->workers[world_below(w, w->n_workers)]);
    else if (w->now >= w->stopped_until) /* nothing else can happen to a stopped broker */
        hurt_jobs(w, j, dice);
    if (w->now >= w->stopped_until)
        clients_do_again(w, j);
    world_in(w, 20 + (int64_t)world_below(w, 400), chaos, NULL, 0);
}

void chaos_start(struct world *w)
{
    world_in(w, 100, chaos, NULL, 0);
}
