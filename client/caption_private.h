/* caption_private.h - the state of a run, shared by caption.c, caption_import.c and dry_run.c. The contract is in
 * caption.h.
 *
 * Who may call: these files. Units: milliseconds of the monotonic clock. Memory: the run owns it.
 * Errors: negative errno; -EINTR: the user wants to stop. */
#ifndef BLIPLINE_CLIENT_CAPTION_PRIVATE_H
#define BLIPLINE_CLIENT_CAPTION_PRIVATE_H

#include "base/buf.h"
#include "base/err.h"
#include "client/caption.h"
#include "local/daemons.h"
#include "job/job.h"
#include "recipe/plan.h"
#include "client/progress.h"
#include "local/rundir.h"
#include "console/terminal.h"

struct run {
    const struct caption_options *o;
    struct terminal terminal;
    struct rundir rundir;
    struct daemons daemons;
    const char *columns[PLAN_MAX_FIELDS];
    struct feed *feed;
    struct job job;
    char endpoint[RUNDIR_MAX + 16];
    int signal_fd;
    int signal_number; /* not 0: the user wants to stop */
    int n_signals;
    bool stop_sent, job_begun, any_done;
    unsigned broker_starts;      /* of the broker that the session talks to */
    struct msg_job_progress now; /* last answer */
    struct progress progress;
    uint64_t n_before, n_redone_before; /* at the start: items done, records redone */
    int64_t start_ms, end_ms, line_ms, busy_until_ms;
    int64_t blocked_ms;       /* since when the disk has been full; 0: it is not */
    int64_t waited_ms;        /* how long it was full before */
    char told[MSG_TEXT_SIZE]; /* the last reason for waiting that was printed */
    struct buf advice;        /* the cure of an error of -o, with NUL, or empty */
    int error_exit;           /* the exit code if there is an error */
};

/* Handle signals, children and logs; wait up to wait_ms for the first two. */
int caption_pump(struct run *r, int64_t wait_ms, struct err *err) CHECK_RESULT;

/* caption_import.c: read the sources from their beginning. known NULL: the store is new. */
int caption_open_feed(struct run *r, const struct origins_known *known, struct err *err) CHECK_RESULT;
/* dry_run.c: show what the run would do. Reads the store, if there is one. */
int dry_run(struct run *r, struct err *err) CHECK_RESULT;
/* Open, import and seal the job, with new brokers if one dies. */
int caption_establish(struct run *r, struct err *err) CHECK_RESULT;
/* The same with one broker. `again`: an earlier broker had the job. */
int caption_establish_once(struct run *r, bool again, struct err *err) CHECK_RESULT;

#endif
