/* client_jobs.h - requests of a client about the jobs that a broker keeps: JOB_LIST, JOB_CONTROL.
 *
 * Who may call, units, errors: as client_session.h. Memory: rows are copied; free a list with client_job_list_release.
 */
#ifndef BLIPLINE_WIRE_CLIENT_JOBS_H
#define BLIPLINE_WIRE_CLIENT_JOBS_H

#include "proto/stored.h"
#include "wire/client_session.h"

/* Zero-initialise. */
struct client_job_list {
    struct stored_job_entry *rows; /* [n], by increasing number; room for MSG_MAX_LISTED_JOBS */
    uint32_t n;
    uint64_t next_job; /* where to go on; 0: there are no more */
};

/* The first jobs with the number `from_job` or a larger one that this client may see. A list may be filled again. */
int client_session_list_jobs(struct client_session *s, uint64_t from_job, struct client_job_list *ret,
                             struct err *err) CHECK_RESULT;
/* The row of one job. -ENOENT: there is none, or this client may not see it. */
int client_session_find_job(struct client_session *s, uint64_t job, struct stored_job_entry *ret,
                            struct err *err) CHECK_RESULT;
/* Change a job. *ret: its row then; after MSG_JOB_REMOVE nothing is written. */
int client_session_control_job(struct client_session *s, const struct msg_job_control *what,
                               struct stored_job_entry *ret, struct err *err) CHECK_RESULT;
void client_job_list_release(struct client_job_list *list);

#endif
