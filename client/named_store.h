/* named_store.h - open the store that a command reads.
 *
 * Who may call: the commands, once each. Memory: the caller closes the reader (reader_close).
 * Errors: an exit code; the error has been printed on standard error. */
#ifndef BLIPLINE_CLIENT_NAMED_STORE_H
#define BLIPLINE_CLIENT_NAMED_STORE_H

#include "base/err.h"

struct reader;

/* Also installs the crash handler (console/crash_handler.h). CLI_EXIT_USAGE: there is no such store. */
int named_store_open(const char *command, const char *path, struct reader **ret) CHECK_RESULT;

#endif
