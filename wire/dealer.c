#include "wire/dealer.h"

#include <errno.h>
#include <stddef.h>
#include <zmq.h>

#include "wire/context.h"
#include "wire/endpoint.h"
#include "wire/monitor.h"
#include "wire/socket_options.h"

static int set_options(void *socket)
{
    int rc = socket_set_common(socket);

    if (rc < 0 || (rc = socket_set_int(socket, ZMQ_IMMEDIATE, 1)) < 0 ||
        (rc = socket_set_int(socket, ZMQ_RECONNECT_IVL, -1)) < 0)
        return rc;
    return socket_set_int(socket, ZMQ_CONNECT_TIMEOUT, 5000);
}

int dealer_open(struct dealer *d, const char *endpoint, const struct wire_keys *keys, struct err *err)
{
    const int events = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    int rc;

    *d = (struct dealer){.curve = keys->curve && wire_endpoint_is_tcp(endpoint)};
    if (!wire_context())
        return err_set(err, -EINVAL, "wire_init was not called");
    d->socket = zmq_socket(wire_context(), ZMQ_DEALER);
    if (!d->socket)
        return err_set(err, -errno, "ZeroMQ: %s", zmq_strerror(errno));
    rc = set_options(d->socket);
    if (rc == 0 && d->curve)
        rc = socket_set_client_keys(d->socket, keys);
    if (rc == 0)
        rc = wire_monitor_open(d->socket, events, &d->monitor);
    if (rc == 0 && zmq_connect(d->socket, endpoint) < 0)
        rc = -errno;
    if (rc < 0) {
        dealer_close(d);
        return err_set(err, rc, "cannot connect to %s: %s", endpoint, zmq_strerror(-rc));
    }
    return 0;
}

void dealer_close(struct dealer *d)
{
    if (!d->socket)
        return;
    wire_monitor_close(d->socket, d->monitor);
    (void)zmq_close(d->socket);
    d->socket = d->monitor = NULL;
}

bool dealer_is_open(const struct dealer *d)
{
    return d->socket != NULL;
}

bool dealer_is_lost(struct dealer *d)
{
    int32_t value;
    int event;

    if (wire_monitor_next(d->monitor, &event, &value) != 1)
        return false;
    d->refused |= event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    d->failed |= event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL || event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
    return true; /* every event of this monitor is a loss */
}

const char *dealer_key_error(const struct dealer *d)
{
    if (d->refused)
        return "the broker does not accept this key: its .pub file must be in the broker's allow-list";
    if (d->failed && d->curve)
        return "the handshake failed: server_key_file must be the public key of this broker, and the broker must use "
               "keys";
    if (d->failed)
        return "the handshake failed: the broker may require keys (secret_key_file and server_key_file)";
    return NULL;
}
