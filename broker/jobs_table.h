/* jobs_table.h - the jobs of the job table, where the broker has one.
 *
 * Who may call: the loop's thread. Memory: as jobs.h. Errors: the client is told, or see each function. */
#ifndef BLIPLINE_BROKER_JOBS_TABLE_H
#define BLIPLINE_BROKER_JOBS_TABLE_H

#include "broker/jobs.h"

/* Refuse what the peer asks of `job` (0: of none in particular) unless there is a table, and in it the job, as one that
 * the peer may see. */
bool jobs_table_refuse(struct jobs *jobs, const struct peer *p, const struct msg *m, uint64_t job);
/* The job that JOB_OPEN means, and where its store is; a new submission gets the next number. 0: it was refused. */
uint64_t jobs_table_find(struct jobs *jobs, const struct peer *p, const struct msg *m, char path[MSG_PATH_SIZE]);
/* Of a submission: put the row into the request, and the same into the meta of its store. */
int jobs_table_add(struct jobs *jobs, const struct broker_job *job, struct committer_request *r) CHECK_RESULT;
/* The store is open: what table and store say becomes what the job has. */
void jobs_table_take(struct broker_job *job, struct committer_completion *done);
/* JOB_LISTED. Of open jobs, the rows say how they are now. */
void jobs_table_answer(struct jobs *jobs, const struct question *q, struct stored_job_entry *rows, uint32_t n_rows,
                       uint64_t next_job);
/* Open the job without a client. */
int jobs_table_open(struct jobs *jobs, const struct stored_job_entry *entry, struct err *err) CHECK_RESULT;

#endif
