/* watch.h - units that nobody here can compute, and jobs that stand still.
 *
 * Who may call: server.c. Units: milliseconds. Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_WATCH_H
#define BLIPLINE_BROKER_WATCH_H

#include "broker/jobs.h"

#include <stdint.h>

/* Look at jobs that stand still, if it is time. Returns when to be called again. */
int64_t watch_jobs(struct jobs *jobs);

#endif
