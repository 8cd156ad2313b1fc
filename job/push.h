/* push.h - sends the pictures of a job to its broker, for workers that cannot see them.
 *
 * Who may call: one thread, as job.h. Units: bytes. Memory: at most some 64 MiB while it runs.
 * Errors: those of job.h. A picture that cannot be read is no error: the broker learns why. */
#ifndef BLIPLINE_JOB_PUSH_H
#define BLIPLINE_JOB_PUSH_H

#include "base/err.h"
#include "job/job.h"

#include <stdint.h>

struct push_progress {
    /* Of the job, as given. Without a list among them, only these files and those in these folders are sent, whatever
     * the broker asks for. */
    const char *const *sources;
    int n_sources;
    uint64_t n_items;            /* the broker has, or is being sent, the pictures of so many items */
    uint64_t n_bytes;            /* sent by this process */
    char waiting[MSG_TEXT_SIZE]; /* why the broker takes no more at the moment; "": it does, or does not say why */
    /* called after each picture, and every few seconds while the broker takes none; < 0 ends the sending */
    int (*tick)(const struct push_progress *p, struct err *err);
    void *arg;
};

/* Send what the broker does not have yet. The job is sealed. 0: the broker has all pictures on its disk. -EACCES: it
 * asks for a file that is none of the job's. */
int job_push(struct job *j, struct push_progress *p, struct err *err) CHECK_RESULT;

#endif
