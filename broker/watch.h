/* watch.h - find jobs that do not move, and why.
 *
 * Who may call: server.c. Units: milliseconds. Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_WATCH_H
#define BLIPLINE_BROKER_WATCH_H

#include "broker/jobs.h"

#include <stdint.h>

/* Look at all jobs, if it is time. Returns when to call it again. */
int64_t watch_jobs(struct jobs *jobs);

#endif
