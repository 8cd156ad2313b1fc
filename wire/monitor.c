#include "wire/monitor.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "wire/context.h"

int wire_monitor_open(void *socket, int events, void **ret_monitor)
{
    static atomic_uint n_monitors;
    char name[64];
    void *monitor;
    int zero = 0, rc;

    (void)snprintf(name, sizeof(name), "inproc://wire-monitor-%u", atomic_fetch_add(&n_monitors, 1));
    if (zmq_socket_monitor(socket, name, events) < 0)
        return -errno;
    monitor = zmq_socket(wire_context(), ZMQ_PAIR);
    if (!monitor) {
        rc = -errno;
        goto fail;
    }
    (void)zmq_setsockopt(monitor, ZMQ_LINGER, &zero, sizeof(zero));
    (void)zmq_setsockopt(monitor, ZMQ_RCVHWM, &zero,
                         sizeof(zero)); /* no limit: a lost event would be a disconnection that is never noticed */
    if (zmq_connect(monitor, name) == 0) {
        *ret_monitor = monitor;
        return 0;
    }
    rc = -errno;
    (void)zmq_close(monitor);
fail:
    (void)zmq_socket_monitor(socket, NULL, 0);
    return rc;
}

void wire_monitor_close(void *socket, void *monitor)
{
    if (!monitor)
        return;
    (void)zmq_socket_monitor(socket, NULL, 0);
    (void)zmq_close(monitor);
}

int wire_monitor_next(void *monitor, int *ret_event, int32_t *ret_value)
{
    uint8_t event[6]; /* u16 event, u32 value in native byte order; a second frame has the endpoint */
    uint16_t number;
    int n, rest;
    char endpoint[1];

    do
        n = zmq_recv(monitor, event, sizeof(event), ZMQ_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return 0;
    do
        rest = zmq_recv(monitor, endpoint, sizeof(endpoint), ZMQ_DONTWAIT);
    while (rest < 0 && errno == EINTR);
    if (n != (int)sizeof(event))
        return 0;
    memcpy(&number, event, sizeof(number));
    memcpy(ret_value, event + 2, sizeof(*ret_value));
    *ret_event = number;
    return 1;
}
