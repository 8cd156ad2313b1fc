/* world.h - a simulated world around the broker's core: network, workers, store and their faults, from one seed.
 *
 *   world.c     time, chance, the agenda, the life of a world, what is checked at its end
 *   shell.c     the broker around the core: carries out actions, checks each, crashes
 *   units.c     units are imported and loaded
 *   store.c     the store: commits and attempts
 *   ledger.h    checks the core by a second implementation of its rules
 *   clients.c   clients: vanish half-way through a submission, stop, cancel, retry jobs, change priorities
 *   workers.c   workers: compute, die, hang, drain
 *   network.c   the network between workers and the broker
 *   chaos.c     chooses which fault happens when
 *   simulate.c  seeds, options, the table of faults, the planted bugs
 *
 * Who may call: the simulator. Units: simulated milliseconds. Memory: everything of a world but the core lives in its
 * arena. Errors: world_fail() prints what was found and leaves through world.failed (longjmp). */
#ifndef BLIPLINE_TESTS_SIMULATE_WORLD_H
#define BLIPLINE_TESTS_SIMULATE_WORLD_H

#include <setjmp.h>

#include "base/arena.h"
#include "broker/core.h"
#include "broker/core_table.h"
#include "tests/simulate/ledger.h"

enum {
    LEASE_MS = 1000,
    WORKER_MS = 3000,
    MAX_ATTEMPTS = 3,
    MAX_JOBS = LED_JOBS,
    N_HOSTS = 4, /* from 1 */
    MAX_WORKERS = 12,
    MAX_ITEMS = 80, /* of a unit */
    ROW_BYTES = 10, /* of an item at a node */
    MAX_HELD = 256  /* leases, stale ones included */
};

enum message_class {
    MSG_HELLO,
    MSG_CREDIT,
    MSG_HEARTBEAT,
    MSG_RESULT,
    MSG_FAILURE,
    MSG_RETURN,
    MSG_BYE,
    MSG_ANSWER,
    MSG_WORK,
    N_CLASSES
};
enum net_fault { NET_LOST, NET_DELAYED, NET_DOUBLED, NET_REORDERED, N_NET_FAULTS };
enum fault {
    FAULT_WORKER_CRASH,
    FAULT_WORKER_HANG,
    FAULT_WORKER_STUCK, /* computes nothing, but its socket thread goes on */
    FAULT_WORKER_SLOW,
    FAULT_WORKER_DRAIN,
    FAULT_WORKER_RETURN,
    FAULT_WORKER_UNSEEN, /* it cannot see the pictures of a job */
    FAULT_WORKER_RECONNECT,
    FAULT_WORKER_LOST,    /* the broker notices that the connection is lost, but not whether the process lives */
    FAULT_VISITOR,        /* says HELLO and nothing more */
    FAULT_FOREIGN_LEASE,  /* names leases of others, or of another epoch */
    FAULT_WORKER_FAILURE, /* transient */
    FAULT_WORKER_BAD_ROWS,
    FAULT_WORKER_LIAR, /* until the faults end it fails, returns or keeps all work, or makes tensors that are refused */
    FAULT_TENSOR_REFUSED,
    FAULT_WORKER_STALLED, /* it was cut off */
    FAULT_WORKER_WRONG_MODEL,
    FAULT_STALE_RESULT,
    FAULT_POISON_KILLS,
    FAULT_POISON_FAILS,
    FAULT_ITEM_ERROR,
    FAULT_PAYLOAD_LOST,
    FAULT_BROKER_CRASH,
    FAULT_BROKER_SHUTDOWN,
    FAULT_BROKER_STOPPED, /* for a while, as by SIGSTOP */
    FAULT_NONSENSE,       /* invalid job events */
    FAULT_COMMIT_CUT,     /* crash between COMMIT and its transaction */
    FAULT_ANSWER_CUT,     /* crash between the transaction and its answer */
    FAULT_DISK_FULL,
    FAULT_LATE_UNITS,
    FAULT_JOB_STOP,
    FAULT_JOB_PRIORITY,
    FAULT_JOB_CLOSED,
    FAULT_JOB_CANCELLED, /* for good */
    FAULT_JOB_RETRY,
    FAULT_RETRY_CUT,     /* the broker crashes while items are marked */
    FAULT_CLIENT_GONE,   /* before it has sent all units */
    FAULT_JOB_FAILED,    /* its store cannot be used for a while */
    FAULT_UNSEALED,      /* units come after the seal */
    FAULT_DONE_EXTENDED, /* units come to an open job that is done */
    FAULT_DONE_REOPENED, /* a job that is done is closed, and opened again for more units */
    FAULT_IDLE_WORKER,   /* a worker that no job wanted gets work later */
    FAULT_SOURCE_GONE,   /* every item read for a while is an error */
    FAULT_SURGE,         /* a job pauses itself */
    FAULT_ITEMS_AGAIN,   /* items that are done are to be done again */
    N_FAULTS
};

