/* monitor.h - events of a socket's connections, on a second socket that can be polled.
 *
 * Who may call: only wire/, in the thread that owns the monitored socket. Memory: the monitor is a ZeroMQ PAIR socket.
 * Errors: negative errno. */
#ifndef BLIPLINE_WIRE_MONITOR_H
#define BLIPLINE_WIRE_MONITOR_H

#include "base/err.h"

#include <stdint.h>

/* `events`: ZMQ_EVENT_* bits. */
int wire_monitor_open(void *socket, int events, void **ret_monitor) CHECK_RESULT;
/* Call before the socket itself is closed. `monitor` may be NULL. */
void wire_monitor_close(void *socket, void *monitor);
/* 1 and an event (its value is the connection's descriptor for most events), or 0 if none is pending. */
int wire_monitor_next(void *monitor, int *ret_event, int32_t *ret_value) CHECK_RESULT;

#endif
