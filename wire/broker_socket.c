#include "wire/broker_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "wire/connections.h"
#include "wire/context.h"
#include "wire/gate.h"
#include "wire/listen.h"
#include "wire/monitor.h"
#include "wire/peer_table.h"
#include "wire/socket_options.h"

enum { MAX_POLL_FDS = 8, MAX_PASSED_OVER = 64 };

struct broker_socket {
    struct broker_socket_conf conf;
    void *socket, *monitor;
    int socket_fd, monitor_fd;
    struct listening listening;
    struct gate gate;
    struct peer_table peers;
    struct connections connections;
    struct broker_socket_counters counters;
};

/* -- open and close */

static int open_sockets(struct broker_socket *s, struct err *err)
{
    const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    size_t n = sizeof(int);
    int rc;

    s->socket = zmq_socket(wire_context(), ZMQ_ROUTER);
    if (!s->socket)
        return err_set(err, -errno, "ZeroMQ: %s", zmq_strerror(errno));
    rc = socket_set_common(s->socket);
    if (rc == 0)
        rc = socket_set_int(s->socket, ZMQ_ROUTER_MANDATORY, 1);
    if (rc == 0)
        rc = socket_set_int(s->socket, ZMQ_BACKLOG, 1024);
    if (rc == 0)
        rc = wire_monitor_open(s->socket, events, &s->monitor);
    if (rc < 0)
        return err_set(err, rc, "ZeroMQ: %s", zmq_strerror(-rc));
    rc = listen_bind(s->socket, &s->gate.keys, &s->listening, err);
    if (rc < 0)
        return rc;
    if (zmq_getsockopt(s->socket, ZMQ_FD, &s->socket_fd, &n) < 0 ||
        zmq_getsockopt(s->monitor, ZMQ_FD, &s->monitor_fd, &n) < 0)
        return err_set(err, -errno, "ZeroMQ: %s", zmq_strerror(errno));
    return 0;
}

int broker_socket_open(const struct broker_socket_conf *conf, struct broker_socket **ret, struct err *err)
{
    static const struct wire_keys none;
    const struct wire_keys *keys = conf->keys ? conf->keys : &none;
    struct broker_socket *s;
    int rc;

    if (!wire_context())
        return err_set(err, -EINVAL, "wire_init was not called");
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "no memory for a socket");
    s->conf = *conf;
    s->conf.max_queue_messages = conf->max_queue_messages ? conf->max_queue_messages : 256;
    s->conf.max_queue_bytes = conf->max_queue_bytes ? conf->max_queue_bytes : (size_t)1 << 30;
    s->conf.max_peers = conf->max_peers ? conf->max_peers : 4096;
    connections_init(&s->connections, conf->max_connections ? conf->max_connections : 2 * s->conf.max_peers,
                     conf->silent_ms ? conf->silent_ms : 10000);
    rc = peer_table_init(&s->peers, s->conf.max_peers);
    rc = rc < 0 ? err_set(err, rc, "no memory for the table of peers")
                : listen_parse(conf->endpoint, keys, &s->listening, err);
    if (rc == 0)
        rc = gate_open(&s->gate, keys, &s->listening, conf->authorized, conf->warn, err);
    if (rc == 0)
        rc = open_sockets(s, err);
    s->conf.endpoint = s->conf.authorized = NULL; /* the caller's */
    s->conf.keys = NULL;
    if (rc < 0)
        broker_socket_close(&s);
    else
        *ret = s;
    return rc;
}

void broker_socket_close(struct broker_socket **sp)
{
    struct broker_socket *s = *sp;

    if (!s)
        return;
    *sp = NULL;
    wire_monitor_close(s->socket, s->monitor);
    listen_unlink(&s->listening); /* first, so that nobody connects from now on */
    if (s->socket)
        (void)zmq_close(s->socket);
    gate_release(&s->gate);
    peer_table_release(&s->peers);
    connections_release(&s->connections);
    free(s);
}

const char *broker_socket_endpoint(const struct broker_socket *s)
{
    return s->listening.text;
}

struct broker_socket_counters broker_socket_counters(const struct broker_socket *s)
{
    struct broker_socket_counters all = s->counters;

    all.closed = s->connections.n_closed;
    if (s->gate.zap) {
        all.keys_accepted = zap_counters(s->gate.zap).accepted;
        all.keys_denied = zap_counters(s->gate.zap).denied;
    }
    return all;
}

/* -- queues */

static void lose_peer(struct broker_socket *s, struct peer *p)
{
    s->counters.queued_messages -= p->n_queued;
    s->counters.lost_peers++;
    peer_table_set_gone(&s->peers, p);
}

