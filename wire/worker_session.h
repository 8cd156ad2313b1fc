/* worker_session.h - the connection of a worker to its broker, the same for all stages.
 *
 * A separate thread (the socket thread) owns the DEALER: it sends HELLO, asks for work by credits, sends heartbeats for
 * held units and reconnects after losses. The compute side takes units, may compute several together, and gives each
 * back exactly once by _result, _failure or _return.
 *
 *     worker_session_start(&conf, &s, &err);
 *     while ((rc = worker_session_take(s, have_something ? 0 : -1, &work)) >= 0)     // until -EPIPE
 *         ... worker_session_progress(s) after each batch or step ...
 *             worker_session_result(s, &work, &result, &err);
 *     worker_session_stop(&s);
 *
 * Heartbeats extend leases only while the compute side is alive: worker_session_progress (or _result, _failure,
 * _return) was called since the last heartbeat, or a thread waits in _take and no unit is unfinished. A pool that takes
 * units ahead of the device must therefore call _progress from the thread whose hanging should be noticed.
 *
 * Who may call: _take, _result, _failure, _return, _progress, _count: any thread of the compute side. _drain: any
 *         thread (not a signal handler). _status, _wait: only the main thread. _start, _stop: the main thread, while no
 *         thread is inside another call.
 * Units:  milliseconds, bytes, items.
 * Memory: the compute side owns a work, with its items and tensors, from _take until it gives it back; the calls that
 *         give it back set the pointer to NULL, also when they fail.
 * Errors: negative errno. After a new epoch of the broker a work is stale: worker_work_stale() is true, and giving it
 *         back succeeds and sends nothing. */
#ifndef BLIPLINE_WIRE_WORKER_SESSION_H
#define BLIPLINE_WIRE_WORKER_SESSION_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/model.h"
#include "proto/msg.h"
#include "proto/row.h"
#include "wire/keys.h"
#include "wire/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker_session;

struct worker_session_conf {
    const char *endpoint;
    const struct wire_keys *keys; /* for tcp; NULL: none */
    enum stage stage;
    const char *device; /* "cpu", "null", "cuda:0" */
    enum dtype dtype;
    struct fingerprint fingerprint; /* zeroed for device null */
    const char *model;              /* the checkpoint's name; may be NULL */
    const struct model *offer;      /* told to brokers that keep models; with one stage; NULL: nothing */
    const char *folder;             /* of its files; read again when a broker asks for them */
    uint32_t window_items;          /* most items held at once; at least one unit */
    uint64_t window_bytes;
    int64_t retry_min_ms, retry_max_ms; /* back-off of connecting; 0: 100 and 5000 */
    int64_t silence_ms;                 /* reconnect if the broker is silent for so long; 0: 5 heartbeats */
    void (*alive)(
        void); /* called by the socket thread about every second while the compute side is alive; may be NULL */
};

/* Strings are copied. Returns once the thread runs; it connects in the background, however long that takes. */
int worker_session_start(const struct worker_session_conf *conf, struct worker_session **ret,
                         struct err *err) CHECK_RESULT;
/* Close at once (within WIRE_LINGER_MS) and abandon all held units. Works that were not given back are freed, too: do
 * not use them afterwards. For an orderly end call _drain and _wait first. Sets *s to NULL; it may be NULL already. */
void worker_session_stop(struct worker_session **s);

/* One leased unit at one node. */
struct worker_work {
    struct msg_lease lease;
    struct msg_recipe recipe;
    uint32_t tasks;   /* of the node, enum msg_task */
    uint32_t n_items; /* at most lease.count: items that failed at an earlier node are left out */
    const struct row_item
        *items; /* with fields, and with the captions of the nodes that it needs and that write rows */
    uint32_t
        n_tensors; /* outputs of the nodes that this one depends on; shape[0] = n_items, or a selection says which */
    const struct wire_tensor *tensors[MSG_MAX_TENSORS];
    uint32_t n_selections; /* checked: ascending, each picks n_items rows of its tensor */
    const struct msg_selection *selections;
    int64_t received_ns; /* clock_mono_ns; for msg_timing.wait_ns */
};
/* True once the broker that leased it has ended: stop working on it and give it back by _return. */
bool worker_work_stale(const struct worker_work *w);

/* 1: a work. 0: none within timeout_ms (0: do not wait; -1: for ever). -EPIPE: no more units will come (draining,
 * refused, or stopped: see _status). */
int worker_session_take(struct worker_session *s, int64_t timeout_ms, struct worker_work **ret) CHECK_RESULT;

struct worker_result {
    struct msg_timing timing;
    struct buf rows; /* n_items Record rows, ROW_MAX_ROWS_BYTES at most; taken and emptied, also on failure */
    uint32_t n_rows;
    struct wire_tensor
        *tensors[MSG_MAX_TENSORS]; /* rows of the items without error, in order; taken, also on failure */
    uint32_t n_tensors;
};
int worker_session_result(struct worker_session *s, struct worker_work **work, struct worker_result *result,
                          struct err *err) CHECK_RESULT;
/* The unit as a whole cannot be done here; raises its attempt count. `code` is one word of [a-z0-9_-]. */
int worker_session_failure(struct worker_session *s, struct worker_work **work, const char *code,
                           const char *text) CHECK_RESULT;
/* Hand back unpenalised. `unseen`: the folder of its pictures that cannot be seen here, and why; NULL: they can. */
int worker_session_return(struct worker_session *s, struct worker_work **work, const char *unseen) CHECK_RESULT;

/* Call it while the compute side works. It is only an atomic increment, so call it often. */
void worker_session_progress(struct worker_session *s);
/* Add to the number of items that heartbeats report: the broker measures the speed of workers by it. */
void worker_session_count(struct worker_session *s, uint64_t n_items);

/* After SIGTERM: sets the credit to 0, hands back the units that nobody has taken, makes _take return -EPIPE, and sends
 * BYE once all taken units have been given back. Returns at once. */
void worker_session_drain(struct worker_session *s);

enum worker_session_state {
    WORKER_SESSION_CONNECTING, /* or the connection was lost and is tried again */
    WORKER_SESSION_CONNECTED,
    WORKER_SESSION_DRAINING, /* on request, or because the broker asked for it */
    WORKER_SESSION_DRAINED,  /* BYE was sent, or there was no broker; final */
    WORKER_SESSION_REFUSED,  /* the broker refuses this worker: `reason`; final */
};
struct worker_session_status {
    enum worker_session_state state;
    enum msg_reason reason;   /* REFUSED */
    char text[MSG_TEXT_SIZE]; /* REFUSED: why; CONNECTING: why not yet, or empty */
    uint64_t epoch;           /* of the latest broker */
    uint32_t n_connects;      /* number of WELCOMEs */
    uint32_t n_held;          /* leases: waiting, taken, or on their way back */
};
void worker_session_status(struct worker_session *s, struct worker_session_status *ret);
/* Wait for a final state (DRAINED, REFUSED). -ETIMEDOUT. */
int worker_session_wait(struct worker_session *s, int64_t timeout_ms) CHECK_RESULT;

#endif
