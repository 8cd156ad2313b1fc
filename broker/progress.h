/* progress.h - what clients and the log are told about a job: its progress, what it waits for, what went wrong.
 *
 * Who may call: the loop's thread. Units, Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_PROGRESS_H
#define BLIPLINE_BROKER_PROGRESS_H

#include "broker/jobs.h"

enum msg_job_state progress_state(const struct jobs *jobs, const struct broker_job *job);
/* What there is to say about a job in this state; "": nothing. */
const char *progress_text(const struct broker_job *job, enum msg_job_state state);
/* JOB_PROGRESS, in answer to a client. */
void progress_answer(const struct jobs *jobs, const struct broker_job *job, uint64_t peer, uint64_t seq);
/* Counters to the log. */
void progress_log(const struct jobs *jobs, const struct broker_job *job);

#endif
