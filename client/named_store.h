/* named_store.h - the store that a command reads.
 *
 * Who may call: the commands, once each. Memory: the reader is the caller's (reader_close).
 * Errors: an exit code; what is wrong has been said on standard error. */
#ifndef BLIPLINE_CLIENT_NAMED_STORE_H
#define BLIPLINE_CLIENT_NAMED_STORE_H

#include "base/err.h"

struct reader;

/* CLI_EXIT_OK: it is open, and the crash handler is installed (console/crash_handler.h). CLI_EXIT_USAGE: there is no
 * store of that name. */
int named_store_open(const char *command, const char *path, struct reader **ret) CHECK_RESULT;

#endif
