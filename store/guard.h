/* guard.h - runs a call so that a damaged data.mdb ends the call and not the process.
 *
 * LMDB trusts its file. A damaged page may fail an assertion, which would end the process. If the file was truncated or
 * the disk cannot be read, touching the map raises SIGBUS. A guarded call jumps out of both. LMDB's work then stays
 * unfinished and its locks taken, so the environment must not be used or closed again (store.h, store_guard).
 *
 * Who may call: one thread of the process; calls do not nest. Memory: what the call has allocated is lost after a jump.
 * Errors: -EIO after a jump. */
#ifndef BLIPLINE_STORE_GUARD_H
#define BLIPLINE_STORE_GUARD_H

#include "base/err.h"

#include <stdbool.h>

/* Returns the result of `call`. -EIO with *ret_jumped true: the call was left by a jump, and err says why. */
int guard_run(const char *path, int (*call)(void *arg), void *arg, bool *ret_jumped, struct err *err) CHECK_RESULT;
/* Called when LMDB's assertion `what` fails for the store at `path`; does not return within guard_run. */
void guard_assertion_failed(const char *path, const char *what);

#endif
