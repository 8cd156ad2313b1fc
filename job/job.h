/* job.h - one job at one broker: open it, stream its pictures, seal it, query its progress; also after a restart.
 *
 * Who may call: one thread, with SIGINT, SIGTERM and SIGHUP blocked (they are let in while an answer is awaited).
 * Units:  milliseconds. Memory: job_release closes the session.
 * Errors: negative errno and `err`. After -ECONNRESET, -ETIMEDOUT and -ESHUTDOWN (job_is_passing) the job can be
 * continued once a broker answers. -EINTR: a signal came. The others are refusals. */
#ifndef BLIPLINE_JOB_JOB_H
#define BLIPLINE_JOB_JOB_H

#include "base/buf.h"
#include "base/err.h"
#include "job/feed.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>

struct client_session;

struct job {
    const char *endpoint;
    struct client_session *session; /* NULL: not connected */
    struct msg_job_open open;
    struct msg_job_opened opened;
    struct row_source *sources;           /* [known.n_rows] */
    struct origins_known known;           /* what the store has; valid until the next job_open */
    bool sealed;                          /* the manifest is complete and durable; a restarted broker needs no rows */
    const struct msg_comparison *compare; /* rows are compared with the store; NULL: it is new */
    bool walk_begun;                      /* of the rows that are compared */
    struct msg_compared compared;         /* as far as the broker has said */
    struct buf rows;
};

void job_init(struct job *j, const char *endpoint, const struct msg_job_open *open);
void job_release(struct job *j);
bool job_is_passing(int rc);

/* Connect, if need be, open the job, and ask which sources its store has. -ETIMEDOUT: nobody answers yet, call again.
 * *ret_recipe: NULL, or where the store was begun with another recipe or model, that recipe; valid until the next call.
 */
int job_open(struct job *j, int64_t timeout_ms, const struct msg_recipe **ret_recipe, struct err *err) CHECK_RESULT;
/* Send the feed's sources: before its rows, and at the end for what was passed over. */
int job_sources(struct job *j, const struct feed *f, struct err *err) CHECK_RESULT;
/* Send one frame of what the feed has. *ret_more false: that was the last one. */
int job_stream(struct job *j, struct feed *f, bool *ret_more, struct err *err) CHECK_RESULT;
/* The store may have items: the feed is compared with them, from its beginning. */
void job_compare(struct job *j, const struct msg_comparison *how);
int job_seal(struct job *j, struct err *err) CHECK_RESULT;
int job_query(struct job *j, struct msg_job_progress *ret, struct err *err) CHECK_RESULT;
int job_stop(struct job *j, struct err *err) CHECK_RESULT;
/* Ask the broker to end. */
int job_shutdown(struct job *j, struct err *err) CHECK_RESULT;
/* After a passing error: the session is of no use. */
void job_disconnect(struct job *j);

#endif
