/* interrupt.h - a descriptor to poll for Ctrl-C, SIGTERM and the end of child processes.
 *
 * Who may call: the main thread. interrupt_open comes before other threads start, which inherit the signal mask.
 * Units: none.
 * Memory: the caller closes the descriptor.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_BASE_INTERRUPT_H
#define BLIPLINE_BASE_INTERRUPT_H

#include "base/err.h"

#include <stdbool.h>

struct interrupt {
    bool child;        /* a child process changed its state */
    int signal_number; /* SIGINT, SIGTERM or SIGHUP; 0: none */
    int n_signals;     /* how many of these arrived */
};

/* Block SIGINT, SIGTERM, SIGHUP and SIGCHLD and open a descriptor to read them from. SIGPIPE is ignored. */
int interrupt_open(int *ret_fd, struct err *err) CHECK_RESULT;
/* Unblock (`yes`) or block SIGINT, SIGTERM and SIGHUP. While unblocked they end a blocking call with EINTR (wire
 * sessions return -EINTR); interrupt_read reports them in either case. SIGCHLD stays blocked. */
void interrupt_let_in(bool yes);
/* Report the signals that have arrived; never blocks. */
void interrupt_read(int fd, struct interrupt *ret);

#endif
