#include "tests/simulate/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t world_random(struct world *w)
{
    return core_mix64(w->random++);
}

uint64_t world_below(struct world *w, uint64_t n)
{
    return world_random(w) % n;
}

bool world_chance(struct world *w, uint32_t per_mille)
{
    return world_below(w, 1000) < per_mille;
}

void *world_alloc(struct world *w, size_t bytes)
{
    void *p = arena_alloc(&w->arena, bytes);

    if (!p)
        abort();
    return memset(p, 0, bytes);
}

void world_fail(struct world *w, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "simulate: seed %llu, %lld ms: ", (unsigned long long)w->seed, (long long)w->now);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    longjmp(w->failed, 1);
}

void world_say(struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (!w->verbose)
        return;
    printf("%7lld ", (long long)w->now);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

void world_fault(struct world *w, enum fault f)
{
    w->tally->faults[f]++;
}

/* -- agenda -- */

static bool sooner(const struct agenda_entry *a, const struct agenda_entry *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void world_in(struct world *w, int64_t delay_ms, agenda_fn *fn, void *what, uint64_t life)
{
    struct agenda_entry e = {w->now + delay_ms, w->next_seq++, fn, what, life};
    size_t i = w->n_agenda++;

    if (w->n_agenda > w->agenda_capacity) {
        w->agenda_capacity = w->agenda_capacity ? 2 * w->agenda_capacity : 256;
        w->agenda = realloc(w->agenda, w->agenda_capacity * sizeof(e));
        if (!w->agenda)
            abort();
    }
    for (; i > 0 && sooner(&e, &w->agenda[(i - 1) / 2]); i = (i - 1) / 2)
        w->agenda[i] = w->agenda[(i - 1) / 2];
    w->agenda[i] = e;
}

static struct agenda_entry take_next(struct world *w)
{
    struct agenda_entry first = w->agenda[0], e = w->agenda[--w->n_agenda];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child + 1 < w->n_agenda && sooner(&w->agenda[child + 1], &w->agenda[child]))
            child++;
        if (child >= w->n_agenda || !sooner(&w->agenda[child], &e))
            break;
        w->agenda[i] = w->agenda[child];
        i = child;
    }
    w->agenda[i] = e;
    return first;
}

/* -- truth -- */

uint64_t world_value(const struct sim_job *j, uint32_t unit, uint32_t item, uint32_t node, uint64_t inputs)
{
    return core_mix64(inputs ^ core_mix64(j->id ^ core_mix64(((uint64_t)unit << 32 | item) ^ core_mix64(node + 1))));
}

uint64_t world_truth(const struct sim_job *j, uint32_t unit, uint32_t item, uint32_t node)
{
    uint64_t inputs = 0;

    for (uint32_t k = 0; k < node; k++)
        if (j->nodes[node].needs >> k & 1)
            inputs = core_mix64(inputs ^ world_truth(j, unit, item, k));
    return world_value(j, unit, item, node, inputs);
}

/* -- making a world -- */

static void make_unit(struct world *w, const struct sim_job *j, struct sim_unit *u, uint32_t size, uint32_t poison)
{
    u->n_items = size;
    u->picture_bytes = j->n_units % 3 == 0 ? 300 * size : 0;
    for (uint32_t i = 0; i < size; i++) {
        u->items[i].node = (uint32_t)world_below(w, j->n_nodes);
        if (world_chance(w, 60))
            u->items[i].fate = FATE_ERROR;
        else if (world_chance(w, poison))
            u->items[i].fate = world_chance(w, 500) ? FATE_KILLER : FATE_FAILER;
        u->has_poison = u->has_poison || u->items[i].fate >= FATE_KILLER;
    }
    if (world_chance(w, 30)) /* all its items fail at the first node */
        for (uint32_t i = 0; i < size && !u->has_poison; i++) {
            u->items[i].fate = FATE_ERROR;
            u->items[i].node = 0;
        }
}

/* Captions; captions with scores from the same trunk, or from another trunk, which is a second first node; scores
 * only. Nodes without tensors leave rows, which other nodes may need. */
