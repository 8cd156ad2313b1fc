/* core_worker.h - workers, the pools of those that compute the same, and their leases.
 *
 * Who may call: broker/core*.c. Units: as in core.h. Memory: workers own leases; pools and groups end with their last
 * worker. Errors: as in core_private.h. */
#ifndef BLIPLINE_BROKER_CORE_WORKER_H
#define BLIPLINE_BROKER_CORE_WORKER_H

#include "broker/core_private.h"

struct core_job_node;

/* Numbers of leases in a row that ended badly; see core_trust.c. */
enum {
    CORE_CAREFUL_FROM = 2, /* one lease at a time, and pauses */
    CORE_TRUSTED_BELOW = 3
};

enum { CORE_MAX_UNSEEN = 8 };

/* Workers of one stage that compute the same and can see the pictures of the same jobs. */
struct core_pool {
    enum stage stage;
    struct fingerprint fingerprint;
    uint64_t unseen[CORE_MAX_UNSEEN]; /* jobs whose first nodes they may not run now; 0: none, then only 0s */
    uint64_t serial;
    uint32_t n_workers, n_good;   /* good: in good standing */
    struct core_heap room;        /* workers that may get more, the emptiest first */
    struct core_worker *draining; /* gets no work until it is empty, for an exclusive task that waits */
    bool blocked, wanted;         /* within one round of scheduling */
};

/* Workers of one pool on one host. */
struct core_group {
    struct core_heap room;
    uint32_t n_workers;
};

struct core_lease {
    uint64_t id;
    struct core_task *task;
    struct core_worker *worker;
    struct core_lease *prev, *next; /* of the worker */
    uint32_t deadline_place;
    uint32_t n_items, attempt; /* attempt: the subunit's failures when it was granted */
    uint64_t n_bytes;
    int64_t granted_ms, until_ms; /* until_ms: unless a heartbeat extends it */
    uint32_t held_at_grant;       /* items of its worker, its own included */
    bool exclusive;
    bool on_trial;  /* granted while its worker was late */
    bool confirmed; /* its worker has reconnected and still holds it */
};

/* A job whose pictures a worker cannot see; see core_sight.c. */
struct core_unseen {
    uint64_t job; /* 0: none */
    int64_t rest_ms, until_ms;
    bool rests; /* until until_ms; then the worker may try again */
};

struct core_worker {
    uint64_t peer, host, nonce;
    struct core_pool *pool;
    struct core_group *group;
    uint64_t group_key, name_key;
    uint32_t pool_place, group_place, deadline_place;
    uint32_t window_items, held_items, n_leases;
    uint64_t window_bytes, held_bytes;
    struct core_lease *leases;
    int64_t heard_ms;
    bool silent;         /* a lease of it expired, or lease_ms passed, and nothing was heard since */
    uint32_t n_late;     /* rounds of expiry since it last ended a lease itself */
    uint32_t rest_place; /* in core.rests: it gets no work until rest_until_ms */
    int64_t rest_until_ms;
    uint32_t n_bad;     /* leases in a row that ended badly */
    uint32_t n_refused; /* tensors of its in a row that were refused */
    struct core_unseen unseen[CORE_MAX_UNSEEN];
    uint32_t unseen_place; /* in core.unseen_ends */
    bool good;             /* counted in pool->n_good */
    bool benched;
    char why[CORE_CODE_BYTES + CORE_TEXT_BYTES]; /* the last thing that went wrong */
    struct core_pace pace;
    int64_t ended_ms;     /* when it last gave a result */
    uint64_t items_said;  /* finished items, by its last heartbeat that said more than the one before */
    int64_t moved_ms;     /* when that heartbeat came */
    uint32_t n_moves;     /* number of such heartbeats since ended_ms */
    bool holds_exclusive; /* its only lease is exclusive */
    bool lost;            /* its connection is lost; it is silent, and its leases go on */
    uint64_t busy_ms;     /* how long it has held leases, up to turned_ms */
    int64_t turned_ms;    /* when it last began or ceased to hold any */
};

static inline uint32_t core_worker_n_in_row(const struct core_worker *w)
{
    return w->n_bad + w->n_refused;
}

