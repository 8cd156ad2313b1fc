/* ledger.h - a second, simple implementation of the core's rules, which checks the core.
 *
 * shell_step shows the ledger every event before the actions, and every action. A world fails if the core acts against
 * the ledger or reports another number. The ledger is written from core.h, in the simplest way, without queues: the
 * core chooses which of several workers gets a lease; the ledger says whether that worker may have it.
 *
 * Who may call: shell.c and the files around it. Units: the world's. Memory: the world's arena; each life of the broker
 * has its own ledger. Errors: world_fail. */
#ifndef BLIPLINE_TESTS_SIMULATE_LEDGER_H
#define BLIPLINE_TESTS_SIMULATE_LEDGER_H

#include "broker/core.h"

struct world;
struct sim_job;
struct led_lease;

enum { LED_WORDS = 2, LED_FORGETS = 64, LED_FAILERS = 4, LED_JOBS = 3 };

/* One node of a subunit. */
enum led_state { LED_NONE, LED_LEASED, LED_DONE };

struct led_subunit {
    struct led_subunit *next;
    struct sim_job *job;
    uint32_t unit, first, count, n_wanted;
    uint32_t failures, unblamed;
    bool split, reserved, finished, quarantined, failed_before;
    uint64_t alive[LED_WORDS]; /* bit i: item first + i */
    enum led_state state[CORE_MAX_NODES];
    struct led_lease *leases[CORE_MAX_NODES];
    struct led_name {
        uint64_t host, nonce;                                       /* nonce 0: none */
    } failers[CORE_MAX_NODES][LED_FAILERS], makers[CORE_MAX_NODES]; /* failers: the last ones at each node, rings;
                                                                       makers: of finished nodes */
    uint32_t n_failers[CORE_MAX_NODES];
};

/* A job whose pictures a worker could not see. */
struct led_unseen {
    bool rests;
    int64_t rest_ms, until; /* rest_ms 0: it can */
};

/* How long items take. */
struct led_pace {
    uint64_t ms, n_items;
};

struct led_worker {
    struct led_worker *next;
    uint64_t peer, host, nonce, window_bytes, held_bytes;
    uint32_t stage, model, window_items, held_items, n_leases, n_late;
    uint32_t n_bad, n_refused;        /* in a row: leases that ended badly, tensors of its that were refused */
    int64_t heard, rest_until, ended; /* ended: when it last gave a result */
    struct led_pace pace;
    struct led_unseen unseen[LED_JOBS];
    int64_t change_at; /* it tries again to change its kind; 0: it need not */
    uint32_t kind;     /* bit i: it rests from job i, so it is of another kind than workers of its stage and model */
    bool benched;
    bool silent, lost;
    bool late_told; /* it was silent for lease_ms, and that has been handled */
    bool idle;      /* no job wanted it when it joined, and it has not got work since */
};

struct led_lease {
    struct led_lease *next;
    uint64_t id, bytes;
    struct led_worker *worker;
    struct led_subunit *subunit;
    uint32_t node, n_items, attempt;
    int64_t deadline, granted, until; /* until: unless a heartbeat extends it */
    uint32_t held_at_grant;
    uint64_t rows[LED_WORDS]; /* the items that went in */
    bool exclusive, on_trial, named;
};

/* Of a unit, in this life of the broker. */
struct led_unit {
    bool in_memory, started, committing;
    uint32_t attempts;
    struct core_unit_row row; /* as it was loaded */
    struct led_subunit *subunits;
};

struct led_job {
    bool sealed, stopped, stop_told, paused, blocked, done, failed, closing;
    bool loading, load_is_stale;
    uint32_t load_from;
    uint32_t priority;
    uint64_t pass;                 /* it has got so much, divided by its priority */
    uint64_t n_failed, n_finished; /* items since it was opened or started, except those done again */
    uint64_t units_done, items_done, items_failed, items_quarantined;
    struct core_node_stats nodes[CORE_MAX_NODES];
    struct led_pace pace[CORE_MAX_NODES];
};

struct ledger {
    int64_t now, stood_still;
    bool shutdown;
    bool vague; /* two leases ended together and only the core knows which was first: no more checks */
    struct led_worker *workers;
    struct led_lease *leases;
    uint64_t last_lease;
    uint64_t reserved_bytes, reserved_rows;
    uint32_t n_reserved;
    uint64_t most_pass; /* of all jobs */
    struct core_stats sum;
    /* of the current step */
    enum core_action_type answer; /* CORE_N_ACTIONS: none */
    enum core_refuse_reason reason;
    uint64_t forgets[LED_FORGETS];
    uint32_t n_forgets;
    uint64_t refused;            /* peer that is cut off and not refused yet; 0: none */
    struct led_name cut_off[64]; /* a ring */
    uint32_t n_cut_off;
};

