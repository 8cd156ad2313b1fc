/* dealer.h - one connection to a broker: a DEALER that never connects twice, and its monitor.
 *
 * ZeroMQ's own reconnecting is off: after a loss the owner makes a new one and says HELLO on it, so that nothing of the
 * old connection can arrive on the new.
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
/* What was sent has WIRE_LINGER_MS to leave, in the background. Fine on a closed or zeroed one. */
void dealer_close(struct dealer *d);
bool dealer_is_open(const struct dealer *d);
/* True when the connection has failed or is lost; it stays so. */
bool dealer_is_lost(struct dealer *d);

#endif
