/* stop.h - SIGTERM and SIGINT as a flag that a main loop looks at.
 *
 * The first signal asks for an orderly end, the second one ends the process at once (exit code 128 + signal).
 * Who may call: stop_init once, in main, before threads start; stop_requested from any thread. Errors: none.
 * Blocking calls of the thread that gets the signal return early with EINTR. SIGPIPE is ignored. */
#ifndef BLIPLINE_BASE_STOP_H
#define BLIPLINE_BASE_STOP_H

#include <stdbool.h>

void stop_init(void);
bool stop_requested(void);

#endif
