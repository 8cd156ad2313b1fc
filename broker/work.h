/* work.h - the WORK message of a lease: rows of its items, with the captions that the node waits for, and tensors.
 *
 * Who may call: actions.c. Units: bytes. Memory: the message is the caller's. Errors: negative errno with err. */
#ifndef BLIPLINE_BROKER_WORK_H
#define BLIPLINE_BROKER_WORK_H

#include "base/err.h"
#include "broker/core.h"
#include "broker/jobs.h"
#include "broker/payloads.h"
#include "wire/message.h"

int work_message(const struct jobs *jobs, const struct payloads *payloads, const struct core_work *work,
                 struct wire_message **ret, struct err *err) CHECK_RESULT;

#endif
