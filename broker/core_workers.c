/* Workers, the pools of those that compute the same, and their leases. */
#include "broker/core_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- room ---------------------------------------------------------------------------------------------------------- */

static bool has_room(const struct core_worker *w, const struct core *c)
{
    if (w->silent || w->holds_alone || w->window_items == 0 || w->n_leases >= c->limits.max_worker_leases)
        return false;
    if (w->n_leases == 0)
        return true;
    return w->pool->clearing != w && w->n_late == 0 && w->held_items < w->window_items;
}

void core_worker_update(struct core_worker *w, struct core *c)
{
    int64_t key;

    if (w->pool->clearing == w && (w->silent || w->window_items == 0))
        w->pool->clearing = NULL; /* nobody waits for one that may never be free */
    if (!has_room(w, c)) {
        core_heap_remove(&w->pool->room, &w->pool_place);
        core_heap_remove(&w->group->room, &w->group_place);
        return;
    }
    /* The empty ones first, they take a task of any size; then by free items; those on trial last. */
    key = (int64_t)w->window_items - w->held_items + (w->n_leases == 0 ? (int64_t)1 << 32 : 0);
    if (w->n_late > 0)
        key = 0;
    if (core_heap_set(&w->pool->room, &w->pool_place, -key, w) < 0 ||
        core_heap_set(&w->group->room, &w->group_place, -key, w) < 0)
        core_break(c);
}

bool core_worker_fits(const struct core_worker *w, const struct core *c, uint32_t n_items, uint64_t n_bytes)
{
    if (!has_room(w, c))
        return false;
    return w->n_leases == 0 || (n_items <= w->window_items - w->held_items && w->held_bytes <= w->window_bytes &&
                                n_bytes <= w->window_bytes - w->held_bytes);
}

static void set_window(struct core_worker *w, struct core *c, uint32_t items, uint64_t bytes)
{
    w->window_items = items < c->limits.max_worker_items ? items : c->limits.max_worker_items;
    w->window_bytes = bytes;
}

/* -- leases -------------------------------------------------------------------------------------------------------- */

static void describe_inputs(struct core_work *work, struct core_task *t)
{
    struct core_part *p = t->part;

    for (uint32_t k = 0; k < t->node; k++) {
        const struct core_task *in = &p->tasks[k];

        if (p->unit->job->nodes[t->node].spec.needs >> k & 1)
            work->inputs[work->n_inputs++] =
                (struct core_input){.payload = in->payload, .node = k, .n_tensor = in->n_ok, .ok = in->ok};
    }
}

static void emit_work(struct core *c, const struct core_lease *l)
{
    struct core_task *t = l->task;
    struct core_work *work = &core_emit(c, CORE_DO_WORK)->work;

    *work = (struct core_work){
        .peer = l->worker->peer,
        .epoch = c->epoch,
        .lease = l->id,
        .job = t->part->unit->job->id,
        .unit = t->part->unit->number,
        .node = t->node,
        .attempt = t->part->failures,
        .first = t->part->first,
        .count = t->part->count,
        .n_items = t->n_rows,
        .items = t->rows,
        .alone = l->alone,
    };
    describe_inputs(work, t);
}

static void extend(struct core *c, struct core_lease *l)
{
    if (core_heap_set(&c->lease_deadlines, &l->deadline_place, c->now_ms + c->limits.lease_ms, l) < 0)
        core_break(c);
}

void core_lease_grant(struct core *c, struct core_task *t, struct core_worker *w)
{
    struct core_job *j = t->part->unit->job;
    struct core_lease *l = calloc(1, sizeof(*l));

    if (!l || core_map_put(&c->leases, c->next_lease, l) < 0) {
        free(l);
        core_break(c);
        return;
    }
    memcpy(t->rows, t->part->alive, t->part->n_words * sizeof(t->rows[0]));
    t->n_rows = t->part->n_alive;
    t->state = CORE_TASK_LEASED;
    t->lease = l;
    *l = (struct core_lease){
        .id = c->next_lease++,
        .task = t,
        .worker = w,
        .next = w->leases,
        .n_items = t->n_rows,
        .n_bytes = j->nodes[t->node].in_bytes * t->n_rows,
        .alone = core_part_is_alone(t->part),
        .on_trial = w->n_late > 0,
    };
    if (l->next)
        l->next->prev = l;
    w->leases = l;
    w->n_leases++;
    w->held_items += l->n_items;
    w->held_bytes += l->n_bytes;
    w->holds_alone = l->alone;
    core_worker_update(w, c);
    j->nodes[t->node].n_leased++;
    j->n_leases++;
    c->counters.leases_granted++;
    extend(c, l);
    emit_work(c, l);
}

