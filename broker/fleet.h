/* fleet.h - FLEET_QUERY: what clients see of the connected workers and the open jobs, with rates that are measured all
 * the time, so that the first answer has them.
 *
 * Who may call: the loop's thread. Units: in the names. Memory: borrows struct jobs. Errors: the client is told. */
#ifndef BLIPLINE_BROKER_FLEET_H
#define BLIPLINE_BROKER_FLEET_H

#include "broker/jobs.h"

#include <stdint.h>

struct fleet {
    struct jobs *jobs;
    int64_t started_ms; /* the broker */
    int64_t look_at_ms; /* when fleet_watch looks again */
};

/* Measure what workers and jobs have done, if it is time. Returns when to call again; INT64_MAX: nobody is there. */
int64_t fleet_watch(struct fleet *f);
void fleet_answer(const struct fleet *f, const struct peer *p, const struct msg *m);

#endif
