/* crash_handler.h - explains crashes of LMDB on a store with damaged pages.
 *
 * LMDB trusts the pages it maps, and checksums of values do not protect page numbers.
 * Who may call: commands that only read a store, once, before they open it. Units: none.
 * Memory: `store` is borrowed for the life of the process. Errors: none. Does nothing under the address and thread
 * sanitizers, which report more. */
#ifndef BLIPLINE_CONSOLE_CRASH_HANDLER_H
#define BLIPLINE_CONSOLE_CRASH_HANDLER_H

/* From now on SIGSEGV, SIGBUS and SIGFPE end the process with CLI_EXIT_ERROR, a message that names command and store,
 * and a core dump if the system makes them. SIGABRT, from a failed assertion, is not handled. (Assertions of LMDB raise
 * SIGSEGV, see store/map.c.) */
void crash_handler_install(const char *command, const char *store);

#endif