void core_lease_end(struct core *c, struct core_lease *l)
{
    struct core_worker *w = l->worker;
    struct core_job *j = l->task->part->unit->job;

    core_map_take(&c->leases, l->id);
    core_heap_remove(&c->lease_deadlines, &l->deadline_place);
    *(l->prev ? &l->prev->next : &w->leases) = l->next;
    if (l->next)
        l->next->prev = l->prev;
    w->n_leases--;
    w->held_items -= l->n_items;
    w->held_bytes -= l->n_bytes;
    if (l->alone)
        w->holds_alone = false;
    core_worker_update(w, c);
    j->nodes[l->task->node].n_leased--;
    j->n_leases--;
    core_job_touch(j);
    l->task->lease = NULL;
    l->task->state = CORE_TASK_WAITING;
    free(l);
}

static void lease_fails(struct core *c, struct core_lease *l, const char *code, const char *text)
{
    struct core_task *t = l->task;

    core_lease_end(c, l);
    core_task_failed(t, code, text);
}

/* -- pools --------------------------------------------------------------------------------------------------------- */

static struct core_pool *pool_get(struct core *c, uint32_t stage, const uint8_t *fingerprint)
{
    struct core_pool *p;

    for (uint32_t i = 0; i < c->n_pools; i++)
        if (c->pools[i]->stage == stage && memcmp(c->pools[i]->fingerprint, fingerprint, CORE_FINGERPRINT_BYTES) == 0)
            return c->pools[i];
    if (c->n_pools == c->limits.max_pools)
        return NULL;
    p = calloc(1, sizeof(*p));
    if (!p) {
        core_break(c);
        return NULL;
    }
    p->stage = stage;
    p->serial = ++c->next_pool_serial;
    memcpy(p->fingerprint, fingerprint, CORE_FINGERPRINT_BYTES);
    return c->pools[c->n_pools++] = p;
}

static void pool_put(struct core *c, struct core_pool *p)
{
    if (p->n_workers > 0)
        return;
    for (uint32_t i = 0; i < c->n_pools; i++)
        if (c->pools[i] == p)
            c->pools[i] = c->pools[--c->n_pools];
    core_heap_release(&p->room);
    free(p);
}

uint64_t core_group_key(const struct core_pool *p, uint64_t host)
{
    uint64_t key = core_mix64(host ^ core_mix64(p->serial));

    return key ? key : 1;
}

static struct core_group *group_get(struct core *c, uint64_t key)
{
    struct core_group *g = core_map_get(&c->groups, key);

    if (g)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g || core_map_put(&c->groups, key, g) < 0) {
        free(g);
        core_break(c);
        return NULL;
    }
    return g;
}

static void group_put(struct core *c, struct core_group *g, uint64_t key)
{
    if (g->n_workers > 0)
        return;
    core_map_take(&c->groups, key);
    core_heap_release(&g->room);
    free(g);
}

/* -- coming and going ---------------------------------------------------------------------------------------------- */

static void remove_worker(struct core *c, struct core_worker *w, bool clean, const char *text)
{
    struct core_pool *p = w->pool;

    w->silent = true; /* nothing new while its leases end */
    core_worker_update(w, c);
    while (w->leases) {
        struct core_task *t = w->leases->task; /* NOLINT(clang-analyzer-unix.Malloc): core_lease_end takes it off */
        struct core_job_node *n = &t->part->unit->job->nodes[t->node];

        assert(w->leases->worker == w);
        core_lease_end(c, w->leases);
        if (clean) {
            c->counters.returns++;
            core_task_returned(t);
            continue;
        }
        n->failures++;
        c->counters.failures++;
        core_task_failed(t, "worker_lost", text);
    }
    core_heap_remove(&c->worker_deadlines, &w->deadline_place);
    core_map_take(&c->workers_by_peer, w->peer);
    if (w->name_key)
        core_map_take(&c->workers_by_name, w->name_key);
    if (p->clearing == w)
        p->clearing = NULL;
    w->group->n_workers--;
    group_put(c, w->group, w->group_key);
    c->n_workers[p->stage]--;
    p->n_workers--;
    pool_put(c, p);
    free(w);
}

