#include "client/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

int interrupt_open(int *ret_fd, struct err *err)
{
    sigset_t set;
    int fd;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGCHLD);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_set(err, -errno, "signalfd: %s", strerror(errno));
    *ret_fd = fd;
    return 0;
}

void interrupt_read(int fd, struct interrupt *ret)
{
    struct signalfd_siginfo s;

    *ret = (struct interrupt){0};
    while (read(fd, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
        if (s.ssi_signo == SIGCHLD) {
            ret->child = true;
        } else {
            ret->signal_number = (int)s.ssi_signo;
            ret->n_signals++;
        }
    }
}
