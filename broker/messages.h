/* messages.h - turn messages from peers into events of the core or calls for jobs. No message can end the broker.
 *
 * Who may call: server.c. Units, Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_MESSAGES_H
#define BLIPLINE_BROKER_MESSAGES_H

#include "wire/broker_socket.h"

struct broker;

void messages_handle(struct broker *b, struct broker_socket_event *event);
/* No new leases; the loop ends when the core says DRAINED. Asking again does nothing. */
void messages_begin_shutdown(struct broker *b);

#endif