static void heard(struct core *c, struct core_worker *w)
{
    if (w->silent && c->now_ms >= w->rest_until_ms) {
        w->silent = false;
        core_worker_update(w, c);
    }
    w->heard_ms = c->now_ms;
    if (core_heap_set(&c->worker_deadlines, &w->deadline_place, c->now_ms + c->limits.lease_ms, w) < 0)
        core_break(c);
}

static void refuse(struct core *c, uint64_t peer, enum core_refuse_reason reason, const char *text)
{
    struct core_action *a;
    size_t n = strlen(text) + 1;
    char *copy = core_emit_alloc(c, n);

    if (!copy)
        return;
    memcpy(copy, text, n);
    a = core_emit(c, CORE_DO_REFUSE);
    a->refuse.peer = peer;
    a->refuse.reason = reason;
    a->refuse.text = copy;
}

static void hex(const uint8_t *bytes, char ret[2 * CORE_FINGERPRINT_BYTES + 1])
{
    for (int i = 0; i < CORE_FINGERPRINT_BYTES; i++)
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

/* True: there are jobs with nodes of this stage, and none of them wants such a worker. */
static bool is_unwanted(struct core *c, uint32_t stage, const uint8_t *fingerprint, char *text, size_t text_bytes)
{
    const struct core_job_node *wanted = NULL;
    const struct core_job *wanted_by = NULL;
    char want[2 * CORE_FINGERPRINT_BYTES + 1], have[2 * CORE_FINGERPRINT_BYTES + 1];

    for (uint32_t i = 0; i < c->n_jobs; i++)
        for (uint32_t k = 0; k < c->jobs[i]->n_nodes && !c->jobs[i]->closing; k++) {
            const struct core_job_node *n = &c->jobs[i]->nodes[k];

            if (n->spec.stage != stage)
                continue;
            if (n->any_fingerprint || memcmp(n->spec.fingerprint, fingerprint, CORE_FINGERPRINT_BYTES) == 0)
                return false;
            wanted = n;
            wanted_by = c->jobs[i];
        }
    if (!wanted)
        return false;
    hex(wanted->spec.fingerprint, want);
    hex(fingerprint, have);
    snprintf(text, text_bytes, "stage %u: job %llu wants model %s, this worker computes %s", stage,
             (unsigned long long)wanted_by->id, want, have);
    return true;
}

static struct core_worker *add_worker(struct core *c, const struct core_event *e, struct core_pool *pool)
{
    struct core_worker *w = calloc(1, sizeof(*w));

    if (!w || core_map_put(&c->workers_by_peer, e->hello.peer, w) < 0) {
        free(w);
        core_break(c);
        return NULL;
    }
    w->peer = e->hello.peer;
    w->host = e->hello.host;
    w->nonce = e->hello.nonce;
    w->pool = pool;
    w->name_key = core_mix64(core_mix64(w->host) ^ w->nonce) | 1;
    if (core_map_put(&c->workers_by_name, w->name_key, w) < 0)
        core_break(c);
    w->group_key = core_group_key(pool, w->host);
    w->group = group_get(c, w->group_key);
    if (!w->group) {
        core_map_take(&c->workers_by_peer, w->peer);
        core_map_take(&c->workers_by_name, w->name_key);
        free(w);
        return NULL;
    }
    w->group->n_workers++;
    pool->n_workers++;
    c->n_workers[pool->stage]++;
    return w;
}

/* The peer's own earlier HELLO, or the process's under another connection. NULL: none that stays. */
static struct core_worker *known_worker(struct core *c, const struct core_event *e)
{
    uint64_t name = core_mix64(core_mix64(e->hello.host) ^ e->hello.nonce) | 1;
    struct core_worker *w = core_map_get(&c->workers_by_peer, e->hello.peer);
    struct core_worker *same;

    if (w && w->name_key == name && w->pool->stage == e->hello.stage &&
        memcmp(w->pool->fingerprint, e->hello.fingerprint, CORE_FINGERPRINT_BYTES) == 0)
        return w;
    if (w)
        remove_worker(c, w, false, "its worker started anew");
    same = core_map_get(&c->workers_by_name, name);
    if (same) {
        core_emit_id(c, CORE_DO_FORGET_PEER, same->peer);
        remove_worker(c, same, false, "its worker connected anew");
    }
    return NULL;
}

void core_worker_hello(struct core *c, const struct core_event *e)
{
    struct core_worker *w;
    struct core_pool *pool;
    char text[192];

    assert(e->hello.peer != 0);
    w = known_worker(c, e);
    if (!w) {
        if (e->hello.stage == 0 || e->hello.stage >= CORE_MAX_STAGES) {
            refuse(c, e->hello.peer, CORE_REFUSE_BAD_MESSAGE, "unknown stage");
            return;
        }
        if (c->shutdown) {
            refuse(c, e->hello.peer, CORE_REFUSE_DRAINING, "the broker is shutting down");
            return;
        }
        if (is_unwanted(c, e->hello.stage, e->hello.fingerprint, text, sizeof(text))) {
            refuse(c, e->hello.peer, CORE_REFUSE_MODEL, text);
            return;
        }
        pool = c->workers_by_peer.n < c->limits.max_workers ? pool_get(c, e->hello.stage, e->hello.fingerprint) : NULL;
        if (!pool) {
            refuse(c, e->hello.peer, CORE_REFUSE_LIMIT, "too many workers, or too many kinds of them");
            return;
        }
        w = add_worker(c, e, pool);
        if (!w)
            return;
    }
    set_window(w, c, e->hello.window_items, e->hello.window_bytes);
    core_worker_update(w, c);
    heard(c, w);
    core_emit_id(c, CORE_DO_WELCOME, e->hello.peer);
}

/* -- messages ------------------------------------------------------------------------------------------------------ */

static void heartbeat(struct core *c, struct core_worker *w, const struct core_event *e)
{
    uint32_t n = e->heartbeat.n;

    if (e->heartbeat.epoch != c->epoch)
        return;
    if (n > c->limits.max_worker_leases) {
        c->counters.dropped_bad++;
        n = c->limits.max_worker_leases;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct core_lease *l = core_map_get(&c->leases, e->heartbeat.leases[i]);

        if (l && l->worker == w)
            extend(c, l);
    }
    if (c->faults.heartbeat_extends_all)
        for (struct core_lease *l = w->leases; l; l = l->next)
            extend(c, l);
}

/* The lease that a peer speaks of, if it is its own and of this epoch. */
static struct core_lease *find_lease(struct core *c, const struct core_lease_ref *ref)
{
    struct core_lease *l = core_map_get(&c->leases, ref->lease);

    if (l && (c->faults.skip_fence || (ref->epoch == c->epoch && l->worker->peer == ref->peer)))
        return l;
    c->counters.dropped_stale++;
    return NULL;
}

/* It ended a lease itself: it works. */
static void not_late(struct core_worker *w, struct core *c)
{
    if (w->n_late == 0)
        return;
    w->n_late = 0;
    w->rest_until_ms = 0;
    w->silent = false;
    core_worker_update(w, c);
}

static void result(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->result.lease);
    struct core_task *t;
    uint64_t host;
    char text[96];

    assert(e->result.payload != 0 && !core_map_get(&c->payloads, e->result.payload));
    if (!l) {
        core_emit_id(c, CORE_DO_DROP_PAYLOAD, e->result.payload);
        return;
    }
    t = l->task;
    host = l->worker->host;
    not_late(l->worker, c);
    if (e->result.n_rows == t->n_rows) {
        core_lease_end(c, l);
        c->counters.results++;
        core_task_result(t, e, host);
        return;
    }
    c->counters.dropped_bad++;
    core_emit_id(c, CORE_DO_DROP_PAYLOAD, e->result.payload);
    snprintf(text, sizeof(text), "a result of %u rows where %u were asked for", e->result.n_rows, t->n_rows);
    t->part->unit->job->nodes[t->node].failures++;
    c->counters.failures++;
    lease_fails(c, l, "bad_result", text);
}