/* The peer cannot be reached any more, but its last messages may be unread. It is lost once they have been read. */
static void mark_disconnected(struct broker_socket *s, struct peer *p)
{
    if (p->disconnected)
        return;
    p->disconnected = true;
    s->peers.n_disconnected++;
}

static int send_now(struct broker_socket *s, struct peer *p, struct wire_message *m, struct err *err)
{
    int rc = wire_message_send(s->socket, &p->routing, m, err);

    if (rc == 0) {
        s->counters.messages_out++;
        s->counters.bytes_out += wire_message_size_bytes(m);
    }
    return rc;
}

/* Send the queued messages of one peer until its connection is full again. */
static void flush_peer(struct broker_socket *s, struct peer *p)
{
    while (p->n_queued) {
        int rc = send_now(s, p, p->first->message, NULL);

        if (rc == -EAGAIN)
            return;
        if (rc == -EHOSTUNREACH) {
            mark_disconnected(s, p);
            return;
        }
        peer_dequeue(p); /* sent, or it can never be sent: then the lease expires */
        s->counters.queued_messages--;
    }
}

static void flush_queues(struct broker_socket *s)
{
    struct peer *next;

    if (s->counters.queued_messages == 0)
        return;
    for (struct peer *p = s->peers.all; p; p = next) {
        next = p->next_of_all;
        if (!p->disconnected)
            flush_peer(s, p);
    }
}

int broker_socket_send(struct broker_socket *s, uint64_t peer, struct wire_message **m, struct err *err)
{
    struct peer *p = peer_table_find(&s->peers, peer);
    size_t n_bytes = wire_message_size_bytes(*m);
    int rc = -EAGAIN;

    if (!p || p->disconnected)
        return err_set(err, -EHOSTUNREACH, "peer %llu is gone", (unsigned long long)peer);
    if (p->n_queued == 0)
        rc = send_now(s, p, *m, err);
    if (rc == -EHOSTUNREACH)
        mark_disconnected(s, p);
    if (rc == 0) {
        wire_message_free(*m);
        *m = NULL;
    }
    if (rc != -EAGAIN)
        return rc;
    if (p->n_queued >= s->conf.max_queue_messages ||
        (p->n_queued && p->queued_bytes + n_bytes > s->conf.max_queue_bytes))
        return err_set(err, -ENOBUFS, "peer %llu does not take its messages: %zu wait", (unsigned long long)peer,
                       p->n_queued);
    if (peer_enqueue(p, *m) < 0)
        return err_set(err, -ENOMEM, "no memory for a queued message");
    s->counters.queued_messages++;
    *m = NULL;
    return 0;
}

int broker_socket_send_msg(struct broker_socket *s, uint64_t peer, const struct msg *envelope, struct err *err)
{
    struct wire_message *m;
    int rc = wire_message_new(envelope->type, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    *wire_message_envelope(m) = *envelope;
    /* Lease ids are borrowed memory; a queued message could outlive them. Heartbeats of the broker have none. */
    if (envelope->type == MSG_HEARTBEAT && envelope->heartbeat.n_lease_ids) {
        wire_message_envelope(m)->memory = NULL;
        wire_message_free(m);
        return err_set(err, -EINVAL, "a heartbeat of the broker has no lease ids");
    }
    wire_message_envelope(m)->memory = NULL;
    rc = broker_socket_send(s, peer, &m, err);
    wire_message_free(m);
    return rc;
}

void broker_socket_admit(struct broker_socket *s, uint64_t peer, uint64_t max_message_bytes)
{
    const struct peer *p = peer_table_find(&s->peers, peer);

    if (p)
        connections_admit(&s->connections, p->routing.fd, p->fd_use,
                          max_message_bytes ? max_message_bytes : WIRE_MAX_MESSAGE_BYTES);
}

void broker_socket_drop(struct broker_socket *s, uint64_t peer)
{
    struct peer *p = peer_table_find(&s->peers, peer);

    if (!p)
        return;
    connections_drop(&s->connections, p->routing.fd, p->fd_use, clock_mono_ms());
    s->counters.queued_messages -= p->n_queued;
    peer_table_remove(&s->peers, p);
}

/* -- keys */

int broker_socket_reload_keys(struct broker_socket *s, size_t *ret_n_keys, size_t *ret_n_cut, struct err *err)
{
    int rc = gate_reload(&s->gate, err);
    size_t n_cut = 0;

    if (rc < 0)
        return rc;
    for (struct peer *p = s->peers.all; p; p = p->next_of_all) {
        if (gate_allows(&s->gate, p))
            continue;
        connections_drop(&s->connections, p->routing.fd, p->fd_use, clock_mono_ms()); /* GONE follows */
        n_cut++;
    }
    *ret_n_keys = s->gate.allowed ? s->gate.allowed->n : 0;
    *ret_n_cut = n_cut;
    return 0;
}

/* -- waiting and receiving */

static bool readable(void *socket)
{
    int events = 0;
    size_t n = sizeof(events);

    /* This also makes the socket process commands of the I/O thread; without it ZMQ_FD would not signal again. */
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n) == 0 && (events & ZMQ_POLLIN);
}

