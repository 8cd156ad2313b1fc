/* device_probe.h - checks whether the workers could start, before any work and before there is a store or a daemon.
 *
 * Only a worker knows what it needs: with -n it opens its device and its checkpoint, and reports what is wrong. On the
 * CPU every worker is asked, which takes some 50 ms each. On a GPU only the worker with the largest demand is asked,
 * because CUDA takes seconds to start.
 * Who may call: the main thread, before it has threads or children. Units: none. Memory: nothing is kept.
 * Errors: -ENODEV and err in the worker's words; -EINTR with *ret_signal when the user stopped it; others: it could not
 * be asked. */
#ifndef BLIPLINE_LOCAL_DEVICE_PROBE_H
#define BLIPLINE_LOCAL_DEVICE_PROBE_H

#include "local/place.h"

/* Nothing to do for device null. */
int device_probe(const struct placement *p, int *ret_signal, struct err *err) CHECK_RESULT;

#endif
