/* client_jobs.h - requests of a client about the jobs that a broker keeps: JOB_CONTROL.
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
};

/* Change a job. *ret: its row then, none after MSG_JOB_REMOVE. */
int client_session_control_job(struct client_session *s, const struct msg_job_control *what,
                               struct client_job_list *ret, struct err *err) CHECK_RESULT;
void client_job_list_release(struct client_job_list *list);

#endif