/* Handle the monitor's events. Peers whose connection broke are marked; they are gone once all their messages have been
 * read. The event may arrive before the last message: see find_disconnected. */
static void watch_connections(struct broker_socket *s)
{
    int32_t fd;
    int event;

    while (wire_monitor_next(s->monitor, &event, &fd) == 1) {
        if (event == ZMQ_EVENT_ACCEPTED)
            connections_accepted(&s->connections, fd, clock_mono_ms());
        else if (event == ZMQ_EVENT_DISCONNECTED) {
            peer_table_disconnected(&s->peers, fd, connections_use(&s->connections, fd));
            connections_lost(&s->connections, fd);
        } else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
            s->counters.handshakes_unfinished++;
        } else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL) {
            s->counters.handshakes_bad++;
        }
    }
}

/* *ret_until_ms: milliseconds until this must be called again, -1 for never. */
static void close_connections(struct broker_socket *s, int64_t *ret_until_ms)
{
    int64_t now_ms;

    watch_connections(s);
    now_ms = clock_mono_ms();
    connections_close_due(&s->connections, now_ms);
    *ret_until_ms = connections_due_in_ms(&s->connections, now_ms);
}

int broker_socket_wait(struct broker_socket *s, struct pollfd *fds, size_t n_fds, int64_t timeout_ms)
{
    struct pollfd all[MAX_POLL_FDS + 2];
    int64_t until_due_ms;
    int rc;

    if (n_fds > MAX_POLL_FDS)
        return -EINVAL;
    flush_queues(s);
    close_connections(s, &until_due_ms);
    if (until_due_ms >= 0 && (timeout_ms < 0 || timeout_ms > until_due_ms))
        timeout_ms = until_due_ms;
    if (peer_table_has_gone(&s->peers) || readable(s->socket) || readable(s->monitor))
        timeout_ms = 0;
    else if (s->peers.n_closing && (timeout_ms < 0 || timeout_ms > 1))
        timeout_ms = 1; /* no event tells when the last message has been read */
    if (n_fds)
        memcpy(all, fds, n_fds * sizeof(*fds));
    all[n_fds] = (struct pollfd){.fd = s->socket_fd, .events = POLLIN};
    all[n_fds + 1] = (struct pollfd){.fd = s->monitor_fd, .events = POLLIN};
    rc = poll(all, n_fds + 2, timeout_ms < 0 ? -1 : timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms);
    if (rc < 0 && errno != EINTR)
        return -errno;
    for (size_t i = 0; i < n_fds; i++)
        fds[i].revents = rc < 0 ? 0 : all[i].revents;
    if (timeout_ms != 0)
        flush_queues(s); /* a connection may have room again */
    return 0;
}

/* ZeroMQ removes the route to a peer once all of its messages have been received. Until then it accepts messages to the
 * peer and discards them, so an empty one does no harm. */
