/* endpoint.h - the addresses that may be bound and connected to.
 * Who may call: wire/. Memory: returned pointers lie in the argument. Errors: negative errno, err with the cure. */
#ifndef BLIPLINE_WIRE_ENDPOINT_H
#define BLIPLINE_WIRE_ENDPOINT_H

#include "base/err.h"

/* The path of "ipc://PATH", NULL for other endpoints and for the abstract "ipc://@name". */
const char *wire_endpoint_ipc_path(const char *endpoint);
/* -EINVAL for what is no endpoint; -EPERM, -ENAMETOOLONG, -EADDRINUSE as broker_socket_open says. */
int wire_endpoint_check_bind(const char *endpoint, struct err *err) CHECK_RESULT;
/* -EPERM for tcp, as long as there are no keys. */
int wire_endpoint_check_connect(const char *endpoint, struct err *err) CHECK_RESULT;

#endif
