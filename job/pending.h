/* pending.h - submissions that the broker has not accepted yet.
 *
 * A submission has a random token, by which the broker recognises it. Until the broker has accepted it, the token lies
 * in ~/.local/state/blipline/submissions/HASH; HASH is of what identifies the submission. A process that is started
 * again after a cut finds the token there and goes on with the same job. The file is locked by the process that works
 * on the submission. Others with the same submission wait for it and get its job.
 * Who may call: one thread. Units: none. Memory: pending_close.
 * Errors: negative errno, err names the file; or what `wait` returned. */
#ifndef BLIPLINE_JOB_PENDING_H
#define BLIPLINE_JOB_PENDING_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"

#include <limits.h>
#include <stdbool.h>

struct pending {
    int fd; /* -1: there is no file */
    char path[PATH_MAX];
    uint8_t token[MSG_TOKEN_BYTES];
    bool resumed; /* the token was there */
    uint64_t job; /* not 0: another process had the submission accepted, as this job */
};

/* identity NULL: the submission cannot be repeated, so its token is kept in memory only. `wait` is called while
 * another process has the submission: it pauses, and a negative value ends the wait. */
int pending_open(struct pending *p, const struct buf *identity, int (*wait)(void *arg), void *arg,
                 struct err *err) CHECK_RESULT;
/* The broker has accepted the submission: tell this to processes that wait, and remove the file. */
int pending_accepted(struct pending *p, uint64_t job, struct err *err) CHECK_RESULT;
/* Nothing was sent to the broker: remove the file of a new submission. */
void pending_drop(struct pending *p);
/* Leaves the file of a submission that was not accepted. */
void pending_close(struct pending *p);

#endif
