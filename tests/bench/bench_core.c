/* What one event costs the broker's core: chains of units through null workers, from 1e4 to 1e6 units a job.
 * The cost must not grow with the job. A unit is five events here: three results, a load's share, a commit's answer. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "broker/core.h"

enum { WORKERS_A_STAGE = 4, WINDOW = 16 /* units a worker holds */, RING = 65536 };

static const struct core_node chain[] = {
    {.stage = 1, .out_bytes = 100}, {.stage = 2, .needs = 1, .out_bytes = 10}, {.stage = 3, .needs = 2}};

/* Events waiting for their turn, first in, first out. */
struct ring {
    struct core_event *events;
    size_t first, n;
};

static void push(struct ring *r, struct core_event e)
{
    if (r->n == RING)
        abort();
    r->events[(r->first + r->n++) % RING] = e;
}

static bool react(struct ring *r, const struct core_actions *a, uint32_t n_units, uint32_t n_items, uint64_t *payload)
{
    static struct core_unit_row rows[4096];
    bool done = false;

    for (size_t i = 0; i < a->n; i++) {
        const struct core_action *x = &a->items[i];
        struct core_event e = {0};

        if (x->type == CORE_DO_WORK) {
            e.type = CORE_EVENT_RESULT;
            e.result.lease = (struct core_lease_ref){x->work.peer, x->work.epoch, x->work.lease};
            e.result.payload = ++*payload;
            e.result.n_rows = x->work.n_items;
            e.result.keep_rows = x->work.node == 2;
            push(r, e);
        } else if (x->type == CORE_DO_COMMIT) {
            e.type = CORE_EVENT_COMMITTED;
            e.commit.job = x->commit.job;
            e.commit.unit = x->commit.unit;
            push(r, e);
        } else if (x->type == CORE_DO_LOAD_UNITS) {
            e.type = CORE_EVENT_UNITS;
            e.units.job = x->load.job;
            for (uint32_t u = x->load.from_unit; u < n_units && e.units.n < x->load.max; u++)
                rows[e.units.n++] = (struct core_unit_row){.unit = u, .n_items = n_items};
            e.units.rows = rows;
            e.units.exhausted = x->load.from_unit + e.units.n == n_units;
            push(r, e);
        }
        done = done || x->type == CORE_DO_JOB_DONE;
    }
    return done;
}

static void open_world(struct ring *r, uint32_t n_items)
{
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    e.job_open.job = 1;
    e.job_open.sealed = true;
    e.job_open.n_nodes = 3;
    e.job_open.nodes = chain;
    push(r, e);
    for (uint32_t n = 0; n < 3 * WORKERS_A_STAGE; n++) {
        e = (struct core_event){.type = CORE_EVENT_HELLO};
        e.hello.peer = e.hello.nonce = n + 1;
        e.hello.host = n % 2;
        e.hello.stage = 1 + n % 3;
        e.hello.window_items = WINDOW * n_items;
        e.hello.window_bytes = (uint64_t)1 << 40;
        push(r, e);
    }
}

static void measure(uint32_t n_units, uint32_t n_items)
{
    struct core_limits limits = core_limits_default();
    struct core *core = core_new(&limits, 1);
    struct ring r = {.events = calloc(RING, sizeof(r.events[0]))};
    struct core_actions actions;
    uint64_t payload = 0, n_events = 0;
    int64_t began = clock_mono_ns();
    bool done = false;
    double ns;

    if (!core || !r.events)
        abort();
    core_actions_init(&actions);
    open_world(&r, n_items);
    while (!done) {
        struct core_event e = r.events[r.first];

        if (r.n == 0)
            abort();
        r.first = (r.first + 1) % RING;
        r.n--;
        core_actions_clear(&actions);
        if (core_step(core, &e, (int64_t)n_events / 100, &actions) < 0)
            abort();
        n_events++;
        done = react(&r, &actions, n_units, n_items, &payload);
    }
    ns = (double)(clock_mono_ns() - began);
    printf("core: %8u units of %3u items, %9llu events: %6.0f ns an event, %6.0f ns a unit\n", n_units, n_items,
           (unsigned long long)n_events, ns / (double)n_events, ns / n_units);
    core_actions_release(&actions);
    core_free(core);
    free(r.events);
}

int main(void)
{
    for (uint32_t n_units = 10000; n_units <= 1000000; n_units *= 10) {
        measure(n_units, 1);
        measure(n_units, 64);
    }
    return 0;
}
