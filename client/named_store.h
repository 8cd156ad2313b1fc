/* named_store.h - open the store that a command reads: a path, or a job of a broker.
 *
 * With --broker the name is the number of a job. A number without it is one, too, unless there is something at that
 * path. Of a job everything is asked of the broker, as it is needed; if the connection is lost, it is made again.
 *
 * Who may call: the commands, once each. Memory: named_store_close, whatever named_store_open returned.
 * Errors: an exit code; the error has been printed on standard error. */
#ifndef BLIPLINE_CLIENT_NAMED_STORE_H
#define BLIPLINE_CLIENT_NAMED_STORE_H

#include "client/broker_client.h"
#include "store/reader.h"

#include <stdint.h>

struct named_store {
    const char *command, *broker_option;
    const char *name; /* the argument */
    char label[32];   /* "job 7" */
    uint64_t job;     /* 0: a path */
    struct broker_client broker;
    struct reader *reader;
};

/* For a path, also installs the crash handler (console/crash_handler.h). CLI_EXIT_USAGE: there is no such store.
 * `broker_option`: the value of --broker, or NULL. */
int named_store_open(const char *command, const char *broker_option, const char *name,
                     struct named_store *ret) CHECK_RESULT;
void named_store_close(struct named_store *s);
/* The path, or "job 7". */
const char *named_store_label(const struct named_store *s);
/* A command on the same store, to be pasted into a shell. Returns `ret`. */
char *named_store_hint(const struct named_store *s, const char *command, char *ret, size_t ret_size);
/* Print why the command failed. Returns the exit code. */
int named_store_fail(struct named_store *s, int rc, const struct err *err);

#endif
