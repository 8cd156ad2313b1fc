/* threads.h - settings that the OpenMP run-time reads before main() begins.
 *
 * Idle OpenMP threads must sleep, not spin: several daemons share the cores. libgomp reads OMP_WAIT_POLICY when it is
 * loaded, so a program that was started without it starts itself again once. Who may call: main, first thing after the
 * command line is known. Errors: none; if exec fails the program goes on, slower. */
#ifndef BLIPLINE_TENSOR_THREADS_H
#define BLIPLINE_TENSOR_THREADS_H

void tensor_threads_prepare(char **argv);

#endif
