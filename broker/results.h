/* results.h - what a worker sends back: rows, embeddings and tensor are checked against the lease and the job before
 * the core hears of it.
 *
 * Who may call: messages.c. Units, Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_RESULTS_H
#define BLIPLINE_BROKER_RESULTS_H

#include "broker/core.h"
#include "broker/jobs.h"
#include "broker/payloads.h"
#include "wire/message.h"

#include <stdint.h>

/* Which tensors that the lease was given are not what their makers said: bit k, those of node k. */
uint32_t results_refused_inputs(const struct core *core, const struct payloads *payloads,
                                const struct core_lease_ref *ref);
/* A worker's RESULT becomes an event for the core. */
void results_take(struct jobs *jobs, struct payloads *payloads, uint64_t peer, struct wire_message *message);

#endif
