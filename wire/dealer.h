/* dealer.h - one connection to a broker: a DEALER that never connects twice, and its monitor.
 *
 * ZeroMQ's own reconnecting is off: after a loss the owner opens a new one and sends HELLO, so that messages of the
 * old connection can never arrive on the new one.
 * Who may call: wire/ alone, one thread. Memory: storage is the caller's. Errors: negative errno. */
#ifndef BLIPLINE_WIRE_DEALER_H
#define BLIPLINE_WIRE_DEALER_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct dealer {
    void *socket, *monitor;
};

int dealer_open(struct dealer *d, const char *endpoint, struct err *err) CHECK_RESULT;
/* Messages already sent have WIRE_LINGER_MS to leave, in the background. May be called on a closed or zeroed one. */
void dealer_close(struct dealer *d);
bool dealer_is_open(const struct dealer *d);
/* True when the connection has failed or is lost; it stays so. */
bool dealer_is_lost(struct dealer *d);

#endif
