/* gate.h - who may connect to a broker, and as whom: its keys, its allow-list and the check of handshakes.
 *
 * Who may call: wire/broker_socket.c. Memory: a zeroed gate is closed; gate_release frees it.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_WIRE_GATE_H
#define BLIPLINE_WIRE_GATE_H

#include "wire/allowed.h"
#include "wire/listen.h"
#include "wire/peer_table.h"
#include "wire/zap.h"

struct gate {
    struct wire_keys keys;
    bool plain;                     /* some endpoint needs no keys */
    char *authorized;               /* the folder of the allow-list; NULL: no endpoint uses keys */
    void (*warn)(const char *text); /* told of files in it that cannot be used */
    struct allowed *allowed;        /* what it had when it was read last; the zap has a copy */
    struct zap *zap;
};

/* Call before the endpoints are bound. */
int gate_open(struct gate *g, const struct wire_keys *keys, const struct listening *l, const char *authorized,
              void (*warn)(const char *text), struct err *err) CHECK_RESULT;
void gate_release(struct gate *g);
/* Read the allow-list again. After an error the old one stays in force. */
int gate_reload(struct gate *g, struct err *err) CHECK_RESULT;

/* Fill in role and name of a new peer from the connection it came on. False: its key is not allowed (it has been
 * removed since the handshake), or it came without a key and no endpoint allows that. */
bool gate_identify(const struct gate *g, struct peer *p);
/* True if the peer came without a key, or its key is in the allow-list. */
bool gate_allows(const struct gate *g, const struct peer *p);

#endif