void ledger_start(struct world *w); /* the broker starts */
/* Apply the event, before its actions are checked. If an error is `expected`, the event does nothing. */
void ledger_event(struct world *w, const struct core_event *e, int expected);
void ledger_action(struct world *w, const struct core_action *a);
/* After the actions: no action is missing, no worker is idle that could work, and every number is right. */
void ledger_check(struct world *w);

/* ledger_subunits.c */
void ledger_load(struct world *w, struct sim_job *j, const struct core_unit_row *row);
void ledger_forget_unit(struct world *w, struct sim_job *j, uint32_t unit); /* and its leases */
struct led_lease *ledger_lease(struct world *w, uint64_t id);
void ledger_lease_close(struct world *w, struct led_lease *l);
void ledger_blame(struct world *w, struct led_subunit *p, uint32_t node, uint32_t attempt);
void ledger_returned(struct world *w, struct led_subunit *p, uint32_t node, uint32_t attempt);
void ledger_again(struct world *w, struct led_subunit *p); /* nobody is blamed */
void ledger_restart(struct world *w, struct led_subunit *p);
void ledger_result(struct world *w, struct led_subunit *p, uint32_t node, const uint64_t *row_ok);
void ledger_describe_subunits(const struct led_unit *u, uint32_t n_items, uint8_t *ret);
void ledger_set_reserved(struct world *w, struct led_subunit *p, bool reserved);
bool ledger_is_ready(const struct led_subunit *p, uint32_t node);
bool ledger_is_suspect(const struct led_subunit *p);
bool ledger_gives_up(const struct led_subunit *p); /* when it fails once more */
bool ledger_is_through(const struct led_unit *u);  /* all its subunits are finished */

/* ledger_trust.c */
void ledger_fails(struct world *w, struct led_lease *l);
void ledger_hands_back(struct world *w, struct led_lease *l);
void ledger_refuses(struct world *w, struct led_lease *l, uint32_t nodes);
void ledger_did_well(struct world *w, const struct led_lease *l);
void ledger_failed_on(struct led_subunit *p, uint32_t node, const struct led_worker *k);
void ledger_rest(struct world *w, struct led_worker *k, int64_t ms);
bool ledger_is_careful(const struct led_worker *k);
void ledger_measure(struct world *w, const struct led_lease *l);
void ledger_extend(const struct world *w, struct led_lease *l); /* from now */
int64_t ledger_stall_at(const struct world *w, const struct led_lease *l);
void ledger_stalls(struct world *w, struct led_worker *k);
bool ledger_is_cut_off(const struct world *w, uint64_t host, uint64_t nonce);
bool ledger_avoids(struct world *w, const struct led_subunit *p, uint32_t node, const struct led_worker *k);
bool ledger_needs_another(struct world *w, const struct led_subunit *p, uint32_t node);
struct led_name ledger_name(const struct led_worker *k);

/* ledger_sight.c */
void ledger_unseen(struct world *w, struct led_lease *l);
void ledger_saw(struct world *w, const struct led_lease *l); /* it gave a result */
void ledger_looks_again(struct world *w);                    /* workers whose rests are over */
uint32_t ledger_count_kinds(const struct world *w);

/* ledger_workers.c */
struct led_worker *ledger_worker(struct world *w, uint64_t peer);
void ledger_hello(struct world *w, const struct core_event *e);
void ledger_gone(struct world *w, struct led_worker *k, bool clean, bool ended);
void ledger_worker_remove(struct world *w, struct led_worker *k, bool clean);
void ledger_worker_forgotten(struct world *w, struct led_worker *k); /* the core must say so; nobody is blamed */
void ledger_heard(struct world *w, struct led_worker *k);
void ledger_expect_forget(struct world *w, uint64_t peer);
/* May the worker take this much, or an exclusive task? */
bool ledger_has_room(struct world *w, const struct led_worker *k, bool exclusive, uint32_t n_items, uint64_t n_bytes);
bool ledger_matches(const struct led_worker *k, const struct sim_job *j, uint32_t node);
bool ledger_is_of_kind(const struct led_worker *k, uint32_t stage, uint32_t model, uint32_t kind);

#endif
