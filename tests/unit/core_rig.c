#include "tests/unit/core_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

const struct core_node rig_chain[3] = {
    {.stage = 1, .out_bytes = 100}, {.stage = 2, .needs = 1, .out_bytes = 10}, {.stage = 3, .needs = 2}};
const struct core_node rig_chain_score[4] = {{.stage = 1, .out_bytes = 100},
                                             {.stage = 2, .needs = 1, .out_bytes = 10},
                                             {.stage = 3, .needs = 2},
                                             {.stage = 2, .needs = 1 | 4}};

int rig_step(struct rig *b, const struct core_event *e)
{
    int rc;

    core_actions_clear(&b->actions);
    rc = core_step(b->core, e, b->now, &b->actions);
    core_validate(b->core);
    return rc;
}

int rig_setup(void **state)
{
    static struct rig b;

    b = (struct rig){.now = 1000, .next_payload = 1, .limits = core_limits_default()};
    b.limits.lease_ms = LEASE_MS;
    b.limits.worker_ms = WORKER_MS;
    b.limits.memory_bytes = 1000000;
    b.core = core_new(&b.limits, 7);
    core_actions_init(&b.actions);
    *state = &b;
    return 0;
}

int rig_teardown(void **state)
{
    struct rig *b = *state;

    core_free(b->core);
    core_actions_release(&b->actions);
    return 0;
}

void rig_restart_with(struct rig *b, uint64_t epoch)
{
    core_free(b->core);
    b->core = core_new(&b->limits, epoch);
}

const struct core_action *rig_nth(const struct rig *b, enum core_action_type type, uint32_t n)
{
    for (size_t i = 0; i < b->actions.n; i++)
        if (b->actions.items[i].type == type && n-- == 0)
            return &b->actions.items[i];
    return NULL;
}

const struct core_action *rig_got(const struct rig *b, enum core_action_type type)
{
    const struct core_action *a = rig_nth(b, type, 0);

    assert_non_null(a);
    return a;
}

uint32_t rig_count(const struct rig *b, enum core_action_type type)
{
    uint32_t n = 0;

    while (rig_nth(b, type, n))
        n++;
    return n;
}

void rig_tick(struct rig *b, int64_t ms)
{
    b->now += ms;
    assert_int_equal(rig_step(b, &(struct core_event){.type = CORE_EVENT_TICK}), 0);
}

void rig_hello(struct rig *b, uint64_t peer, uint32_t stage, uint32_t window)
{
    struct core_event e = {.type = CORE_EVENT_HELLO};

    e.hello.peer = e.hello.nonce = peer;
    e.hello.host = 1;
    e.hello.stage = stage;
    e.hello.window_items = window;
    e.hello.window_bytes = 1 << 20;
    assert_int_equal(rig_step(b, &e), 0);
}

void rig_three_workers(struct rig *b, uint32_t window)
{
    rig_hello(b, ENCODER, 1, window);
    rig_hello(b, QFORMER, 2, window);
    rig_hello(b, LLM, 3, window);
}

void rig_open_job(struct rig *b, uint64_t job, const struct core_node *nodes, uint32_t n_nodes, uint32_t priority)
{
    struct core_event e = {.type = CORE_EVENT_JOB_OPEN};

    e.job_open.job = job;
    e.job_open.sealed = true;
    e.job_open.priority = priority;
    e.job_open.n_nodes = n_nodes;
    e.job_open.nodes = nodes;
    assert_int_equal(rig_step(b, &e), 0);
    assert_int_equal(rig_got(b, CORE_DO_LOAD_UNITS)->load.job, job);
}

void rig_give_units(struct rig *b, uint64_t job, uint32_t n, uint32_t n_items, uint32_t attempts)
{
    struct core_unit_row rows[64];
    struct core_event e = {.type = CORE_EVENT_UNITS};

    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct core_unit_row){.unit = i, .n_items = n_items, .attempts = attempts};
    e.units.job = job;
    e.units.n = n;
    e.units.rows = rows;
    e.units.exhausted = true;
    assert_int_equal(rig_step(b, &e), 0);
}

void rig_chain_job(struct rig *b, uint32_t n, uint32_t n_items)
{
    rig_open_job(b, JOB, rig_chain, 3, 0);
    rig_give_units(b, JOB, n, n_items, 0);
}

struct core_work rig_work_of(const struct rig *b)
{
    return rig_got(b, CORE_DO_WORK)->work;
}

uint64_t rig_result(struct rig *b, const struct core_work *work, uint64_t errors)
{
    uint64_t ok = ~errors;
    struct core_event e = {.type = CORE_EVENT_RESULT};

    e.result.lease = (struct core_lease_ref){work->peer, work->epoch, work->lease};
    e.result.payload = b->next_payload++;
    e.result.n_rows = work->n_items;
    e.result.ok = &ok;
    e.result.keep_rows = work->node >= 2;
    e.result.row_bytes = b->row_bytes * work->n_items;
    assert_int_equal(rig_step(b, &e), 0);
    return e.result.payload;
}

void rig_refuse_work(struct rig *b, const struct core_work *work)
{
    struct core_event e = {.type = CORE_EVENT_FAILURE};

    e.failure.lease = (struct core_lease_ref){work->peer, work->epoch, work->lease};
    e.failure.code = "oom";
    e.failure.text = "no memory on the device";
    assert_int_equal(rig_step(b, &e), 0);
}

void rig_gone(struct rig *b, uint64_t peer, bool clean)
{
    struct core_event e = {.type = CORE_EVENT_GONE};

    e.gone.peer = peer;
    e.gone.clean = clean;
    e.gone.ended = !clean;
    assert_int_equal(rig_step(b, &e), 0);
}

void rig_lost(struct rig *b, uint64_t peer)
{
    struct core_event e = {.type = CORE_EVENT_GONE};

    e.gone.peer = peer;
    assert_int_equal(rig_step(b, &e), 0);
}

void rig_job_event(struct rig *b, enum core_event_type type)
{
    assert_int_equal(rig_step(b, &(struct core_event){.type = type, .job = JOB}), 0);
}

void rig_commit_answer(struct rig *b, enum core_event_type type, uint32_t unit)
{
    struct core_event e = {.type = type};

    e.commit.job = JOB;
    e.commit.unit = unit;
    assert_int_equal(rig_step(b, &e), 0);
}

struct core_stats rig_stats(const struct rig *b)
{
    struct core_stats s;

    core_stats_get(b->core, &s);
    return s;
}
