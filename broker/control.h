/* control.h - what JOB_CONTROL makes of a job's row in the job table.
 *
 * Who may call: anyone. Units: milliseconds since 1970. Memory: none is kept. Errors: see the function. */
#ifndef BLIPLINE_BROKER_CONTROL_H
#define BLIPLINE_BROKER_CONTROL_H

#include "base/err.h"
#include "proto/msg.h"
#include "proto/stored.h"

#include <stdint.h>

/* REMOVE makes it STORED_WANTED_REMOVED. -EPERM: the action does not fit the job's state, *e is unchanged. */
int control_apply(struct stored_job_entry *e, const struct msg_job_control *c, int64_t now_ms,
                  struct err *err) CHECK_RESULT;

#endif
