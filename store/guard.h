/* guard.h - a call that stops where data.mdb turns out to be unreadable, so that the process goes on.
 *
 * LMDB trusts its file. Where a page is damaged in a way that it notices, it fails an assertion, which would end the
 * process; where the file has become shorter or its disk cannot be read, touching the map raises SIGBUS. A guarded call
 * jumps out of either. What LMDB was doing then stays undone and its locks stay taken, so the environment is never used
 * or closed again (store.h, store_guard).
 *
 * Who may call: one thread of the process; calls do not nest. Memory: what the call has allocated is lost after a jump.
 * Errors: -EIO after a jump. */
#ifndef BLIPLINE_STORE_GUARD_H
#define BLIPLINE_STORE_GUARD_H

#include "base/err.h"

#include <stdbool.h>

/* Returns what `call` returns. -EIO: it was left by a jump, *ret_jumped is true, and err says why. */
int guard_run(const char *path, int (*call)(void *arg), void *arg, bool *ret_jumped, struct err *err) CHECK_RESULT;
/* LMDB's assertion `what` about the store at `path` has failed: does not return within guard_run. */
void guard_assertion_failed(const char *path, const char *what);

#endif
