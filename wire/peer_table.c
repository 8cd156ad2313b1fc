#include "wire/peer_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int peer_table_init(struct peer_table *t, size_t max_peers)
{
    memset(t, 0, sizeof(*t));
    t->max_peers = max_peers;
    t->n_buckets = 64;
    while (t->n_buckets < max_peers && t->n_buckets < 65536)
        t->n_buckets *= 2;
    /* a peer is either in the table or in the ring; new peers may come and go before the ring is read */
    t->gone_capacity = 2 * max_peers;
    t->by_routing = calloc(t->n_buckets, sizeof(void *));
    t->by_number = calloc(t->n_buckets, sizeof(void *));
    t->gone = calloc(t->gone_capacity, sizeof(*t->gone));
    if (t->by_routing && t->by_number && t->gone)
        return 0;
    peer_table_release(t);
    return -ENOMEM;
}

void peer_table_release(struct peer_table *t)
{
    while (t->all)
        peer_table_remove(t, t->all);
    free(t->by_routing);
    free(t->by_number);
    free(t->gone);
    memset(t, 0, sizeof(*t));
}

static struct peer **routing_bucket(const struct peer_table *t, const struct wire_routing *r)
{
    return &t->by_routing[XXH3_64bits(r->bytes, r->n_bytes) & (t->n_buckets - 1)];
}

static struct peer **number_bucket(const struct peer_table *t, uint64_t number)
{
    return &t->by_number[number & (t->n_buckets - 1)];
}

struct peer *peer_table_by_routing(const struct peer_table *t, const struct wire_routing *r)
{
    struct peer *p = *routing_bucket(t, r);

    while (p && (p->routing.n_bytes != r->n_bytes || memcmp(p->routing.bytes, r->bytes, r->n_bytes) != 0))
        p = p->next_by_routing;
    return p;
}

struct peer *peer_table_find(const struct peer_table *t, uint64_t number)
{
    struct peer *p = *number_bucket(t, number);

    while (p && p->number != number)
        p = p->next_by_number;
    return p;
}

struct peer *peer_table_by_connection(const struct peer_table *t, int fd, uint32_t fd_use)
{
    struct peer *p = t->all;

    while (p && (p->routing.fd != fd || p->fd_use != fd_use))
        p = p->next_of_all;
    return p;
}

struct peer *peer_table_add(struct peer_table *t, const struct wire_routing *routing, uint32_t fd_use)
{
    struct peer *p;

    /* unreported losses count, so that the ring always has room for all */
    if (t->n_peers + t->n_gone >= t->gone_capacity || t->n_peers >= t->max_peers)
        return NULL;
    p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->number = ++t->last_number;
    p->routing = *routing;
    p->fd_use = fd_use;
    p->next_by_routing = *routing_bucket(t, routing);
    *routing_bucket(t, routing) = p;
    p->next_by_number = *number_bucket(t, p->number);
    *number_bucket(t, p->number) = p;
    p->next_of_all = t->all;
    if (t->all)
        t->all->previous_of_all = p;
    t->all = p;
    t->n_peers++;
    return p;
}

void peer_table_remove(struct peer_table *t, struct peer *p)
{
    struct peer **at = routing_bucket(t, &p->routing);

    while (*at != p)
        at = &(*at)->next_by_routing;
    *at = p->next_by_routing;
    at = number_bucket(t, p->number);
    while (*at != p)
        at = &(*at)->next_by_number;
    *at = p->next_by_number;
    if (p->previous_of_all)
        p->previous_of_all->next_of_all = p->next_of_all;
    else
        t->all = p->next_of_all;
    if (p->next_of_all)
        p->next_of_all->previous_of_all = p->previous_of_all;
    t->n_peers--;
    while (p->n_queued)
        peer_dequeue(p);
    free(p);
}

void peer_table_set_gone(struct peer_table *t, struct peer *p)
{
    t->gone[(t->gone_head + t->n_gone++) % t->gone_capacity] = p->number;
    peer_table_remove(t, p);
}

bool peer_table_has_gone(const struct peer_table *t)
{
    return t->n_gone || t->n_disconnected;
}

uint64_t peer_table_take_gone(struct peer_table *t)
{
    uint64_t number;

    if (t->n_gone == 0)
        return 0;
    number = t->gone[t->gone_head];
    t->gone_head = (t->gone_head + 1) % t->gone_capacity;
    t->n_gone--;
    return number;
}

void peer_table_disconnected(struct peer_table *t, int fd, uint32_t fd_use)
{
    for (struct peer *p = t->all; p; p = p->next_of_all)
        if (p->routing.fd == fd && p->fd_use == fd_use && !p->closing) {
            p->closing = true;
            t->n_closing++;
        }
}

int peer_enqueue(struct peer *p, struct wire_message *m)
{
    struct queued_message *q = malloc(sizeof(*q));

    if (!q)
        return -ENOMEM;
    *q = (struct queued_message){.message = m};
    if (p->last)
        p->last->next = q;
    else
        p->first = q;
    p->last = q;
    p->n_queued++;
    p->queued_bytes += wire_message_size_bytes(m);
    return 0;
}

void peer_dequeue(struct peer *p)
{
    struct queued_message *q = p->first;

    p->first = q->next;
    if (!p->first)
        p->last = NULL;
    p->n_queued--;
    p->queued_bytes -= wire_message_size_bytes(q->message);
    wire_message_free(q->message);
    free(q);
}
