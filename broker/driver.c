#include "broker/driver.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "base/log.h"

void driver_init(struct driver *d, const struct core_limits *limits, uint64_t epoch,
                 void (*act)(void *arg, const struct core_action *action), void *arg)
{
    *d = (struct driver){.core = core_new(limits, epoch), .act = act, .arg = arg};
    core_actions_init(&d->actions);
}

void driver_release(struct driver *d)
{
    core_actions_release(&d->actions);
    core_free(d->core);
    free(d->later);
}

void driver_fail(struct driver *d, int rc, const char *fmt, ...)
{
    va_list ap;

    if (d->failed < 0)
        return;
    d->failed = rc;
    va_start(ap, fmt);
    (void)vsnprintf(d->why.text, sizeof(d->why.text), fmt, ap);
    va_end(ap);
}

static int feed_one(struct driver *d, const struct core_event *event)
{
    int rc;

    core_actions_clear(&d->actions);
    rc = core_step(d->core, event, d->now_ms, &d->actions);
    if (rc == -ENOMEM)
        driver_fail(d, rc, "no memory for the state of jobs and workers");
    else if (rc < 0)
        log_warn("event=core_refused type=%d msg=\"%s; the event is dropped\"", event->type, strerror(-rc));
    for (size_t i = 0; i < d->actions.n && d->failed == 0; i++)
        d->act(d->arg, &d->actions.items[i]);
    return rc;
}

void driver_feed_later(struct driver *d, const struct core_event *event)
{
    if (grow_array(&d->later, &d->later_capacity, d->n_later, sizeof(*d->later), 64) < 0) {
        driver_fail(d, -ENOMEM, "no memory for events");
        return;
    }
    d->later[d->n_later++] = *event;
}

void driver_feed_rest(struct driver *d)
{
    for (size_t i = 0; i < d->n_later; i++) { /* grows while it runs */
        const struct core_event later = d->later[i];

        if (d->failed == 0)
            (void)feed_one(d, &later);
    }
    d->n_later = 0;
}

int driver_feed(struct driver *d, const struct core_event *event)
{
    const int rc = feed_one(d, event);

    driver_feed_rest(d);
    return rc;
}
