/* threads.h - settings that the OpenMP run-time reads before main() begins.
 *
 * Several daemons share the cores, so idle OpenMP threads must sleep, but not at once: a decode step is dozens of
 * products of about 50 us, and waking a thread takes 25 us. libgomp reads its variables when it is loaded, so the
 * program sets them and executes itself again, once. If GOMP_SPINCOUNT is already set, nothing happens.
 * Who may call: main, right after it has parsed the command line.
 * Errors: none; if exec fails the program continues, slower. */
#ifndef BLIPLINE_TENSOR_THREADS_H
#define BLIPLINE_TENSOR_THREADS_H

void tensor_threads_prepare(char **argv);

#endif
