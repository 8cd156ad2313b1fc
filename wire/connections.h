/* connections.h - the connections of a ROUTER by descriptor: how many there are, and which are to be closed.
 *
 * ZeroMQ accepts whoever comes and says so on the monitor; a peer is known only once it has sent something. Until it is
 * admitted, which is for saying HELLO, a connection has a time limit; so many silent ones are no harm. Closing is
 * shutdown(2) on ZeroMQ's descriptor: its I/O thread sees the end of the stream and does the rest.
 *
 * A descriptor is used again by the kernel: `use` says the how-manieth ACCEPTED of it is meant.
 * Who may call: wire/broker_socket.c. Units: milliseconds. Memory: connections_release frees all.
 * Errors: none: a connection that there is no memory for has no limit. */
#ifndef BLIPLINE_WIRE_CONNECTIONS_H
#define BLIPLINE_WIRE_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection {
    uint32_t use;
    bool open;
    bool dropped; /* what still comes from it is not read */
    int64_t close_at_ms;
};

struct connections {
    struct connection *by_fd;
    size_t n_fds, n_open, max_open;
    int64_t silent_ms; /* time limit until it is admitted */
    int64_t due_at_ms; /* when connections_close_due has something to do, or earlier */
    uint64_t n_closed;
};

void connections_init(struct connections *c, size_t max_open, int64_t silent_ms);
void connections_release(struct connections *c);

/* What the monitor says. One past max_open is due at once. */
void connections_accepted(struct connections *c, int fd, int64_t now_ms);
void connections_lost(struct connections *c, int fd);

/* 0: nothing is known of the descriptor. */
uint32_t connections_use(const struct connections *c, int fd);
bool connections_is_dropped(const struct connections *c, int fd);
void connections_admit(struct connections *c, int fd, uint32_t use);
/* Close it soon: what was sent to it has a moment to leave. */
void connections_drop(struct connections *c, int fd, uint32_t use, int64_t now_ms);
/* Only when all that the monitor has to say was heard. */
void connections_close_due(struct connections *c, int64_t now_ms);

#endif
