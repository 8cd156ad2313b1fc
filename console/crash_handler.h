/* crash_handler.h - reading a store with damaged pages can crash LMDB: the crash handler says what happened.
 *
 * LMDB trusts the pages it maps. Checksums find a changed value, not a changed page number.
 * Who may call: commands that only read a store, before they open it; once a process. Units: none.
 * Memory: `store` is borrowed for the life of the process. Errors: none. It does nothing under the address and thread
 * sanitizers, whose own reports say more. */
#ifndef BLIPLINE_CONSOLE_CRASH_HANDLER_H
#define BLIPLINE_CONSOLE_CRASH_HANDLER_H

/* From now on SIGSEGV, SIGBUS and SIGFPE end the process with a message that names command and store, with a core dump
 * where the system makes them, and with CLI_EXIT_ERROR. SIGABRT does not: an assertion that fails is a bug of ours.
 * (Assertions of LMDB end in SIGSEGV, see store/map.c.) */
void crash_handler_install(const char *command, const char *store);

#endif
