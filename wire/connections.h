/* connections.h - the open connections of a ROUTER by descriptor, and when to close them.
 *
 * ZeroMQ accepts every connection and reports it on the monitor; a peer becomes known only with its first message.
 * Until it is admitted (it has sent HELLO) a connection has a time limit, so that silent ones cannot pile up. To close
 * one, shutdown(2) is called on ZeroMQ's descriptor; its I/O thread sees the end of the stream and cleans up.
 *
 * ZeroMQ collects the frames of a message, however many, until its last one has come. So the kernel is asked how much
 * has come on a tcp connection since its last whole message; who sends more than it may is cut off.
 *
 * The kernel reuses descriptors: `use` counts the ACCEPTED events of one, and so tells its connections apart.
 * Who may call: wire/broker_socket.c. Units: milliseconds. Memory: connections_release frees all.
 * Errors: none; without memory for a connection it has no time limit. */
#ifndef BLIPLINE_WIRE_CONNECTIONS_H
#define BLIPLINE_WIRE_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection {
    uint32_t use;
    bool open;
    bool dropped; /* its further messages are discarded */
    bool early;   /* its first message came before the event of the monitor, which is still to come */
    int64_t close_at_ms;
    bool is_tcp;
    bool spoke;        /* a whole message has come since it was last looked at */
    uint32_t n_over;   /* looks in a row that found too much */
    uint64_t n_before; /* bytes that had come then */
    uint64_t max_unfinished;
};

struct connections {
    struct connection *by_fd;
    size_t n_fds, n_open, max_open;
    int64_t silent_ms; /* time limit of a connection until it is admitted */
    int64_t due_at_ms; /* connections_close_due has nothing to do before this time */
    uint64_t n_closed;
    size_t n_tcp;       /* of those that are open */
    int64_t look_at_ms; /* when to look at how much has come */
    size_t look_fd;     /* the next to be looked at */
};

void connections_init(struct connections *c, size_t max_open, int64_t silent_ms);
void connections_release(struct connections *c);

/* Events of the monitor. A connection past max_open is closed at once. */
void connections_accepted(struct connections *c, int fd, int64_t now_ms);
void connections_lost(struct connections *c, int fd);
/* Call for the first message of a peer, after all pending events of the monitor. With several I/O threads the message
 * may overtake the event that tells of its connection. */
void connections_heard(struct connections *c, int fd, int64_t now_ms);

/* 0: the descriptor is unknown. */
uint32_t connections_use(const struct connections *c, int fd);
bool connections_is_dropped(const struct connections *c, int fd);
/* `max_unfinished`: bytes that a message of it may have. */
void connections_admit(struct connections *c, int fd, uint32_t use, uint64_t max_unfinished);
/* A whole message of it has been read. */
void connections_spoke(struct connections *c, int fd);
/* A connection on which more bytes have come, since its last whole message, than a message of it may have; -1: none.
 * Call when all messages have been read, until it returns -1. */
int connections_next_unfinished(struct connections *c, int64_t now_ms);
/* Close it in 200 ms, so that messages already sent can leave. */
void connections_drop(struct connections *c, int fd, uint32_t use, int64_t now_ms);
/* Call only when no events of the monitor are pending. */
void connections_close_due(struct connections *c, int64_t now_ms);
/* Milliseconds until connections_close_due or connections_next_unfinished is to be called again; -1: never. */
int64_t connections_due_in_ms(const struct connections *c, int64_t now_ms);

#endif
