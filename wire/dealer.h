/* dealer.h - one connection to a broker: a DEALER that never connects twice, and its monitor.
 *
 * ZeroMQ's own reconnecting is off: after a loss the owner opens a new one and sends HELLO, so that messages of the
 * old connection can never arrive on the new one.
 * Who may call: wire/ alone, one thread. Memory: storage is the caller's. Errors: negative errno. */
#ifndef BLIPLINE_WIRE_DEALER_H
#define BLIPLINE_WIRE_DEALER_H

#include "base/err.h"
#include "wire/keys.h"

#include <stdbool.h>
#include <stdint.h>

struct dealer {
    void *socket, *monitor;
    bool curve;   /* the connection uses keys */
    bool refused; /* by the broker's allow-list */
    bool failed;  /* in the handshake */
};

/* `keys` are used for tcp endpoints. */
int dealer_open(struct dealer *d, const char *endpoint, const struct wire_keys *keys, struct err *err) CHECK_RESULT;
/* Messages already sent have WIRE_LINGER_MS to leave, in the background. May be called on a closed or zeroed one. */
void dealer_close(struct dealer *d);
bool dealer_is_open(const struct dealer *d);
/* True once, when the connection has failed or is lost. */
bool dealer_is_lost(struct dealer *d);
/* Then: why, if the handshake failed because of the keys; NULL: for another reason. */
const char *dealer_key_error(const struct dealer *d);

#endif
