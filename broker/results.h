/* results.h - check a worker's RESULT (rows, embeddings, tensor) against its lease and job, then tell the core.
 *
 * Who may call: messages.c. Units, Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_RESULTS_H
#define BLIPLINE_BROKER_RESULTS_H

#include "broker/core.h"
#include "broker/jobs.h"
#include "broker/payloads.h"
#include "wire/message.h"

#include <stdint.h>

/* Which input tensors of the lease do not match their checksums: bit k, the one of node k. */
uint32_t results_refused_inputs(const struct core *core, const struct payloads *payloads,
                                const struct core_lease_ref *ref);
/* Turn a worker's RESULT into an event for the core. */
void results_take(struct jobs *jobs, struct payloads *payloads, uint64_t peer, struct wire_message *message);

#endif
