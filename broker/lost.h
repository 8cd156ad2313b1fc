/* lost.h - workers whose connection is lost: are their processes still running?
 *
 * If the process is stalled or the network is broken, the units have not failed and the worker may come back. If the
 * process has ended, they have failed, and waiting for its leases to expire would be lost time. For processes on the
 * broker's own machine the kernel tells.
 *
 * Who may call: the loop's thread. Units: milliseconds. Memory: a zeroed list is empty. Errors: none; without memory a
 * worker's leases end in their time. */
#ifndef BLIPLINE_BROKER_LOST_H
#define BLIPLINE_BROKER_LOST_H

#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { LOST_LOOK_MS = 100 }; /* how often to look */

struct lost {
    struct lost_worker *first; /* NULL: there are none */
};

/* The process of a worker that sends HELLO, if it runs on this machine; otherwise 0. */
pid_t lost_pid(const struct msg_hello *hello);
/* The worker's connection is lost. Returns true if its process has ended too. */
bool lost_add(struct lost *all, uint64_t peer, pid_t pid);
void lost_forget(struct lost *all, uint64_t peer);
/* Take a worker whose process has ended out of the list. 0: there is none. */
uint64_t lost_take_ended(struct lost *all);
void lost_release(struct lost *all);

#endif
