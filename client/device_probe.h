/* device_probe.h - can the cards that were asked for be used? Asked before any work.
 *
 * The client knows nothing of CUDA: a worker with -n opens its card and says what is wrong with driver, card or
 * operators. Takes the time that CUDA needs to start, once a card.
 * Who may call: the main thread, before it has threads or children. Units: none. Memory: nothing is kept.
 * Errors: -ENODEV and err in the worker's words; -EINTR with *ret_signal when the user stopped it; others: it could not
 * be asked. */
#ifndef BLIPLINE_CLIENT_DEVICE_PROBE_H
#define BLIPLINE_CLIENT_DEVICE_PROBE_H

#include "client/place.h"

/* Nothing to do where there are no cards. */
int device_probe(const struct placement *p, int *ret_signal, struct err *err) CHECK_RESULT;

#endif
