/* client_push.h - a client sends the pictures of its job: JobPush.
 *
 * Who may call, errors: as client_session.h. Units: bytes. Memory: see the functions. */
#ifndef BLIPLINE_WIRE_CLIENT_PUSH_H
#define BLIPLINE_WIRE_CLIENT_PUSH_H

#include "wire/client_session.h"

#include <stddef.h>

/* Wait until another message of pictures may be sent, or (`all`) until all are answered. -ETIMEDOUT: not yet, perhaps
 * since the broker's disk is full. */
int client_session_push_turn(struct client_session *s, bool all, struct err *err) CHECK_RESULT;
/* Ask which pictures come next; all must be answered. Their Item rows are appended to `ret`; *ret_n 0: it has all.
 * *ret_n_items: how many it has. */
int client_session_push_wanted(struct client_session *s, uint64_t job, struct buf *ret, uint32_t *ret_n,
                               uint64_t *ret_n_items, struct err *err) CHECK_RESULT;
/* Send pictures, as JobPush says. Takes `rows`, which is then empty, and `data`, which comes from malloc (NULL: no
 * bytes). */
int client_session_push(struct client_session *s, uint64_t job, uint64_t offset, struct buf *rows, uint32_t n_rows,
                        void *data, size_t n_data, struct err *err) CHECK_RESULT;

#endif