static void failure(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->failure.lease);

    if (!l)
        return;
    not_late(l->worker, c);
    l->task->part->unit->job->nodes[l->task->node].failures++;
    c->counters.failures++;
    lease_fails(c, l, e->failure.code ? e->failure.code : "", e->failure.text ? e->failure.text : "");
}

static void hand_back(struct core *c, const struct core_event *e)
{
    struct core_lease *l = find_lease(c, &e->lease);
    struct core_task *t;

    if (!l)
        return;
    t = l->task;
    not_late(l->worker, c);
    c->counters.returns++;
    core_lease_end(c, l);
    core_task_returned(t);
}

/* `peer` is the first field of every one of these. */
static uint64_t peer_of(const struct core_event *e)
{
    switch (e->type) {
    case CORE_EVENT_CREDIT:
        return e->credit.peer;
    case CORE_EVENT_HEARTBEAT:
        return e->heartbeat.peer;
    case CORE_EVENT_GONE:
        return e->gone.peer;
    case CORE_EVENT_RESULT:
        return e->result.lease.peer;
    case CORE_EVENT_FAILURE:
        return e->failure.lease.peer;
    default:
        return e->lease.peer;
    }
}

void core_worker_event(struct core *c, const struct core_event *e)
{
    struct core_worker *w = core_map_get(&c->workers_by_peer, peer_of(e));

    if (e->type == CORE_EVENT_GONE) {
        if (w)
            remove_worker(c, w, e->gone.clean, "its worker was lost");
        return;
    }
    if (w) {
        heard(c, w);
    } else {
        c->counters.dropped_unknown++;
        core_emit_id(c, CORE_DO_HELLO_AGAIN, peer_of(e));
    }
    if (e->type == CORE_EVENT_RESULT)
        result(c, e); /* also of strangers: the payload must go */
    else if (e->type == CORE_EVENT_FAILURE)
        failure(c, e);
    else if (e->type == CORE_EVENT_RETURN)
        hand_back(c, e);
    else if (w && e->type == CORE_EVENT_HEARTBEAT)
        heartbeat(c, w, e);
    else if (w && e->type == CORE_EVENT_CREDIT) {
        set_window(w, c, e->credit.window_items, e->credit.window_bytes);
        core_worker_update(w, c);
    }
}

