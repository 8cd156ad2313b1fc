/* jobs_retry.h - RETRY: the failed items of a job are marked to be done again.
 *
 * The row of the job table says that this is under way (stored_job_entry.retrying) until the last item is marked. So
 * it goes on, from the beginning, when a job is opened again; to mark an item twice is to mark it once. The committer
 * marks in short steps, between which other jobs' commits take their turns.
 *
 * Who may call: the loop's thread. Memory: as jobs.h. Errors: the client that waits is told; a store that cannot be
 * written fails the job. */
#ifndef BLIPLINE_BROKER_JOBS_RETRY_H
#define BLIPLINE_BROKER_JOBS_RETRY_H

#include "broker/jobs.h"

/* If the row says so, the job runs, and it has not begun. */
void jobs_retry_begin(struct jobs *jobs, struct broker_job *job);
/* This client is answered once all items are marked. False: nothing is being marked, so answer it now. */
bool jobs_retry_wait(struct jobs *jobs, uint64_t job, const struct question *q);
/* The completion of a step. */
void jobs_retry_on_marked(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done);
/* The client that waits, if any, is told why its request was not carried out. */
void jobs_retry_refuse(struct jobs *jobs, struct broker_job *job, enum msg_reason reason, const char *text);
/* The core has no more units to do: the job has ended, unless items are being marked. */
void jobs_retry_or_end(struct jobs *jobs, struct broker_job *job);

#endif
