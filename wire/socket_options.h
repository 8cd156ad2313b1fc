/* socket_options.h - options that the sockets of broker, workers and clients share.
 *
 * Options of ZeroMQ apply to endpoints that are bound or connected afterwards.
 * Who may call: only wire/, the thread that owns the socket. Errors: negative errno. */
#ifndef BLIPLINE_WIRE_SOCKET_OPTIONS_H
#define BLIPLINE_WIRE_SOCKET_OPTIONS_H

#include "wire/keys.h"

int socket_set_int(void *socket, int option, int value) CHECK_RESULT;
/* Limits of frames, queues and times. */
int socket_set_common(void *socket) CHECK_RESULT;
/* CURVE, with the check of keys by zap.c. */
int socket_set_server_keys(void *socket, const struct wire_keys *keys) CHECK_RESULT;
int socket_set_client_keys(void *socket, const struct wire_keys *keys) CHECK_RESULT;

#endif
