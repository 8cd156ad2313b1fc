/* client_private.h - what the files client_*.c of wire/ share.
 *
 * Who may call, errors: as client_session.h. */
#ifndef BLIPLINE_WIRE_CLIENT_PRIVATE_H
#define BLIPLINE_WIRE_CLIENT_PRIVATE_H

#include "wire/client_session.h"
#include "wire/message.h"

/* Send a request and wait for its answer, which must be of the type `answer` and which the caller frees. The request is
 * taken, also on failure. */
int client_session_exchange(struct client_session *s, struct wire_message *m, enum msg_type answer,
                            struct wire_message **ret, struct err *err) CHECK_RESULT;

#endif
