/* driver.h - step the core, and carry out its actions.
 *
 * The one place that steps the core. Every message, commit or timeout is fed to it here as an event;
 * the actions that follow go to `act`, in order, before the call returns.
 *
 * Who may call: the loop's thread; driver_feed not from within `act`. Units: monotonic milliseconds.
 * Memory: the core and the events that wait are the driver's. Errors: an error that must end the broker is kept
 * in `failed` and `why`. */
#ifndef BLIPLINE_BROKER_DRIVER_H
#define BLIPLINE_BROKER_DRIVER_H

#include "base/err.h"
#include "broker/core.h"

#include <stddef.h>
#include <stdint.h>

struct driver {
    struct core *core;
    int64_t now_ms; /* of the current round of the loop */
    void (*act)(void *arg, const struct core_action *action);
    void *arg;
    int failed; /* -EIO, -ENOMEM: the loop ends */
    struct err why;

    struct core_actions actions;
    struct core_event *later; /* events that actions have caused */
    size_t n_later, later_capacity;
};

/* NULL core afterwards: no memory. */
void driver_init(struct driver *d, const struct core_limits *limits, uint64_t epoch,
                 void (*act)(void *arg, const struct core_action *action), void *arg);
void driver_release(struct driver *d);

/* Feed the event, then those that its actions caused. Returns what core_step returned for this event. */
int driver_feed(struct driver *d, const struct core_event *event);
/* Feed it after the current actions; what it points to must live until then. */
void driver_feed_later(struct driver *d, const struct core_event *event);
/* Feed the events that were left for later. */
void driver_feed_rest(struct driver *d);
/* The broker cannot go on. */
void driver_fail(struct driver *d, int rc, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
