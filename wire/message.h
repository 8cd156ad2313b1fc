/* message.h - one message: an envelope, row frames, tensors.
 *
 * Frames stay in ZeroMQ's own buffers from receipt to the last use; nothing is copied on the way through.
 * Who may call: any thread, one at a time for one message; wire_message_send/receive only the thread that owns the
 * socket. Memory: heap; the taker of a message from a queue or a session owns it and frees it with
 * wire_message_free. Row frames and the envelope are valid as long as the message. Errors: -EAGAIN nothing there / no
 * room now, -EBADMSG and -EMSGSIZE if the peer broke the protocol (err says how; the whole message has been read and
 * dropped), -EHOSTUNREACH no such peer, -ENOMEM. */
#ifndef BLIPLINE_WIRE_MESSAGE_H
#define BLIPLINE_WIRE_MESSAGE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"
#include "proto/row.h"
#include "wire/allowed.h"
#include "wire/tensor.h"

#include <stddef.h>
#include <stdint.h>

struct wire_message;

/* An empty message of `type` to be filled in. */
int wire_message_new(enum msg_type type, struct wire_message **ret) CHECK_RESULT;
void wire_message_free(struct wire_message *m);

/* The envelope: fill in the body before sending (frame counts, tensors and version are set by the calls below). */
struct msg *wire_message_envelope(struct wire_message *m);
/* Bytes of all frames, the envelope's excepted. */
size_t wire_message_size_bytes(const struct wire_message *m);

/* -- sending side */
/* Give the bytes of `rows` to the message; `rows` is empty afterwards. Up to 16 MiB are one row frame, without a copy;
 * more are copied into several, cut between rows. An empty buf with n_rows 0 adds nothing. -EMSGSIZE past 64 frames,
 * -EINVAL for bytes that are not rows; then `rows` and the message are unchanged. */
int wire_message_add_rows(struct wire_message *m, struct buf *rows, uint32_t n_rows) CHECK_RESULT;
/* The message holds its own references to the frames; `t` stays the caller's. */
int wire_message_add_tensor(struct wire_message *m, const struct wire_tensor *t) CHECK_RESULT;

/* -- receiving side */
/* A cursor over the rows, to be released by the caller before the message is freed. */
void wire_message_rows(const struct wire_message *m, struct row_cursor *ret);
uint32_t wire_message_n_tensors(const struct wire_message *m);
/* Borrowed: valid as long as the message. */
const struct wire_tensor *wire_message_tensor(const struct wire_message *m, uint32_t i);
/* Tensor i leaves the message and is the caller's (a broker keeps it for the next stages); NULL when taken already. */
struct wire_tensor *wire_message_take_tensor(struct wire_message *m, uint32_t i);

/* -- sockets (`socket` is a ZeroMQ socket; used by the sessions and the broker's socket) */
struct wire_limits {
    size_t max_message_bytes; /* all frames; 0: WIRE_MAX_MESSAGE_BYTES */
};
#define WIRE_MAX_MESSAGE_BYTES ((size_t)4 << 30)

enum { WIRE_MAX_ROUTING_BYTES = 255 };
struct wire_routing {
    size_t n_bytes;
    uint8_t bytes[WIRE_MAX_ROUTING_BYTES];
    int fd;                     /* of the connection it came on, -1 when unknown; only to match connection events */
    char user[ALLOWED_ID_SIZE]; /* allowed_key.id of the sender; "" on connections without keys */
};

/* Never blocks. `to` NULL for sockets that do not route. The message stays the caller's, and may be sent again. */
int wire_message_send(void *socket, const struct wire_routing *to, struct wire_message *m,
                      struct err *err) CHECK_RESULT;
/* Never blocks. `ret_from` non-NULL on a ROUTER: filled in whenever a message was read, bad ones included.
 * Byte lengths of frames agree with the tensors' shapes in a message that is returned; hashes are not looked at. */
int wire_message_receive(void *socket, const struct wire_limits *limits, struct wire_routing *ret_from,
                         struct wire_message **ret, struct err *err) CHECK_RESULT;

#endif
