/* fleet_stages.h - the stages of the fleet: workers that compute the same, and the units that wait for them.
 *
 * Who may call: the loop's thread. Units: in the names. Memory: none is kept. Errors: -ENOMEM, -EFBIG. */
#ifndef BLIPLINE_BROKER_FLEET_STAGES_H
#define BLIPLINE_BROKER_FLEET_STAGES_H

#include "base/buf.h"
#include "broker/jobs.h"

#include <stdint.h>

/* The share of the last seconds that the worker held units. */
uint32_t fleet_busy_per_mille(const struct peer *p, const struct core_worker_info *info, int64_t now_ms);
/* Append FleetStage rows from number `from` on, and count them. */
int fleet_stages_append(const struct jobs *jobs, uint64_t from, struct buf *frame, uint32_t *n_rows) CHECK_RESULT;

#endif
