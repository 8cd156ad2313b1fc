/* zap.h - decides which public keys may connect: ZeroMQ's authentication protocol (rfc.zeromq.org/spec/27).
 *
 * ZeroMQ asks over inproc://zeromq.zap.01 in the handshake of every CURVE connection. A separate thread answers from
 * the allow-list, so that a busy broker does not delay handshakes. Connections of ipc do not ask.
 *
 * Who may call: the thread that owns the broker's socket. One zap per process. Memory: zap_stop frees all.
 * Errors: negative errno. */
#ifndef BLIPLINE_WIRE_ZAP_H
#define BLIPLINE_WIRE_ZAP_H

#include "wire/allowed.h"

#include <stdint.h>

#define ZAP_DOMAIN "blipline"

struct zap;

/* Takes `allowed`, also on failure. Call it after wire_init and before the CURVE endpoint is bound. */
int zap_start(struct allowed *allowed, struct zap **ret, struct err *err) CHECK_RESULT;
/* Before wire_exit. Sets *z to NULL; it may be NULL. */
void zap_stop(struct zap **z);
/* Answer from another list from now on; takes it. */
void zap_replace(struct zap *z, struct allowed *allowed);

struct zap_counters {
    uint64_t accepted, denied;
};
struct zap_counters zap_counters(const struct zap *z);

/* A handshake that was denied. If many are denied faster than they are read, only the first 64 are kept. */
struct zap_denial {
    char address[64], key[KEY_TEXT_SIZE];
};
/* False: no more. */
bool zap_next_denial(struct zap *z, struct zap_denial *ret);

#endif
