#include "base/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t caught_number, n_caught; /* set by the handler while signals are unblocked */

static void on_signal(int number)
{
    caught_number = number;
    n_caught++;
}

static void add_ends(sigset_t *set)
{
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        (void)sigaddset(set, ends[i]);
}

int interrupt_open(int *ret_fd, struct err *err)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK}; /* no SA_RESTART: signals end a wait */
    sigset_t set;
    int fd;

    (void)sigemptyset(&set);
    add_ends(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        (void)sigaction(ends[i], &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_set(err, -errno, "signalfd: %s", strerror(errno));
    *ret_fd = fd;
    return 0;
}

void interrupt_let_in(bool yes)
{
    sigset_t set;

    (void)sigemptyset(&set);
    add_ends(&set);
    (void)sigprocmask(yes ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

void interrupt_read(int fd, struct interrupt *ret)
{
    struct signalfd_siginfo s;

    *ret = (struct interrupt){0};
    if (n_caught) {
        ret->signal_number = caught_number;
        ret->n_signals = n_caught;
        n_caught = 0;
    }
    while (read(fd, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
        if (s.ssi_signo == SIGCHLD) {
            ret->child = true;
        } else {
            ret->signal_number = (int)s.ssi_signo;
            ret->n_signals++;
        }
    }
}
