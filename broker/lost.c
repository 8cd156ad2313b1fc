/* lost.c - workers whose connection is lost: do their processes live?
 *
 * A stalled process, or a broken network, is no failure of the units; a process that has ended is, and whoever waits
 * for its leases to end waits in vain. On the broker's own machine the kernel knows. */
#include "broker/shell.h"

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

enum { LOOK_AGAIN_MS = 100 };

/* Also one that its parent has not waited for. False where it cannot be told. */
static bool has_ended(pid_t pid)
{
    struct pollfd p = {.fd = pidfd_open(pid, 0), .events = POLLIN};
    bool ended;

    if (p.fd < 0)
        return errno == ESRCH;
    ended = poll(&p, 1, 0) == 1;
    (void)close(p.fd);
    return ended;
}

pid_t broker_lost_pid(const struct msg_hello *hello)
{
    char host[MSG_NAME_SIZE];

    if (hello->pid == 0 || hello->pid > INT32_MAX || gethostname(host, sizeof(host)) < 0)
        return 0;
    host[sizeof(host) - 1] = '\0';
    return strcmp(host, hello->host) == 0 && !has_ended((pid_t)hello->pid) ? (pid_t)hello->pid : 0;
}

static void say_gone(struct broker *b, uint64_t peer, bool ended)
{
    broker_feed(b, &(struct core_event){.type = CORE_EVENT_GONE, .gone = {.peer = peer, .ended = ended}});
}

void broker_lost_add(struct broker *b, uint64_t peer, pid_t pid)
{
    struct broker_lost *l = NULL;

    if (pid && has_ended(pid)) {
        log_info("event=worker_ended peer=%llu pid=%d", (unsigned long long)peer, (int)pid);
        say_gone(b, peer, true);
        return;
    }
    if (pid)
        l = malloc(sizeof(*l)); /* without memory its leases end in their time */
    if (l) {
        *l = (struct broker_lost){.next = b->lost, .peer = peer, .pid = pid};
        b->lost = l;
    }
    say_gone(b, peer, false); /* which may forget it again */
}

void broker_lost_forget(struct broker *b, uint64_t peer)
{
    for (struct broker_lost **at = &b->lost, *l; (l = *at);) {
        if (l->peer != peer) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        free(l);
    }
}

int64_t broker_lost_look(struct broker *b)
{
    for (struct broker_lost *l = b->lost; l;) {
        const uint64_t peer = l->peer;

        if (!has_ended(l->pid)) {
            l = l->next;
            continue;
        }
        log_info("event=worker_ended peer=%llu pid=%d", (unsigned long long)peer, (int)l->pid);
        broker_lost_forget(b, peer);
        say_gone(b, peer, true);
        l = b->lost; /* that may have forgotten others */
    }
    return b->lost ? b->now_ms + LOOK_AGAIN_MS : INT64_MAX;
}

void broker_lost_free(struct broker *b)
{
    while (b->lost)
        broker_lost_forget(b, b->lost->peer);
}
