#include "broker/lost.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/log.h"

struct lost_worker {
    struct lost_worker *next;
    uint64_t peer;
    pid_t pid;
};

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

pid_t lost_pid(const struct msg_hello *hello)
{
    char host[MSG_NAME_SIZE];

    if (hello->pid == 0 || hello->pid > INT32_MAX || gethostname(host, sizeof(host)) < 0)
        return 0;
    host[sizeof(host) - 1] = '\0';
    return strcmp(host, hello->host) == 0 && !has_ended((pid_t)hello->pid) ? (pid_t)hello->pid : 0;
}

bool lost_add(struct lost *all, uint64_t peer, pid_t pid)
{
    struct lost_worker *l;

    if (pid == 0)
        return false;
    if (has_ended(pid)) {
        log_info("event=worker_ended peer=%llu pid=%d", (unsigned long long)peer, (int)pid);
        return true;
    }
    l = malloc(sizeof(*l));
    if (l) {
        *l = (struct lost_worker){.next = all->first, .peer = peer, .pid = pid};
        all->first = l;
    }
    return false;
}

void lost_forget(struct lost *all, uint64_t peer)
{
    for (struct lost_worker **at = &all->first, *l; (l = *at);) {
        if (l->peer != peer) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        free(l);
    }
}

uint64_t lost_take_ended(struct lost *all)
{
    for (const struct lost_worker *l = all->first; l; l = l->next)
        if (has_ended(l->pid)) {
            const uint64_t peer = l->peer;

            log_info("event=worker_ended peer=%llu pid=%d", (unsigned long long)peer, (int)l->pid);
            lost_forget(all, peer);
            return peer;
        }
    return 0;
}

void lost_release(struct lost *all)
{
    while (all->first)
        lost_forget(all, all->first->peer);
}
