/* core_rig.h - a core under test: one call for each event, and access to the actions that it caused.
 *
 * Who may call: tests/unit/test_core*.c. Units: as in broker/core.h. Memory: the rig is the test's state. Errors:
 * cmocka's. */
#ifndef BLIPLINE_TESTS_UNIT_CORE_RIG_H
#define BLIPLINE_TESTS_UNIT_CORE_RIG_H

#include "broker/core.h"

enum {
    JOB = 42,
    ENCODER = 1, /* peers */
    QFORMER = 2,
    LLM = 3,
    OTHER = 4,
    LEASE_MS = 1000,
    WORKER_MS = 5000
};

extern const struct core_node rig_chain[3];       /* encode, qformer, llm: 100 + 10 + 0 bytes an item */
extern const struct core_node rig_chain_score[4]; /* the same, and a score that needs nodes 0 and 2 */

/* One core, its clock, and the actions of the last step. */
struct rig {
    struct core *core;
    struct core_actions actions;
    int64_t now;
    uint64_t next_payload;
    uint64_t row_bytes; /* of an item in a result; 0 */
    struct core_limits limits;
};

/* One event; every invariant is checked after it. */
int rig_step(struct rig *b, const struct core_event *e);
int rig_setup(void **state);
int rig_teardown(void **state);
/* A new core with b->limits. */
void rig_restart_with(struct rig *b, uint64_t epoch);
/* The n-th action of this type in the last step, or NULL. */
const struct core_action *rig_nth(const struct rig *b, enum core_action_type type, uint32_t n);
/* The first one; there must be one. */
const struct core_action *rig_got(const struct rig *b, enum core_action_type type);
uint32_t rig_count(const struct rig *b, enum core_action_type type);
void rig_tick(struct rig *b, int64_t ms);
/* A worker of no particular model on host 1. */
void rig_hello(struct rig *b, uint64_t peer, uint32_t stage, uint32_t window);
/* One worker for each stage. */
void rig_three_workers(struct rig *b, uint32_t window);
/* Sealed; the load it asks for is not answered yet. */
void rig_open_job(struct rig *b, uint64_t job, const struct core_node *nodes, uint32_t n_nodes, uint32_t priority);
/* Answers the load with units 0..n-1; there are no more. */
void rig_give_units(struct rig *b, uint64_t job, uint32_t n, uint32_t n_items, uint32_t attempts);
/* rig_open_job and rig_give_units, for JOB. */
void rig_chain_job(struct rig *b, uint32_t n, uint32_t n_items);
/* The first WORK of the last step. */
struct core_work rig_work_of(const struct rig *b);
/* A result for this lease; errors: bit r makes row r an error. Returns its payload. */
uint64_t rig_result(struct rig *b, const struct core_work *work, uint64_t errors);
/* A FAILURE for this lease, code "oom". */
void rig_refuse_work(struct rig *b, const struct core_work *work);
/* BYE, or its process has ended. */
void rig_gone(struct rig *b, uint64_t peer, bool clean);
/* Its connection is lost, and nobody knows whether its process lives. */
void rig_lost(struct rig *b, uint64_t peer);
void rig_job_event(struct rig *b, enum core_event_type type);
void rig_commit_answer(struct rig *b, enum core_event_type type, uint32_t unit);
struct core_stats rig_stats(const struct rig *b);

#endif
