/* worker_private.h - shared by the two halves of a worker's session: worker_session.c, which the compute side calls,
 * and the socket thread, worker_link.c with worker_held.c.
 *
 * The halves communicate only through mailboxes and atomics. The socket thread makes a `held`, lends it to the compute
 * side from _take until it is given back, and frees it (or _stop does, after that thread has ended). */
#ifndef BLIPLINE_WIRE_WORKER_PRIVATE_H
#define BLIPLINE_WIRE_WORKER_PRIVATE_H

#include "wire/worker_session.h"

#include "base/arena.h"
#include "base/mailbox.h"
#include "wire/dealer.h"
#include "wire/message.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

/* One leased unit. All members but `stale` belong to the thread that has it. */
struct held {
    struct worker_work work; /* first: worker_work * and held * are the same address */
    atomic_bool stale;       /* set by the socket thread while the compute side has it */
    struct wire_message *message;
    struct arena arena; /* the items */
    uint64_t n_bytes;
    struct held *next; /* the socket thread's list */
};

/* An answer of the compute side: exactly one message for each held. */
struct returned {
    struct held *held;
    struct wire_message *message; /* RESULT, FAILURE or RETURN */
    struct returned *next;        /* the socket thread's queue */
};

struct worker_session {
    /* fixed at start */
    struct worker_session_conf conf;
    char endpoint[256], device[MSG_NAME_SIZE], model[MSG_NAME_SIZE], host[MSG_NAME_SIZE];
    struct wire_keys keys;
    struct model offer; /* without files: none */
    char folder[PATH_MAX];
    uint64_t boot_nonce;
    pthread_t thread;

    /* between the threads */
    struct mailbox *inbox;  /* held *: socket thread to compute side; closed when no more will come */
    struct mailbox *outbox; /* returned *, or the session itself to wake the thread */
    struct mailbox *states; /* worker_session_status *: socket thread to main, the latest counts */
    atomic_bool inbox_closed, drain, stop;
    atomic_uint_fast64_t progress;
    atomic_uint n_waiting; /* threads inside _take */
    atomic_uint n_taken;   /* works the compute side has */
    atomic_uint n_held;
    atomic_uint_fast64_t items;

    /* main's */
    struct worker_session_status last;

    /* the socket thread's (after it has ended: _stop's) */
    struct held *held;
    struct returned *unsent, *unsent_last;
};

/* worker_link.c: the socket thread. */
void *worker_link_main(void *session);

/* worker_offer.c, for the socket thread: queue the offer, or the files of the model. */
void worker_offer_send(struct worker_session *s);
void worker_offer_send_files(struct worker_session *s, const struct fingerprint *id);

/* worker_held.c, for the socket thread (after it has ended: for _stop). */
/* The unit of a WORK message, which it then owns. NULL: no memory. */
struct held *held_new(struct wire_message *message);
void held_free(struct held *h);
void returned_free(struct returned *r); /* not its held */
int held_decode_items(struct held *h, struct err *err) CHECK_RESULT;
void held_add(struct worker_session *s, struct held *h);
/* Remove it from the list and free it. */
void held_drop(struct worker_session *s, struct held *h);
/* Is a unit held under this lease, in the current epoch? */
bool held_has(const struct worker_session *s, uint64_t lease_id);
/* Answer a lease that never reaches the compute side. Without memory it is dropped, and expires. */
void held_answer(struct worker_session *s, struct held *h, enum msg_type type, const struct msg_lease *lease,
                 const char *text);
void held_queue_unsent(struct worker_session *s, struct returned *r);
struct returned *held_pop_unsent(struct worker_session *s);
/* A result that cannot be packed is a bug of the stage: report it as a failure. */
void held_replace_by_failure(void *socket, const struct returned *r, const char *why);
/* A new epoch began: nothing that was leased before counts any more. */
void held_drop_all(struct worker_session *s);

#endif
