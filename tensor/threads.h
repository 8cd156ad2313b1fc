/* threads.h - settings that the OpenMP run-time reads before main() begins.
 *
 * Idle OpenMP threads must soon sleep, since several daemons share the cores; but not at once, since a decode step is
 * dozens of products of some 50 us each and waking a thread costs 25. libgomp reads its variables when it is loaded, so
 * a program that was started without them sets them and starts itself again, once; whoever sets GOMP_SPINCOUNT decides
 * himself.
 * Who may call: main, first thing after the command line is known.
 * Errors: none; if exec fails the program goes on, slower. */
#ifndef BLIPLINE_TENSOR_THREADS_H
#define BLIPLINE_TENSOR_THREADS_H

void tensor_threads_prepare(char **argv);

#endif