/* -- time ---------------------------------------------------------------------------------------------------------- */

/* A worker that lets leases expire may still send heartbeats (its device hangs, say). From then on it is on trial: one
 * lease at a time, longer and longer pauses, and what expires on trial is the worker's fault, not the unit's. */
static void lease_expires(struct core *c, struct core_lease *l)
{
    struct core_worker *w = l->worker;
    struct core_task *t = l->task;
    bool on_trial = l->on_trial;

    t->part->unit->job->nodes[t->node].expiries++;
    c->counters.expiries++;
    if (on_trial || w->n_late == 0)
        w->n_late++;
    if (on_trial)
        w->rest_until_ms = c->now_ms + (c->limits.lease_ms << (w->n_late < 6 ? w->n_late - 2 : 4));
    w->silent = true;
    core_lease_end(c, l);
    if (on_trial)
        core_task_returned(t);
    else
        core_task_failed(t, "expired", "its worker did not answer in time");
}

/* Not heard for lease_ms: nothing new. For worker_ms: forgotten. */
static void worker_is_late(struct core *c, struct core_worker *w)
{
    int64_t forget_at = w->heard_ms + c->limits.worker_ms;

    if (forget_at <= c->now_ms) {
        core_emit_id(c, CORE_DO_FORGET_PEER, w->peer);
        remove_worker(c, w, false, "its worker fell silent");
        return;
    }
    w->silent = true;
    core_worker_update(w, c);
    if (core_heap_set(&c->worker_deadlines, &w->deadline_place, forget_at, w) < 0)
        core_break(c);
}

void core_expire(struct core *c)
{
    struct core_heap *leases = &c->lease_deadlines, *workers = &c->worker_deadlines;

    while (leases->n && leases->entries[0].key <= c->now_ms && !c->broken)
        lease_expires(c, leases->entries[0].item);
    while (workers->n && workers->entries[0].key <= c->now_ms && !c->broken)
        worker_is_late(c, workers->entries[0].item);
}
