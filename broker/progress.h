/* progress.h - what the broker says of a job: how far it is, what it waits for, what went wrong.
 *
 * Who may call: the loop's thread. Units, Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_PROGRESS_H
#define BLIPLINE_BROKER_PROGRESS_H

#include "proto/msg.h"

struct broker;
struct broker_job;

void progress_get(const struct broker *b, const struct broker_job *job, struct msg_job_progress *ret);
void progress_log(const struct broker *b, const struct broker_job *job);

#endif