static bool is_unreachable(struct broker_socket *s, const struct peer *p)
{
    if (zmq_send(s->socket, p->routing.bytes, p->routing.n_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return errno == EHOSTUNREACH;
    (void)zmq_send(s->socket, "", 0, ZMQ_DONTWAIT);
    return false;
}

static void find_disconnected(struct broker_socket *s)
{
    if (!s->peers.n_closing)
        return;
    s->peers.n_closing = 0;
    for (struct peer *p = s->peers.all; p; p = p->next_of_all) {
        if (!p->closing || p->disconnected)
            continue;
        if (is_unreachable(s, p))
            mark_disconnected(s, p);
        else
            s->peers.n_closing++;
    }
}

/* Call when everything on the socket has been read since they were marked. */
static void lose_disconnected(struct broker_socket *s)
{
    struct peer *next;

    if (!s->peers.n_disconnected)
        return;
    for (struct peer *p = s->peers.all; p; p = next) {
        next = p->next_of_all;
        if (p->disconnected)
            lose_peer(s, p);
    }
    s->peers.n_disconnected = 0;
}

/* A peer past the limit is told so, once for each message it sends, and has no number. */
static void refuse_peer(struct broker_socket *s, const struct wire_routing *to)
{
    struct wire_message *m;

    s->counters.refused_peers++;
    if (wire_message_new(MSG_REFUSE, &m) < 0)
        return;
    wire_message_envelope(m)->refuse.reason = MSG_REASON_LIMIT;
    (void)msg_text_set(wire_message_envelope(m)->refuse.text, MSG_TEXT_SIZE, "the broker has too many peers");
    if (wire_message_send(s->socket, to, m, NULL) == 0) /* otherwise the peer asks again */
        s->counters.messages_out++;
    wire_message_free(m);
}

/* The sender of a message; a new sender is added. NULL: the message is not to be read. */
static struct peer *peer_of(struct broker_socket *s, const struct wire_routing *from)
{
    struct peer *p = peer_table_by_routing(&s->peers, from);

    if (p) /* a newcomer may choose the routing id of a peer that has just disconnected, but not its rights */
        return strcmp(p->routing.user, from->user) == 0 ? p : NULL;
    watch_connections(s); /* the table of connections must know this one */
    connections_heard(&s->connections, from->fd, clock_mono_ms());
    p = peer_table_add(&s->peers, from, connections_use(&s->connections, from->fd));
    if (!p) {
        refuse_peer(s, from);
    } else if (!gate_identify(&s->gate, p)) {
        connections_drop(&s->connections, from->fd, p->fd_use, clock_mono_ms());
        peer_table_remove(&s->peers, p);
        p = NULL;
    }
    return p;
}

/* A peer whose message has no end; a connection without a peer is dropped. */
static bool find_unfinished(struct broker_socket *s, struct broker_socket_event *ret)
{
    const int64_t now_ms = clock_mono_ms();
    int fd;

    while ((fd = connections_next_unfinished(&s->connections, now_ms)) >= 0) {
        const uint32_t use = connections_use(&s->connections, fd);
        const struct peer *p = peer_table_by_connection(&s->peers, fd, use);

        if (!p) {
            connections_drop(&s->connections, fd, use, now_ms);
            continue;
        }
        *ret = (struct broker_socket_event){
            .type = BROKER_SOCKET_BAD, .peer = p->number, .role = p->role, .name = p->name};
        ret->why_code = err_set(&ret->why, -E2BIG, "a message of this peer may have %llu MiB at most",
                                (unsigned long long)s->connections.by_fd[fd].max_unfinished >> 20);
        s->counters.bad++;
        return true;
    }
    return false;
}

int broker_socket_next(struct broker_socket *s, struct broker_socket_event *ret)
{
    struct wire_routing from = {.fd = -1};
    struct peer *p;
    int rc;

    for (int n_passed_over = 0; n_passed_over < MAX_PASSED_OVER;) {
        *ret = (struct broker_socket_event){.type = BROKER_SOCKET_MESSAGE};
        from.n_bytes = 0;
        rc = wire_message_receive(s->socket, &s->conf.limits, &from, &ret->message, &ret->why);
        if (rc == -EAGAIN) {
            lose_disconnected(s);
            watch_connections(s);
            find_disconnected(s);
            if (s->peers.n_disconnected)
                continue; /* a last message may have come meanwhile: read it first */
            if (find_unfinished(s, ret))
                return 1;
            break;
        }
        if (from.n_bytes == 0)
            return rc; /* the socket itself */
        connections_spoke(&s->connections, from.fd);
        p = connections_is_dropped(&s->connections, from.fd) ? NULL : peer_of(s, &from);
        if (!p) {
            wire_message_free(ret->message);
            n_passed_over++; /* so that one peer cannot keep the loop busy */
            continue;
        }
        ret->peer = p->number;
        ret->role = p->role;
        ret->name = p->name;
        s->counters.messages_in++;
        if (rc < 0) {
            s->counters.bad++;
            ret->type = BROKER_SOCKET_BAD;
            ret->why_code = rc;
        } else {
            s->counters.bytes_in += wire_message_size_bytes(ret->message);
        }
        return 1;
    }
    if (s->gate.zap && zap_next_denial(s->gate.zap, &ret->denial)) {
        ret->type = BROKER_SOCKET_DENIED;
        return 1;
    }
    ret->peer = peer_table_take_gone(&s->peers);
    ret->type = BROKER_SOCKET_GONE;
    return ret->peer ? 1 : 0;
}