static void make_graph(struct world *w, struct sim_job *j)
{
    static const struct core_node caption[] = {{.stage = 1, .out_bytes = 1000},
                                               {.stage = 2, .needs = 1 << 0, .out_bytes = 200},
                                               {.stage = 3, .needs = 1 << 1}};
    static const struct core_node shared = {.stage = 2, .needs = 1 << 0 | 1 << 2};
    static const struct core_node other[] = {{.stage = 1, .out_bytes = 500}, {.stage = 2, .needs = 1 << 2 | 1 << 3}};
    static const struct core_node score = {.stage = 2, .needs = 1 << 0};
    uint64_t kind = world_below(w, 10);

    memcpy(j->nodes, caption, sizeof(caption));
    j->n_nodes = 3;
    if (kind < 4) {
        j->nodes[j->n_nodes++] = shared;
    } else if (kind < 6) {
        memcpy(&j->nodes[3], other, sizeof(other));
        j->n_nodes = 5;
    } else if (kind < 7) {
        j->nodes[1] = score;
        j->n_nodes = 2;
    }
}

/* A model of some worker of the stage; 0: any model. */
static uint8_t choose_model(struct world *w, uint32_t stage)
{
    uint32_t first = (uint32_t)world_below(w, w->n_workers);

    if (world_chance(w, 300))
        return 0;
    while (w->workers[first].stage != stage)
        first = (first + 1) % w->n_workers;
    return (uint8_t)w->workers[first].model;
}

static void make_job(struct world *w, uint32_t n)
{
    static const uint32_t sizes[] = {1, 2, 5, 8, 13, 64, 70};
    struct sim_job *j = &w->jobs[n];
    uint32_t size = sizes[world_below(w, 7)], poison = world_chance(w, 500) ? 0 : 40 / size + 2;

    j->id = 100 + n;
    j->index = n;
    j->max_failures = world_chance(w, 500) ? 0 : 2 + (uint32_t)world_below(w, 3 * size);
    j->max_failed_per_mille = world_chance(w, 800) ? 0 : 50 + (uint32_t)world_below(w, 500);
    make_graph(w, j);
    for (uint32_t k = 0; k < j->n_nodes; k++) {
        j->nodes[k].fingerprint.bytes[0] = choose_model(w, j->nodes[k].stage);
        j->nodes[k].row_bytes = ROW_BYTES;
    }
    j->n_units = 3 + (uint32_t)world_below(w, size > 13 ? 6 : 25);
    j->units = world_alloc(w, j->n_units * sizeof(j->units[0]));
    for (uint32_t u = 0; u < j->n_units; u++)
        make_unit(w, j, &j->units[u], u + 1 < j->n_units ? size : 1 + (uint32_t)world_below(w, size), poison);
    j->n_imported = world_chance(w, 500) ? j->n_units : (uint32_t)world_below(w, j->n_units);
    j->sealed = j->n_imported == j->n_units || world_chance(w, 300);
    if (j->n_imported < j->n_units)
        world_in(w, 100, shell_import, j, 0);
}

/* Kinds of workers: pairs of stage and model. */
static uint32_t count_kinds(const struct world *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_workers; i++) {
        bool first = true;

        for (uint32_t k = 0; k < i && first; k++)
            first = w->workers[k].stage != w->workers[i].stage || w->workers[k].model != w->workers[i].model;
        n += first;
    }
    return n;
}

