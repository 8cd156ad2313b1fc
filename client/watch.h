/* watch.h - shows a job of a broker until it ends, and says how it has ended.
 *
 * It goes on when the broker is restarted.
 * Who may call: the main thread. Units: none. Memory: borrows the job and the broker.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_CLIENT_WATCH_H
#define BLIPLINE_CLIENT_WATCH_H

#include "client/broker_client.h"
#include "client/job_view.h"
#include "job/job.h"
#include "job/passed_over.h"

#include <stdbool.h>
#include <stdint.h>

struct watch {
    struct broker_client *broker;
    struct job *job; /* job_init has been called for it */
    struct job_view view;
    uint64_t number;            /* of the job */
    char label[32];             /* "job 7" */
    bool done, is_pushed;       /* is_pushed: its pictures came from the client; known if items have failed */
    char paused[MSG_TEXT_SIZE]; /* why; "": it is not paused */
};

/* The session of w->job is lost or the broker is busy: as broker_client_may_try_again. */
bool watch_may_try_again(struct watch *w, int rc, const struct err *err);
/* Open w->job, which says what is meant. */
int watch_open(struct watch *w, struct err *err) CHECK_RESULT;
void watch_set_number(struct watch *w, uint64_t number);
/* Show job w->number until it ends. 0: it is done or paused; -EINTR: a signal; others: it has failed or was cancelled,
 * or the broker refuses to show it. */
int watch_until_end(struct watch *w, struct err *err) CHECK_RESULT;
/* After 0 or -EINTR: print the report of `command`. Returns the exit code. */
int watch_conclude(const struct watch *w, const char *command, const struct passed_over *passed_over, bool json);

#endif
