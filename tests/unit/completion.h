/* completion.h - waits for a completion of the committer, as the broker's loop does. Who may call: tests. Units:
 * milliseconds, -1: no limit. Memory: as committer_take. Errors: NULL if none came or none will. */
#ifndef BLIPLINE_TESTS_UNIT_COMPLETION_H
#define BLIPLINE_TESTS_UNIT_COMPLETION_H

#include "broker/committer.h"

#include <poll.h>

static inline struct committer_completion *completion_wait(struct committer *c, int timeout_ms)
{
    struct committer_completion *done = committer_take(c);

    if (!done && poll(&(struct pollfd){.fd = committer_fd(c), .events = POLLIN}, 1, timeout_ms) == 1)
        done = committer_take(c);
    return done;
}

#endif
