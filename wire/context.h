/* context.h - the only ZeroMQ context of the process, and allocator settings for large frames.
 *
 * Who may call: main, once before any other call of wire/ and before threads that use it; wire_exit after all sessions
 * and sockets are closed (it waits for messages that are still being sent, at most WIRE_LINGER_MS). Never call
 * wire_init again after it. Memory: a static. Errors: negative errno. */
#ifndef BLIPLINE_WIRE_CONTEXT_H
#define BLIPLINE_WIRE_CONTEXT_H

#include "base/err.h"

enum { WIRE_LINGER_MS = 2000 }; /* how long a closing socket may still send */

/* Workers and clients need one I/O thread; a broker that relays tensors needs two. A second call does nothing. */
int wire_init(int n_io_threads, struct err *err) CHECK_RESULT;
void wire_exit(void);
/* For wire/ itself and its tests: NULL before wire_init. */
void *wire_context(void);

#endif
