/* worker_end.h - how a worker's session came to its end, for the last line of a main loop.
 *
 * Who may call: the thread that calls worker_session_take, after it said -EPIPE and everything taken has been given
 * back. Errors: 0: drained, on request or because the broker said so. -ECONNREFUSED: the broker does not want this
 * worker, err says why. -ETIMEDOUT: the broker did not hear the end in time. */
#ifndef BLIPLINE_WIRE_WORKER_END_H
#define BLIPLINE_WIRE_WORKER_END_H

#include "wire/worker_session.h"

int worker_session_end(struct worker_session *s, int64_t timeout_ms, struct err *err) CHECK_RESULT;

#endif
