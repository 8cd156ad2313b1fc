/* job.h - one job at one broker: open it, send its pictures, seal it, query its progress; also after a restart.
 *
 * Who may call: one thread, with SIGINT, SIGTERM and SIGHUP blocked (unblocked while it waits for an answer).
 * Units:  milliseconds. Memory: job_release closes the session.
 * Errors: negative errno and `err`. After -ECONNRESET, -ETIMEDOUT and -ESHUTDOWN (job_is_passing) the job can continue
 * once a broker answers. -EINTR: a signal. The others are refusals. */
#ifndef BLIPLINE_JOB_JOB_H
#define BLIPLINE_JOB_JOB_H

#include "base/buf.h"
#include "base/err.h"
#include "job/feed.h"
#include "proto/msg.h"
#include "wire/keys.h"

#include <stdbool.h>
#include <stdint.h>

/* For an answer: while rows and pictures are sent, and to queries. */
enum { JOB_PATIENCE_MS = 120000, JOB_QUERY_MS = 3000 };

struct client_session;

struct job {
    const char *endpoint;
    const struct wire_keys *keys;   /* for tcp; NULL: none */
    struct client_session *session; /* NULL: not connected */
    struct msg_job_open open;
    struct msg_job_opened opened;
    struct row_source *sources;           /* [known.n_rows] */
    struct origins_known known;           /* what the store has; valid until the next job_open */
    struct msg_job_accepted accepted;     /* once it is sealed */
    bool sealed;                          /* the manifest is complete and durable; a restarted broker needs no rows */
    const struct msg_comparison *compare; /* how to compare rows with the store; NULL: the store is new */
    bool walk_begun;                      /* rows to compare have been sent */
    struct msg_compared compared;         /* the broker's counts so far */
    struct buf rows;
};

/* endpoint and keys are borrowed. */
void job_init(struct job *j, const char *endpoint, const struct wire_keys *keys, const struct msg_job_open *open);
void job_release(struct job *j);
bool job_is_passing(int rc);

/* Connect, if need be, open the job, and ask which sources its store has. -ETIMEDOUT: nobody answers yet, call again.
 * *ret_recipe: NULL, or where the store was begun with another recipe or model, that recipe; valid until the next call.
 */
int job_open(struct job *j, int64_t timeout_ms, const struct msg_recipe **ret_recipe, struct err *err) CHECK_RESULT;
/* Send the feed's sources: before its rows, and again at the end, with the files passed over. */
int job_sources(struct job *j, const struct feed *f, struct err *err) CHECK_RESULT;
/* Send one frame of rows. *ret_more false: it was the last. */
int job_stream(struct job *j, struct feed *f, bool *ret_more, struct err *err) CHECK_RESULT;
/* Compare the feed, from its beginning, with the items of the store. */
void job_compare(struct job *j, const struct msg_comparison *how);
int job_seal(struct job *j, uint64_t disk_bytes, struct err *err) CHECK_RESULT;
int job_query(struct job *j, struct msg_job_progress *ret, struct err *err) CHECK_RESULT;
int job_stop(struct job *j, struct err *err) CHECK_RESULT;
/* Ask the broker to end. */
int job_shutdown(struct job *j, struct err *err) CHECK_RESULT;
/* Drop the session after a temporary error. */
void job_disconnect(struct job *j);

#endif
