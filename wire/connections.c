#include "wire/connections.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_FDS = 1 << 20, LAST_WORDS_MS = 200 };

void connections_init(struct connections *c, size_t max_open, int64_t silent_ms)
{
    *c = (struct connections){.max_open = max_open, .silent_ms = silent_ms, .due_at_ms = INT64_MAX};
}

void connections_release(struct connections *c)
{
    free(c->by_fd);
    *c = (struct connections){0};
}

static void close_at(struct connections *c, struct connection *k, int64_t at_ms)
{
    k->close_at_ms = at_ms;
    if (at_ms < c->due_at_ms)
        c->due_at_ms = at_ms;
}

void connections_accepted(struct connections *c, int fd, int64_t now_ms)
{
    struct connection *k;

    if (fd < 0 || fd >= MAX_FDS)
        return;
    if ((size_t)fd >= c->n_fds) {
        size_t n = (size_t)fd + 64;
        struct connection *by_fd = realloc(c->by_fd, n * sizeof(*by_fd));

        if (!by_fd)
            return; /* the loss of this connection is then noticed only by sending */
        memset(by_fd + c->n_fds, 0, (n - c->n_fds) * sizeof(*by_fd));
        c->by_fd = by_fd;
        c->n_fds = n;
    }
    k = &c->by_fd[fd];
    if (k->early) {
        k->early = false;
        return;
    }
    c->n_open += !k->open;
    *k = (struct connection){.use = k->use + 1, .open = true};
    close_at(c, k, c->n_open > c->max_open ? now_ms : now_ms + c->silent_ms);
}

void connections_heard(struct connections *c, int fd, int64_t now_ms)
{
    if (fd >= 0 && (size_t)fd < c->n_fds && c->by_fd[fd].open)
        return;
    connections_accepted(c, fd, now_ms);
    if (fd >= 0 && (size_t)fd < c->n_fds)
        c->by_fd[fd].early = c->by_fd[fd].open;
}

static struct connection *find(const struct connections *c, int fd, uint32_t use)
{
    struct connection *k = fd >= 0 && (size_t)fd < c->n_fds ? &c->by_fd[fd] : NULL;

    return k && k->open && k->use == use ? k : NULL;
}

void connections_lost(struct connections *c, int fd)
{
    struct connection *k = find(c, fd, connections_use(c, fd));

    if (!k)
        return;
    k->open = false;
    c->n_open--;
}

uint32_t connections_use(const struct connections *c, int fd)
{
    return fd >= 0 && (size_t)fd < c->n_fds ? c->by_fd[fd].use : 0;
}

bool connections_is_dropped(const struct connections *c, int fd)
{
    const struct connection *k = find(c, fd, connections_use(c, fd));

    return k && k->dropped;
}

void connections_admit(struct connections *c, int fd, uint32_t use)
{
    struct connection *k = find(c, fd, use);

    if (k && !k->dropped)
        k->close_at_ms = INT64_MAX;
}

void connections_drop(struct connections *c, int fd, uint32_t use, int64_t now_ms)
{
    struct connection *k = find(c, fd, use);

    if (!k || k->dropped)
        return;
    k->dropped = true;
    close_at(c, k, now_ms + LAST_WORDS_MS);
}

void connections_close_due(struct connections *c, int64_t now_ms)
{
    if (now_ms < c->due_at_ms)
        return;
    c->due_at_ms = INT64_MAX;
    for (size_t fd = 0; fd < c->n_fds; fd++) {
        struct connection *k = &c->by_fd[fd];

        if (!k->open)
            continue;
        if (k->close_at_ms > now_ms) {
            close_at(c, k, k->close_at_ms);
            continue;
        }
        (void)shutdown((int)fd, SHUT_RDWR); /* the monitor reports when it is closed */
        k->close_at_ms = INT64_MAX;
        k->dropped = true;
        c->n_closed++;
    }
}
