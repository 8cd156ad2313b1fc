/* lost.h - workers whose connection is lost: do their processes live?
 *
 * A stalled process, or a broken network, is no failure of the units; a process that has ended is, and whoever waits
 * for its leases to end waits in vain. On the broker's own machine the kernel knows.
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

/* The process of a worker that says HELLO, if it can be seen from here; otherwise 0. */
pid_t lost_pid(const struct msg_hello *hello);
/* The worker's connection is lost. True: so is its process. */
bool lost_add(struct lost *all, uint64_t peer, pid_t pid);
void lost_forget(struct lost *all, uint64_t peer);
/* One whose process has ended; it is forgotten. 0: none. */
uint64_t lost_take_ended(struct lost *all);
void lost_release(struct lost *all);

#endif