/* Over all seeds of a run. */
struct tally {
    uint64_t net[N_CLASSES][N_NET_FAULTS];
    uint64_t faults[N_FAULTS];
    uint64_t steps, units, items, quarantined, unlucky, splits;
};

enum fate { FATE_GOOD, FATE_ERROR, FATE_KILLER, FATE_FAILER };

struct sim_unit {
    uint32_t n_items;
    uint64_t picture_bytes; /* the client sent them; 0: workers read the pictures */
    bool done, commit_pending, has_poison;
    bool asked;        /* a COMMIT of it was asked for in this life of the broker */
    uint32_t attempts; /* durable, and so is `subunits` */
    uint8_t subunits[MAX_ITEMS];
    struct led_unit led;
    uint32_t attempts_asked; /* as last asked to be made durable, in this life of the broker */
    uint32_t hits;           /* random faults that have hit it */
    struct {
        enum fate fate;
        uint32_t node;
        bool again; /* done, and to be done again; durable */
    } items[MAX_ITEMS];
};

struct sim_job {
    uint64_t id;
    uint32_t index;
    uint32_t n_nodes;
    struct core_node nodes[CORE_MAX_NODES];
    uint32_t n_units, n_imported;
    struct sim_unit *units;
    bool sealed;   /* perhaps before its last unit */
    bool finished; /* done, with all its units */
    bool cancelled;
    bool client_gone;
    struct {
        bool on; /* failed items are being marked to be done again; durable */
        uint32_t unit, from_unit;
    } retry;
    uint32_t max_failures, max_failed_per_mille;
    bool gone; /* the source is unreadable now */
    uint32_t n_surges;
    bool paused;       /* in this life of the broker */
    uint32_t n_in_row; /* failed items committed since the last good one, since it was opened or started */
    uint64_t opening;  /* counts the times it was opened */
    struct led_job led;
    bool open, loading, stopped, stop_told, closing, failed; /* in this life of the broker */
};

/* A lease held by a worker, and then its result. */
struct sim_work {
    uint64_t epoch, lease;
    struct sim_job *job;
    uint32_t unit, node, first, count, n_items;
    bool exclusive, arrived, sent;
    bool gone; /* its items cannot be read */
    uint32_t items[MAX_ITEMS];
    uint64_t inputs[MAX_ITEMS]; /* hash of the inputs of each item */
    uint64_t values[MAX_ITEMS];
    bool ok[MAX_ITEMS];
    uint32_t n_rows;  /* of the result; n_items unless it is broken */
    bool corrupt;     /* its tensor will be refused */
    uint32_t refused; /* bit k: the tensor of node k is such a one */
};

struct sim_payload {
    uint64_t handle;
    struct sim_work work; /* a copy as it arrived: the original changes if the work is repeated */
    bool tensors, rows, lost;
    uint64_t row_bytes; /* kept until the commit */
};

struct sim_worker {
    uint32_t index;
    uint64_t life; /* process; events of earlier ones are void */
    uint64_t peer, host, nonce, epoch;
    uint32_t stage, model, window;
    uint64_t window_bytes;
    bool alive, welcome, hung, stuck, slow, draining, wrong_model, last_heartbeat_lost;
    enum lie { LIE_NONE, LIE_FAILS, LIE_RETURNS, LIE_CORRUPTS, LIE_KEEPS } lie;
    int64_t busy_until;
    uint32_t n_held;
    struct sim_work *held[MAX_HELD];
    uint64_t sent_seq[2], delivered_seq[2]; /* to the broker, from the broker */
};

struct message {
    enum message_class class;
    struct sim_worker *worker;
    uint64_t life, peer, seq, epoch;
    struct sim_work *work;
    uint32_t n_leases, window;
    uint64_t window_bytes;
    bool refused, again, unseen;
    uint64_t leases[MAX_HELD];
};

struct world;
typedef void agenda_fn(struct world *w, void *what, uint64_t life);

struct agenda_entry {
    int64_t at;
    uint64_t seq;
    agenda_fn *fn;
    void *what;
    uint64_t life;
};

struct world {
    uint64_t seed, random;
    bool verbose, wild; /* wild: no budget of faults, so innocent items may be quarantined */
    struct tally *tally;
    struct arena arena;
    jmp_buf failed;
    int64_t now, faults_end, end;
    bool quiet; /* no more faults */
    struct agenda_entry *agenda;
    size_t n_agenda, agenda_capacity;
    uint64_t next_seq, next_handle, next_peer, next_nonce;

    struct core_limits limits;
    struct core *core; /* NULL: the broker is down */
    uint64_t epoch;
    struct core_actions actions;
    struct ledger ledger;
    bool disk_full, shutting_down;
    uint32_t blind[N_HOSTS]; /* of each host: bit i: it cannot see the pictures of job i */
    int64_t stopped_until;   /* the broker is stopped until then, as by SIGSTOP */
    struct core_map payloads;
    uint64_t tensor_bytes, row_bytes; /* row_bytes: of rows that are kept for a commit */
    uint32_t n_commits;               /* asked for, not yet answered, in this life */

