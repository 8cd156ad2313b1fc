/* stop.h - SIGTERM and SIGINT as a flag that a main loop looks at, and as a descriptor to poll.
 *
 * No signal ever interrupts the code of a daemon: a thread of its own takes them all. Some libraries keep their stack
 * pointer in the heap while they compute, and a handler's frame would be written there. The first SIGTERM or SIGINT
 * asks for an orderly end, the second one ends the process at once (exit code 128 + signal). SIGPIPE is ignored. Who
 * may call: stop_init once, in main, before other threads start (they have its mask); the others from any thread.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_BASE_STOP_H
#define BLIPLINE_BASE_STOP_H

#include "base/err.h"

#include <stdbool.h>

int stop_init(struct err *err) CHECK_RESULT;
bool stop_requested(void);
/* Readable from the first request on, for ever; nobody reads it. */
int stop_fd(void);

/* Block every signal in the calling thread but those by which the processor tells of a fault, and SIGABRT. */
void stop_block_signals(void);

#endif
