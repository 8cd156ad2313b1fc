/* committer_private.h - what the two halves of the committer share: committer.c, which the loop calls, and the thread,
 * committer_thread.c. They meet in the mailboxes alone. */
#ifndef BLIPLINE_BROKER_COMMITTER_PRIVATE_H
#define BLIPLINE_BROKER_COMMITTER_PRIVATE_H

#include "broker/committer.h"

#include "base/mailbox.h"
#include "broker/committer_walk.h"
#include "broker/removals.h"

#include <pthread.h>
#include <stdatomic.h>

/* A request on its way, and the completion that it becomes: allocated together, so that completing cannot fail. */
struct passage {
    struct committer_completion done; /* first: the caller frees by its address */
    struct err err;
    struct committer_request *request;
    uint64_t bytes;
    size_t store; /* index of its store, while in a group; SIZE_MAX: none */
};

struct open_store {
    uint64_t job;
    struct store *store;
    int group_rc; /* why the group's transaction of this store is lost */
    struct err group_err;
    int64_t keys_after_ms; /* not before */
    struct committer_walk walk;
};

struct committer {
    struct committer_conf conf;
    struct mailbox *in, *out;
    pthread_t thread;
    atomic_bool finishing;

    /* the loop's */
    uint32_t n_waiting;
    uint64_t bytes_waiting;

    /* the thread's */
    struct open_store *stores;
    size_t n_stores;
    struct passage **group;
    uint32_t n_group;
    uint64_t group_bytes;
    struct removals removals;
};

/* The thread. Ends when the mailbox of requests is closed and empty. */
void *committer_main(void *committer);

#endif
