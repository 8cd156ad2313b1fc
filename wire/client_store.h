/* client_store.h - a client reads the store of a job that the broker keeps (STORE_READ).
 *
 * Who may call, errors: as client_session.h. Memory: rows are appended to the caller's buf. */
#ifndef BLIPLINE_WIRE_CLIENT_STORE_H
#define BLIPLINE_WIRE_CLIENT_STORE_H

#include "wire/client_session.h"

/* `question` NULL: wait for the next answer to the last question. */
int client_session_read_store(struct client_session *s, const struct msg_store_read *question,
                              struct msg_store_rows *ret, struct buf *rows, uint32_t *ret_n_rows,
                              struct err *err) CHECK_RESULT;

#endif
