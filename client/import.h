/* import.h - sends the pictures of a job that is open at a broker, and seals it; after a cut once more.
 *
 * Who may call: one thread. Units: items. Memory: import_release closes the feed.
 * Errors: negative errno and `err`; error_exit is then the program's exit code. */
#ifndef BLIPLINE_CLIENT_IMPORT_H
#define BLIPLINE_CLIENT_IMPORT_H

#include "base/err.h"
#include "client/job_options.h"
#include "console/terminal.h"
#include "job/feed.h"
#include "job/job.h"

#include <stdbool.h>

struct import {
    const struct job_options *o;
    const char *store;                /* of this machine; what lies in it is passed over. NULL: the broker's */
    const struct msg_comparison *how; /* what is done again where the store has items */
    struct job *job;
    struct terminal *terminal;
    void (*begin)(void *arg);                /* the broker has the job; called once, before the first picture */
    int (*tick)(void *arg, struct err *err); /* called after each frame; a negative value ends the import */
    void *arg;                               /* of both */
    const char *columns[PLAN_MAX_FIELDS];
    struct feed *feed; /* NULL: not open yet */
    bool begun;        /* `begin` has been called */
    int error_exit;
};

/* Read the sources from their beginning. known NULL: the store is new. */
int import_open_feed(struct import *i, const struct origins_known *known, struct err *err) CHECK_RESULT;
/* Call after each successful job_open. Without a feed it opens one. After a cut it keeps what is durable and finds the
 * rest by another walk. */
int import_send(struct import *i, struct err *err) CHECK_RESULT;
/* What the pictures walked so far will take in the store: manifest and results, not the pictures. */
uint64_t import_disk_bytes(const struct import *i);
void import_release(struct import *i);

#endif
