/* stop.h - SIGTERM and SIGINT as a flag for the main loop and as a descriptor to poll.
 *
 * A separate thread receives all signals, so that none interrupts the code of a daemon: some libraries point the stack
 * register at heap memory while they compute, and a signal handler would write its frame there.
 * The first SIGTERM or SIGINT requests an orderly stop; the second ends the process at once (exit code 128 + signal).
 * SIGPIPE is ignored.
 * Who may call: stop_init once, in main, before other threads start (they inherit its mask); the others any time.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_BASE_STOP_H
#define BLIPLINE_BASE_STOP_H

#include "base/err.h"

#include <stdbool.h>

int stop_init(struct err *err) CHECK_RESULT;
/* The same, and SIGHUP asks to read the configuration's files again instead of ending the process. */
int stop_init_reload(struct err *err) CHECK_RESULT;
bool stop_requested(void);
/* Becomes readable with the first request and stays so; do not read from it. */
int stop_fd(void);
/* After stop_init_reload: readable while a SIGHUP waits; true once for each of them (several may count as one). */
int stop_reload_fd(void);
bool stop_take_reload(void);

/* Block all signals in the calling thread except SIGABRT and those that a fault raises (SIGSEGV, SIGBUS, ...). */
void stop_block_signals(void);

#endif
