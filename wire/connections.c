#include "wire/connections.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_FDS = 1 << 20, LAST_WORDS_MS = 200 };
/* A message may be whole although its end is still on its way through ZeroMQ: so looks are some time apart, and one
 * alone decides nothing. */
enum { LOOK_MS = 250, LOOKS = 2, MAX_UNFINISHED_STRANGER = 2 << 20 };

void connections_init(struct connections *c, size_t max_open, int64_t silent_ms)
{
    *c = (struct connections){.max_open = max_open, .silent_ms = silent_ms, .due_at_ms = INT64_MAX};
}

void connections_release(struct connections *c)
{
    free(c->by_fd);
    *c = (struct connections){0};
}

static bool is_tcp(int fd)
{
    int domain = AF_UNIX;
    socklen_t n = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain != AF_UNIX;
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
    c->n_tcp -= k->open && k->is_tcp;
    *k = (struct connection){
        .use = k->use + 1, .open = true, .is_tcp = is_tcp(fd), .max_unfinished = MAX_UNFINISHED_STRANGER};
    c->n_tcp += k->is_tcp;
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
    c->n_tcp -= k->is_tcp;
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

void connections_admit(struct connections *c, int fd, uint32_t use, uint64_t max_unfinished)
{
    struct connection *k = find(c, fd, use);

    if (!k || k->dropped)
        return;
    k->close_at_ms = INT64_MAX;
    k->max_unfinished = max_unfinished;
}

void connections_spoke(struct connections *c, int fd)
{
    if (fd >= 0 && (size_t)fd < c->n_fds)
        c->by_fd[fd].spoke = true;
}

static uint64_t bytes_received(int fd)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof(info);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 ? info.tcpi_bytes_received : 0;
}

static bool has_too_much(struct connection *k, int fd)
{
    const uint64_t n = bytes_received(fd);

    if (k->spoke || n <= k->n_before + k->max_unfinished) {
        k->n_before = k->spoke ? n : k->n_before;
        k->spoke = false;
        k->n_over = 0;
        return false;
    }
    return ++k->n_over >= LOOKS;
}

int connections_next_unfinished(struct connections *c, int64_t now_ms)
{
    if (c->n_tcp == 0 || now_ms < c->look_at_ms)
        return -1;
    while (c->look_fd < c->n_fds) {
        const int fd = (int)c->look_fd++;
        struct connection *k = &c->by_fd[fd];

        if (k->open && k->is_tcp && !k->dropped && has_too_much(k, fd))
            return fd;
    }
    c->look_fd = 0;
    c->look_at_ms = now_ms + LOOK_MS;
    return -1;
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

int64_t connections_due_in_ms(const struct connections *c, int64_t now_ms)
{
    const int64_t at_ms = c->n_tcp && c->look_at_ms < c->due_at_ms ? c->look_at_ms : c->due_at_ms;

    return at_ms == INT64_MAX ? -1 : at_ms > now_ms ? at_ms - now_ms : 0;
}
