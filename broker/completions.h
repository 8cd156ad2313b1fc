/* completions.h - turn completions of the committer into events for the core and answers to clients.
 *
 * Who may call: server.c. Units: milliseconds. Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_COMPLETIONS_H
#define BLIPLINE_BROKER_COMPLETIONS_H

#include "broker/jobs.h"
#include "broker/models.h"

#include <stdint.h>

void completions_take(struct jobs *jobs, struct models *models);
/* Where the disk was full: see if there is room again, if it is time. Returns when to call it again. */
int64_t completions_retry(struct jobs *jobs, uint64_t min_free_bytes);

#endif
