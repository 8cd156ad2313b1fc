/* broker_socket.h - the broker's ROUTER socket: peers have numbers, each has a bounded queue, losses are events.
 *
 * Who may call: the broker's loop thread alone.
 *
 *     for (;;) {
 *         broker_socket_wait(s, fds, n_fds, timeout_ms);    // the only place that sleeps; fds: mailbox_fd and others
 *         for (n = 0; n < N && broker_socket_next(s, &event) == 1; n++)
 *             ...;                                          // if events are left, the next wait returns at once
 *     }
 *
 * Units:  milliseconds, bytes. The number of a peer is never used again; 0 is no peer.
 * Memory: an event's message is the caller's. broker_socket_send takes the message when it succeeds.
 * Errors: negative errno, err with the cure. What a peer does wrong is an event, never an error. */
#ifndef BLIPLINE_WIRE_BROKER_SOCKET_H
#define BLIPLINE_WIRE_BROKER_SOCKET_H

#include "base/err.h"
#include "wire/message.h"
#include "wire/zap.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct broker_socket;

struct broker_socket_conf {
    const char *endpoint;           /* one or several: ipc:///run/x.sock (made mode 0600), tcp://0.0.0.0:5550 */
    const struct wire_keys *keys;   /* for tcp; NULL: none */
    const char *authorized;         /* the folder of the allow-list (allowed.h); needed with keys */
    void (*warn)(const char *text); /* told of files in it that cannot be used; needed with keys */
    size_t max_peers;               /* further ones are answered by REFUSE. 0: 4096 */
    size_t max_connections;         /* further ones are closed without an answer. 0: twice max_peers */
    int64_t silent_ms;              /* time limit of a connection until broker_socket_admit. 0: 10 s */
    size_t max_queue_messages;      /* to one peer. 0: 256 */
    size_t max_queue_bytes;         /* to one peer, unless its queue is empty. 0: 1 GiB */
    struct wire_limits limits;      /* of what is received */
};

/* Bind. -EADDRINUSE when a live broker answers at an ipc path (a dead one's path is taken over), -EPERM for tcp
 * without keys (endpoint.h); -ENAMETOOLONG for an ipc path past 107 bytes. */
int broker_socket_open(const struct broker_socket_conf *conf, struct broker_socket **ret, struct err *err) CHECK_RESULT;
/* What is queued is given WIRE_LINGER_MS to leave. Removes the ipc path. Nulls *s; NULL is fine. */
void broker_socket_close(struct broker_socket **s);
/* As bound. Valid until close. */
const char *broker_socket_endpoint(const struct broker_socket *s);

/* Sleep until a message or a loss may be waiting, one of the caller's descriptors is ready (revents are set), or
 * timeout_ms (-1: for ever) has passed. Also moves the queues. Returns early on a signal. n_fds <= 8. */
int broker_socket_wait(struct broker_socket *s, struct pollfd *fds, size_t n_fds, int64_t timeout_ms) CHECK_RESULT;

enum broker_socket_event_type {
    BROKER_SOCKET_MESSAGE, /* `message` */
    BROKER_SOCKET_BAD, /* the peer sent something malformed: `why`. Answer with REFUSE; drop a peer that repeats it */
    BROKER_SOCKET_DENIED, /* a handshake with a key that is not allowed: `denial`; no peer */
    BROKER_SOCKET_GONE,   /* the peer's connection is lost; its number is not valid any more */
};
struct broker_socket_event {
    enum broker_socket_event_type type;
    uint64_t peer;      /* a number not seen before: a new peer, which owes a HELLO */
    enum msg_role role; /* of MESSAGE and BAD: what its key allows; ADMIN includes the others, as on ipc */
    const char *name;   /* of its key, or "uid:1000" on ipc; valid until the next call */
    struct wire_message *message;
    struct zap_denial denial;
    int why_code; /* -EBADMSG, -EMSGSIZE, -EPROTONOSUPPORT, ...; -E2BIG: its message has no end, drop it */
    struct err why;
};
/* 1: an event, 0: none now, or a negative errno of the socket itself. */
int broker_socket_next(struct broker_socket *s, struct broker_socket_event *ret) CHECK_RESULT;

/* Send, or queue while the peer's connection is full. 0: *m is taken and nulled. -EHOSTUNREACH: no such peer (an
 * unknown number, or one just found lost: its GONE event follows). -ENOBUFS: its queue is full. *m is the caller's on
 * failure. */
int broker_socket_send(struct broker_socket *s, uint64_t peer, struct wire_message **m, struct err *err) CHECK_RESULT;
/* Send an envelope without frames. */
int broker_socket_send_msg(struct broker_socket *s, uint64_t peer, const struct msg *envelope,
                           struct err *err) CHECK_RESULT;
/* The peer has sent a valid HELLO: its connection may stay open. Its messages by tcp may have so many bytes; 0:
 * WIRE_MAX_MESSAGE_BYTES. */
void broker_socket_admit(struct broker_socket *s, uint64_t peer, uint64_t max_message_bytes);
/* Forget a peer and its queue, and close its connection after 200 ms, so that messages already sent can leave. No GONE
 * event follows. */
void broker_socket_drop(struct broker_socket *s, uint64_t peer);

/* Read the allow-list again (nothing to do without keys). Peers whose key is no longer there are cut off, and a GONE
 * event follows for each; the others notice nothing. After an error the old list stays in force. */
int broker_socket_reload_keys(struct broker_socket *s, size_t *ret_n_keys, size_t *ret_n_cut,
                              struct err *err) CHECK_RESULT;

struct broker_socket_counters {
    uint64_t messages_in, messages_out, bytes_in, bytes_out, bad, refused_peers, lost_peers, queued_messages;
    uint64_t keys_accepted, keys_denied; /* handshakes of CURVE, by the allow-list */
    uint64_t handshakes_bad;             /* another mechanism, another server key, or not the protocol */
    uint64_t handshakes_unfinished;      /* closed or silent before the end of the handshake */
    uint64_t closed; /* connections closed because there were too many, or they were silent, or dropped */
};
struct broker_socket_counters broker_socket_counters(const struct broker_socket *s);

#endif