/* core_pools.c */
bool core_worker_is_careful(const struct core_worker *w);       /* one lease at a time */
void core_worker_update(struct core_worker *w, struct core *c); /* call after any change of its room for work */
bool core_worker_fits(const struct core_worker *w, const struct core *c, uint32_t n_items, uint64_t n_bytes);
void core_worker_rest(struct core *c, struct core_worker *w, int64_t ms);
/* `unseen`: as in struct core_pool. NULL: there are too many pools, or no memory. */
struct core_pool *core_pool_get(struct core *c, uint32_t stage, const struct fingerprint *fingerprint,
                                const uint64_t unseen[CORE_MAX_UNSEEN]);
uint64_t core_group_key(const struct core_pool *p, uint64_t host);
bool core_worker_join(struct core *c, struct core_worker *w, struct core_pool *p); /* false: no memory */
void core_worker_leave(struct core *c, struct core_worker *w);                     /* its pool, which it may end */
bool core_pool_matches(const struct core *c, const struct core_pool *p, const struct core_job_node *n);
bool core_pool_is_wanted(const struct core *c, const struct core_pool *p); /* by any open job */

/* core_sight.c */
void core_worker_cannot_see(struct core *c, struct core_worker *w, uint64_t job);
void core_worker_saw(struct core *c, const struct core_lease *l);    /* call before the lease ends with a result */
void core_worker_looks_again(struct core *c, struct core_worker *w); /* what is due */

/* core_trust.c */
void core_task_failed_on(struct core_task *t, const struct core_worker *w);
bool core_task_avoids(const struct core *c, const struct core_task *t, const struct core_worker *w);
bool core_task_needs_another(const struct core *c,
                             const struct core_task *t); /* worker to fail it before it is given up */
bool core_task_is_to_blame(const struct core *c, const struct core_task *t, const struct core_worker *w);
void core_worker_charge(struct core *c, struct core_worker *w, uint32_t *count, const char *code, const char *text);
void core_worker_did_well(struct core *c, const struct core_lease *l); /* call before the lease ends */

/* core_pace.c */
void core_pace_measure(struct core *c,
                       const struct core_lease *l); /* call when a result has come, before the lease ends */
void core_pace_heard(struct core *c, struct core_worker *w, uint64_t items);
int64_t core_lease_stalls_at(const struct core *c, const struct core_lease *l);
bool core_is_cut_off(const struct core *c, uint64_t name_key);

/* core_leases.c */
void core_lease_grant(struct core *c, struct core_task *t, struct core_worker *w);
void core_lease_extend(struct core *c, struct core_lease *l);
void core_lease_end(struct core *c, struct core_lease *l);

/* core_endings.c: end the lease, blame the worker, its unit or nobody, and queue the task again or fail it. */
void core_lease_fails(struct core *c, struct core_lease *l, const char *code, const char *text);
void core_lease_returned(struct core *c, struct core_lease *l);
void core_lease_inputs_refused(struct core *c, struct core_lease *l, uint32_t nodes, const char *text);
void core_lease_give_back(struct core *c, struct core_lease *l);
void core_lease_unseen(struct core *c, struct core_lease *l);
void core_lease_lost(struct core *c, struct core_lease *l, const char *text);

/* core_workers.c */
int core_on_hello(struct core *c, const struct core_event *e);
int core_on_credit(struct core *c, const struct core_event *e);
int core_on_gone(struct core *c, const struct core_event *e);
int core_on_shutdown(struct core *c, const struct core_event *e);
struct core_worker *core_peer_heard(struct core *c, uint64_t peer); /* NULL: unknown; it is told to say HELLO */
void core_worker_remove(struct core *c, struct core_worker *w, bool clean, const char *text);
void core_worker_forget(struct core *c, struct core_worker *w); /* without blame for what it still holds */

/* core_messages.c */
int core_on_heartbeat(struct core *c, const struct core_event *e);
int core_on_result(struct core *c, const struct core_event *e);
int core_on_failure(struct core *c, const struct core_event *e);
int core_on_return(struct core *c, const struct core_event *e);
int core_on_unseen(struct core *c, const struct core_event *e);

#endif
