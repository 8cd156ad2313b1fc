/* interrupt.h - Ctrl-C, SIGTERM and the death of children as something to poll.
 *
 * Who may call: the main thread, before any other thread exists (the mask is inherited; children get an empty one).
 * Units: none.
 * Memory: one descriptor, the caller's to close.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_BASE_INTERRUPT_H
#define BLIPLINE_BASE_INTERRUPT_H

#include "base/err.h"

#include <stdbool.h>

struct interrupt {
    bool child;        /* some child changed its state */
    int signal_number; /* SIGINT, SIGTERM or SIGHUP; 0: none */
    int n_signals;     /* how many of these */
};

/* Block SIGINT, SIGTERM, SIGHUP and SIGCHLD and open a descriptor to read them from. SIGPIPE is ignored. */
int interrupt_open(int *ret_fd, struct err *err) CHECK_RESULT;
/* While they are let in, SIGINT, SIGTERM and SIGHUP end a blocking call with EINTR (the wire's sessions return -EINTR);
 * interrupt_read tells of them all the same. SIGCHLD stays blocked. */
void interrupt_let_in(bool yes);
/* All that have arrived; never blocks. */
void interrupt_read(int fd, struct interrupt *ret);

#endif
