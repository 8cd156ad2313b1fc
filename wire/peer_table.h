/* peer_table.h - the peers of a ROUTER: the routing id, number and queue of each.
 *
 * Who may call: wire/broker_socket.c. Nothing here touches a socket.
 * Units:  bytes. Numbers start at 1 and are never used again.
 * Memory: the table owns peers, a peer its queued messages.
 * Errors: -ENOMEM; peer_table_add returns NULL when the table is full or memory is out.
 *
 * The kernel reuses descriptors, so a peer remembers on which use of one (connections.h) it came: a DISCONNECTED event
 * of a descriptor concerns only peers of its latest use. */
#ifndef BLIPLINE_WIRE_PEER_TABLE_H
#define BLIPLINE_WIRE_PEER_TABLE_H

#include "base/err.h"
#include "wire/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queued_message {
    struct queued_message *next;
    struct wire_message *message;
};

struct peer {
    uint64_t number;
    struct wire_routing routing;
    uint32_t fd_use;
    enum msg_role role;       /* what its key, or its user on ipc, allows: ADMIN includes CLIENT and WORKER */
    char name[KEY_NAME_SIZE]; /* of its key; "uid:1000" on ipc */
    bool closing;             /* its connection broke, but ZeroMQ may still deliver messages of it */
    bool disconnected;        /* ZeroMQ has delivered all of them; some may be unread */
    struct queued_message *first, *last;
    size_t n_queued, queued_bytes;
    struct peer *next_by_routing, *next_by_number;
    struct peer *next_of_all, *previous_of_all;
};

struct peer_table {
    size_t n_peers, max_peers, n_buckets; /* n_buckets is a power of two */
    struct peer **by_routing, **by_number;
    struct peer *all;
    uint64_t last_number;
    size_t n_closing; /* an upper bound: some may be gone or disconnected meanwhile */
    size_t n_disconnected;
    uint64_t *gone; /* numbers to be reported, oldest first: a ring of capacity gone_capacity */
    size_t n_gone, gone_head, gone_capacity;
};

int peer_table_init(struct peer_table *t, size_t max_peers) CHECK_RESULT;
void peer_table_release(struct peer_table *t);

struct peer *peer_table_add(struct peer_table *t, const struct wire_routing *routing, uint32_t fd_use);
struct peer *peer_table_find(const struct peer_table *t, uint64_t number);
struct peer *peer_table_by_routing(const struct peer_table *t, const struct wire_routing *routing);
/* NULL: none has sent a message on this connection. */
struct peer *peer_table_by_connection(const struct peer_table *t, int fd, uint32_t fd_use);
void peer_table_remove(struct peer_table *t, struct peer *p);

/* Remove, and remember the number for peer_table_take_gone (0: none). */
void peer_table_set_gone(struct peer_table *t, struct peer *p);
bool peer_table_has_gone(const struct peer_table *t);
uint64_t peer_table_take_gone(struct peer_table *t);

/* Marks the peers of the connection `closing`. */
void peer_table_disconnected(struct peer_table *t, int fd, uint32_t fd_use);

int peer_enqueue(struct peer *p, struct wire_message *m) CHECK_RESULT;
void peer_dequeue(struct peer *p); /* frees the first */

#endif
