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
#include "client/import.h"
#include "client/job_view.h"
#include "local/rundir.h"
#include "console/terminal.h"

struct run {
    const struct caption_options *o;
    struct terminal terminal;
    struct rundir rundir;
    struct daemons daemons;
    struct job job;
    struct import import;
    struct job_view view; /* of import.begun */
    char endpoint[RUNDIR_MAX + 16];
    int signal_fd;
    int signal_number; /* not 0: the user wants to stop */
    int n_signals;
    bool stop_sent;
    unsigned broker_starts; /* of the broker that the session talks to */
    int64_t end_ms, busy_until_ms;
    struct buf advice; /* the cure of an error of -o, with NUL, or empty */
};

/* Handle signals, children and logs; wait up to wait_ms for the first two. */
int caption_pump(struct run *r, int64_t wait_ms, struct err *err) CHECK_RESULT;

/* dry_run.c: show what the run would do. Reads the store, if there is one. */
int dry_run(struct run *r, struct err *err) CHECK_RESULT;
/* caption_import.c: prepare r->import. */
void caption_import_init(struct run *r);
/* Open, import and seal the job, with new brokers if one dies. */
int caption_establish(struct run *r, struct err *err) CHECK_RESULT;
/* The same with one broker. */
int caption_establish_once(struct run *r, struct err *err) CHECK_RESULT;

#endif
