/* worker_end.h - wait for the end of a worker's session and report how it ended; the last statement of a main loop.
 *
 * Who may call: the thread that calls worker_session_take, after it returned -EPIPE and every unit has been given
 * back. Returns 0 if the session drained (on request, or because the broker asked for it), -ECONNREFUSED if the broker
 * refuses this worker (err says why), -ETIMEDOUT if the broker did not acknowledge the end in time. */
#ifndef BLIPLINE_WIRE_WORKER_END_H
#define BLIPLINE_WIRE_WORKER_END_H

#include "wire/worker_session.h"

int worker_session_end(struct worker_session *s, int64_t timeout_ms, struct err *err) CHECK_RESULT;

#endif
