/* listen.h - bind the endpoints of a broker: ipc without keys, tcp with CURVE, all on one ROUTER.
 *
 * Who may call: wire/broker_socket.c. Memory: storage is the caller's. Errors: negative errno, err with the cure. */
#ifndef BLIPLINE_WIRE_LISTEN_H
#define BLIPLINE_WIRE_LISTEN_H

#include "wire/keys.h"

enum { LISTEN_MAX_ENDPOINTS = 8, LISTEN_TEXT_SIZE = 256 };

struct listening {
    int n;
    char endpoints[LISTEN_MAX_ENDPOINTS][LISTEN_TEXT_SIZE]; /* as bound: a wildcard port is a number here */
    char text[LISTEN_TEXT_SIZE * LISTEN_MAX_ENDPOINTS];     /* all of them, with ", " between */
    bool plain, curve;                                      /* some endpoint is without keys, with keys */
};

/* Split `endpoints` (separated by blanks or commas) and check each of them. */
int listen_parse(const char *endpoints, const struct wire_keys *keys, struct listening *ret,
                 struct err *err) CHECK_RESULT;
/* Bind what was parsed, ipc sockets with mode 0600. */
int listen_bind(void *socket, const struct wire_keys *keys, struct listening *l, struct err *err) CHECK_RESULT;
/* Remove the paths of ipc endpoints, which ZeroMQ leaves behind. */
void listen_unlink(const struct listening *l);

#endif
