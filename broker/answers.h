/* answers.h - short messages to peers: answers, refusals, WELCOME.
 *
 * Who may call: the loop's thread. Units: milliseconds. Memory: socket and peers are borrowed.
 * Errors: a message that cannot be sent is logged; the peer will ask again. */
#ifndef BLIPLINE_BROKER_ANSWERS_H
#define BLIPLINE_BROKER_ANSWERS_H

#include "base/err.h"
#include "broker/peers.h"
#include "proto/msg.h"
#include "wire/broker_socket.h"

#include <stdbool.h>
#include <stdint.h>

struct answers {
    struct broker_socket *socket;
    struct peers *peers;
    uint64_t epoch;
    uint32_t heartbeat_ms, lease_ms;
    bool takes_models;
    uint64_t n_refusals, n_bad_messages;
};

void answer_send(struct answers *a, uint64_t peer, const struct msg *m);
/* WELCOME: to a client, or to a worker that the core has accepted (seq 0). */
void answer_welcome(struct answers *a, uint64_t peer, uint64_t seq);
void answer_refuse(struct answers *a, uint64_t peer, uint64_t seq, enum msg_reason reason, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* The job's store was begun with `recipe`; the client knows how to say that it wants the same. */
void answer_refuse_recipe(struct answers *a, uint64_t peer, uint64_t seq, enum msg_reason reason,
                          const struct msg_recipe *recipe, const char *text);

#endif
