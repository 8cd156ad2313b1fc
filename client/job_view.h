/* job_view.h - shows the progress of a job on the terminal, and counts what this run has done of it.
 *
 * Who may call: one thread. Units: milliseconds of the monotonic clock, items. Memory: plain values. Errors: none. */
#ifndef BLIPLINE_CLIENT_JOB_VIEW_H
#define BLIPLINE_CLIENT_JOB_VIEW_H

#include "client/progress.h"
#include "client/report.h"
#include "console/terminal.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>

struct job_view {
    struct terminal *terminal;
    struct msg_job_progress now; /* the broker's last answer */
    struct progress progress;
    bool any_done;
    uint64_t n_before, n_redone_before; /* at the start: items done, records redone */
    int64_t start_ms, line_ms;
    int64_t blocked_ms;       /* since when the disk has been full; 0: it is not */
    int64_t waited_ms;        /* how long it was full before */
    char told[MSG_TEXT_SIZE]; /* the last reason for waiting that was printed */
};

/* The job is open. Returns how many items were done before. */
uint64_t job_view_begin(struct job_view *v, struct terminal *terminal, const struct msg_job_opened *opened);
/* Call before a series of job_view_show. */
void job_view_watch(struct job_view *v);
/* Show v->now. */
void job_view_show(struct job_view *v);
/* Fill in the counts and times of a report. */
void job_view_report(const struct job_view *v, int64_t end_ms, struct report *ret);

#endif
