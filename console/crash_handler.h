/* crash_handler.h - a store whose pages are damaged can crash the library that reads it: say what happened instead of dying silently.
 *
 * LMDB trusts the pages it maps. Checksums find a changed value, not a changed page number.
 * Who may call: commands that only read a store, before they open it; once a process. Units: none. Memory: `store` is borrowed for
 * the life of the process. Errors: none. Under address and thread sanitizers nothing is done: they tell more. */
#ifndef BLIPLINE_CONSOLE_CRASH_HANDLER_H
#define BLIPLINE_CONSOLE_CRASH_HANDLER_H

/* From now on SIGSEGV, SIGBUS and SIGFPE end the process with a message that names command and store, a core dump where
 * the system makes them, and CLI_EXIT_ERROR. SIGABRT is not among them: an assertion that fails is a bug of ours. (LMDB's
 * own end in SIGSEGV, store/env.c.) */
void crash_handler_install(const char *command, const char *store);

#endif
