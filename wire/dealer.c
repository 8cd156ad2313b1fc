#include "wire/dealer.h"

#include <errno.h>
#include <stddef.h>
#include <zmq.h>

#include "wire/context.h"
#include "wire/monitor.h"

enum { HWM = 16, MAX_FRAME_BYTES = 16 << 20 };

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* No ZMTP heartbeats: see set_options in broker_socket.c; answering one of ours can crash the broker, too. */
static int set_options(void *socket)
{
    int64_t max_frame = MAX_FRAME_BYTES;
    int rc;

    if ((rc = set_int(socket, ZMQ_SNDHWM, HWM)) < 0 || (rc = set_int(socket, ZMQ_RCVHWM, HWM)) < 0 ||
        (rc = set_int(socket, ZMQ_LINGER, WIRE_LINGER_MS)) < 0 || (rc = set_int(socket, ZMQ_IMMEDIATE, 1)) < 0 ||
        (rc = set_int(socket, ZMQ_RECONNECT_IVL, -1)) < 0 || (rc = set_int(socket, ZMQ_CONNECT_TIMEOUT, 5000)) < 0 ||
        (rc = set_int(socket, ZMQ_HANDSHAKE_IVL, 5000)) < 0 || (rc = set_int(socket, ZMQ_IPV6, 1)) < 0)
        return rc;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_frame, sizeof(max_frame)) < 0 ? -errno : 0;
}

int dealer_open(struct dealer *d, const char *endpoint, struct err *err)
{
    const int events = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    int rc;

    *d = (struct dealer){NULL, NULL};
    if (!wire_context())
        return err_set(err, -EINVAL, "wire_init was not called");
    d->socket = zmq_socket(wire_context(), ZMQ_DEALER);
    if (!d->socket)
        return err_set(err, -errno, "ZeroMQ: %s", zmq_strerror(errno));
    rc = set_options(d->socket);
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
    *d = (struct dealer){NULL, NULL};
}

bool dealer_is_open(const struct dealer *d)
{
    return d->socket != NULL;
}

bool dealer_is_lost(struct dealer *d)
{
    int32_t value;
    int event;

    return wire_monitor_next(d->monitor, &event, &value) == 1; /* every event asked for is a loss */
}