static void make_world(struct world *w, enum core_bug planted)
{
    static const uint64_t budgets[] = {1000, 20000, 100000, 10000000}, row_budgets[] = {100, 5000, 1000000};

    w->wild = world_chance(w, 250);
    w->faults_end = 5000 + (int64_t)world_below(w, 30000);
    w->end = w->faults_end + 1800 * 1000;
    w->limits = core_limits_default();
    w->limits.memory_bytes = budgets[world_below(w, 4)];
    w->limits.row_bytes = row_budgets[world_below(w, 3)];
    w->limits.lease_ms = LEASE_MS;
    w->limits.worker_ms = WORKER_MS;
    w->limits.max_attempts = MAX_ATTEMPTS;
    w->limits.window_units = 1 + (uint32_t)world_below(w, 16);
    w->limits.max_unblamed = w->wild ? 1 + (uint32_t)world_below(w, 3) : 1000;
    w->limits.max_worker_items = world_chance(w, 300) ? 16 : 65536;
    w->limits.max_worker_leases = world_chance(w, 300) ? 1 + (uint32_t)world_below(w, 4) : 1024;
    w->limits.max_given_up = 2 + (uint32_t)(w->seed % 30);
    /* In a tame world no worker sends heartbeats for work that it does not do, but slow workers take long. */
    w->limits.stall_ms = w->wild ? 2 * LEASE_MS : 3600 * LEASE_MS;
    w->limits.first_stall_ms = 2 * w->limits.stall_ms;
    w->limits.bug = planted;
    w->n_jobs = 1 + (uint32_t)world_below(w, MAX_JOBS);
    w->n_workers = 3 + (uint32_t)world_below(w, MAX_WORKERS - 2);
    /* Room for these workers and one more kind. Visitors take some of it for a while. */
    w->limits.max_workers = world_chance(w, 300) ? w->n_workers + (uint32_t)world_below(w, 2) : 4096;
    w->limits.max_jobs = w->n_jobs;
    for (uint32_t n = 0; n < w->n_workers; n++) {
        w->workers[n].index = n;
        w->workers[n].stage = 1 + n % 3;
        w->workers[n].model = world_chance(w, 300) ? 8 : 7;
        w->workers[n].host = 1 + world_below(w, N_HOSTS - 1);
        world_in(w, (int64_t)world_below(w, 500), worker_start, &w->workers[n], 0);
    }
    w->limits.max_pools = world_chance(w, 300) ? count_kinds(w) + 1 : 64;
    for (uint32_t n = 0; n < w->n_jobs; n++)
        make_job(w, n);
    shell_start(w);
    chaos_start(w);
}

/* -- running it -- */

static bool all_closed(const struct world *w)
{
    for (uint32_t n = 0; n < w->n_jobs; n++)
        if (!(w->jobs[n].finished || w->jobs[n].cancelled) || w->jobs[n].open)
            return false;
    return true;
}

static void check_end(struct world *w)
{
    struct core_stats s;

    if (w->payloads.n > 0)
        world_fail(w, "%zu payloads leaked", w->payloads.n);
    if (w->core) {
        core_stats_get(w->core, &s);
        if (s.n_leases || s.reserved_bytes || s.n_jobs)
            world_fail(w, "%u leases, %llu bytes, %u jobs left in the core", s.n_leases,
                       (unsigned long long)s.reserved_bytes, s.n_jobs);
    }
    for (uint32_t n = 0; n < w->n_jobs; n++)
        for (uint32_t u = 0; u < w->jobs[n].n_units; u++) {
            if (!w->jobs[n].units[u].done && !w->jobs[n].cancelled)
                world_fail(w, "job %u finished without unit %u", n, u);
            w->tally->units++;
        }
}

static void run(struct world *w)
{
    while (!all_closed(w)) {
        int64_t due = w->core ? core_next_deadline(w->core) : INT64_MAX;

        if (due < w->stopped_until)
            due = w->stopped_until;
        if (w->n_agenda == 0 && due == INT64_MAX)
            world_fail(w, "nothing will ever happen again");
        if (w->n_agenda == 0 || due < w->agenda[0].at) {
            w->now = due > w->now ? due : w->now;
            shell_step(w, &(struct core_event){.type = CORE_EVENT_TICK});
        } else {
            struct agenda_entry e = take_next(w);

            w->now = e.at;
            e.fn(w, e.what, e.life);
        }
        if (w->now > w->end)
            world_fail(w, "not done half an hour after the last fault");
    }
    check_end(w);
}

bool world_run(uint64_t seed, enum core_bug planted, bool verbose, struct tally *tally)
{
    struct world *w = calloc(1, sizeof(*w));
    volatile bool ok = false;

    if (!w)
        abort();
    w->seed = seed;
    w->random = core_mix64(seed);
    w->verbose = verbose;
    w->tally = tally;
    w->next_handle = w->next_peer = w->next_nonce = 1;
    arena_init(&w->arena, 0);
    core_actions_init(&w->actions);
    if (setjmp(w->failed) == 0) {
        make_world(w, planted);
        run(w);
        ok = true;
    }
    core_free(w->core);
    core_actions_release(&w->actions);
    core_map_release(&w->payloads);
    arena_release(&w->arena);
    free(w->agenda);
    free(w);
    return ok;
}
