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
/* Wait for another answer to the last request. */
int client_session_next_answer(struct client_session *s, enum msg_type answer, struct wire_message **ret,
                               struct err *err) CHECK_RESULT;
/* Append the rows of an answer to `ret`, and free it. */
int client_session_take_rows(struct wire_message *answer, struct buf *ret, uint32_t *ret_n,
                             struct err *err) CHECK_RESULT;
/* Send a message of rows, which is taken, also on failure; `rows` is then empty. Waits only while 4 are unanswered. */
int client_session_send_rows(struct client_session *s, struct wire_message *m, struct buf *rows, uint32_t n_rows,
                             struct err *err) CHECK_RESULT;
/* Wait for the answers of rows: of all of them, or until one more message may be sent. */
int client_session_settle(struct client_session *s, bool all, struct err *err) CHECK_RESULT;

#endif