    uint32_t n_jobs, n_workers;
    struct sim_job jobs[MAX_JOBS];
    struct sim_worker workers[MAX_WORKERS];
};

/* world.c */
uint64_t world_random(struct world *w);
uint64_t world_below(struct world *w, uint64_t n); /* 0..n-1 */
bool world_chance(struct world *w, uint32_t per_mille);
void world_in(struct world *w, int64_t delay_ms, agenda_fn *fn, void *what, uint64_t life);
void *world_alloc(struct world *w, size_t bytes); /* zeroed */
void world_fail(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3) __attribute__((noreturn));
void world_say(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
void world_fault(struct world *w, enum fault f);
/* The value that the node must give for the item. */
uint64_t world_truth(const struct sim_job *j, uint32_t unit, uint32_t item, uint32_t node);
uint64_t world_value(const struct sim_job *j, uint32_t unit, uint32_t item, uint32_t node, uint64_t inputs);
/* True: all well. */
bool world_run(uint64_t seed, enum core_bug planted, bool verbose, struct tally *tally);

/* shell.c */
void shell_start(struct world *w);
void shell_crash(struct world *w);
void shell_cut_off(struct world *w, void *what, uint64_t life); /* an agenda_fn: a crash in the midst of something */
void shell_step(struct world *w, const struct core_event *e);
void shell_step_to(struct world *w, const struct core_event *e, int expected); /* that returns this error */
struct sim_job *shell_job(struct world *w, uint64_t id);                       /* an open one */
struct sim_payload *shell_payload(struct world *w, uint64_t handle);
void shell_job_event(struct world *w, enum core_event_type type, struct sim_job *j);
void shell_import(struct world *w, void *job, uint64_t life);
void shell_start_job(struct world *w, struct sim_job *j);
void shell_fail_job(struct world *w, struct sim_job *j);
void shell_close_job(struct world *w, void *job, uint64_t life);  /* an agenda_fn */
void shell_reopen_job(struct world *w, void *job, uint64_t life); /* an agenda_fn; unless it is open */
/* True: the broker is stopped, and fn will be called when it goes on. */
bool shell_is_stopped(struct world *w, agenda_fn *fn, void *what, uint64_t life);

/* store.c */
void store_commit(struct world *w, const struct core_commit *a);
void store_attempts(struct world *w, const struct core_action *a);
void store_try_disk(struct world *w, void *job, uint64_t life); /* an agenda_fn */

/* units.c */
void units_load(struct world *w, const struct core_action *a);
/* False: there is nothing to be done. */
bool units_row(const struct sim_unit *u, uint32_t number, struct core_unit_row *ret);

/* clients.c */
void clients_stop(struct world *w, struct sim_job *j);
void clients_start_later(struct world *w, void *job, uint64_t life); /* an agenda_fn; if it is still stopped */
void clients_change_priority(struct world *w, struct sim_job *j);
void clients_close(struct world *w, struct sim_job *j); /* it is opened again */
void clients_cancel(struct world *w, struct sim_job *j);
void clients_vanish(struct world *w, struct sim_job *j);
void clients_do_again(struct world *w, struct sim_job *j);
void clients_retry(struct world *w, struct sim_job *j);
void clients_opened(struct world *w, struct sim_job *j); /* the broker goes on with what was under way */

/* network.c */
struct message *network_message(struct world *w, struct sim_worker *k, enum message_class class);
void network_post(struct world *w, struct message *m);
void network_send_work(struct world *w, struct sim_worker *k, enum message_class class, struct sim_work *work);
void network_deliver(struct world *w, void *message, uint64_t life); /* an agenda_fn */

/* workers.c */
void worker_hears(struct world *w, struct message *m);
void worker_start(struct world *w, void *worker, uint64_t life);
void worker_crash(struct world *w, struct sim_worker *k);
void worker_hang(struct world *w, struct sim_worker *k, int64_t ms, bool only_stuck);
void worker_drain(struct world *w, struct sim_worker *k);
void worker_return_one(struct world *w, struct sim_worker *k);
void worker_reconnect(struct world *w, struct sim_worker *k, bool missed_at_once);
void worker_forget(struct world *w, struct sim_worker *k, const struct sim_work *work);
struct sim_worker *worker_of_peer(struct world *w, uint64_t peer);
void worker_send_work(struct world *w, struct sim_worker *k, struct sim_work *work);
void worker_send_answer(struct world *w, struct sim_worker *k, bool refused, bool again);
/* May a random fault hit these leases now? If so, it is counted against their budgets. */
bool worker_may_hit(struct world *w, struct sim_work *const *works, uint32_t n);

/* chaos.c */
void chaos_start(struct world *w);

#endif
