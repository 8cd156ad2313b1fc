/* device_probe.h - checks whether the workers can start, before a store or a daemon exists.
 *
 * Runs workers with -n, which opens device and checkpoint and reports errors. On the CPU this takes about 50 ms for
 * each worker. On a GPU, where CUDA takes seconds to start, only the worker with the largest demand is run.
 * Who may call: the main thread, before it has threads or children. Units: none. Memory: nothing is kept.
 * Errors: -ENODEV, and err has the worker's message; -EINTR, and *ret_signal the signal, if the user stopped it; others
 * if the worker could not be run. */
#ifndef BLIPLINE_LOCAL_DEVICE_PROBE_H
#define BLIPLINE_LOCAL_DEVICE_PROBE_H

#include "local/place.h"

/* Nothing to do for device null. */
int device_probe(const struct placement *p, int *ret_signal, struct err *err) CHECK_RESULT;

#endif
