/* endpoint.h - the addresses that may be bound and connected to.
 * Who may call: wire/ and job/. Memory: returned pointers lie in the argument.
 * Errors: negative errno, err with the cure. */
#ifndef BLIPLINE_WIRE_ENDPOINT_H
#define BLIPLINE_WIRE_ENDPOINT_H

#include "base/err.h"
#include "wire/keys.h"

#include <stdbool.h>

/* The path of "ipc://PATH", NULL for other endpoints and for the abstract "ipc://@name". */
const char *wire_endpoint_ipc_path(const char *endpoint);
bool wire_endpoint_is_tcp(const char *endpoint);
/* -EINVAL for what is no endpoint, -EPERM for tcp without keys (on a loopback address: without keys and without
 * keys->insecure), -ENAMETOOLONG for a long ipc path; when bound also -EADDRINUSE for the socket of a live broker. */
int wire_endpoint_check_bind(const char *endpoint, const struct wire_keys *keys, struct err *err) CHECK_RESULT;
int wire_endpoint_check_connect(const char *endpoint, const struct wire_keys *keys, struct err *err) CHECK_RESULT;

#endif
