/* submit.h - one run of `blipline submit`: it gives a job to a broker that runs elsewhere, and may wait for its end.
 *
 * Who may call: cmd_submit, once. Units: as in the names. Memory: nothing is kept.
 * Errors: returns the exit code; errors have been printed on standard error. */
#ifndef BLIPLINE_CLIENT_SUBMIT_H
#define BLIPLINE_CLIENT_SUBMIT_H

#include "client/job_options.h"

#include <stdbool.h>
#include <stdint.h>

struct submit_options {
    struct job_options job;
    const char *broker; /* as in job/broker_conf.h; may be NULL */
    const char *name;   /* NULL: the last part of the first source's path */
    uint32_t priority;  /* 0: 100 */
    bool push;          /* send the pictures, too */
    bool wait, json;
};

int submit_run(const struct submit_options *o);
/* submit_dry_run.c: --dry-run */
int submit_dry_run(const struct submit_options *o);

#endif
