#include "base/stop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static atomic_int stop_count;
static int stop_event = -1, reload_event = -1;

/* The only thread that receives signals; it computes nothing. Signals that it does not wait for keep their usual
 * effect: SIGQUIT ends the process, SIGTSTP stops it, and a handler installed by a library runs. */
static void *signals_main(void *unused)
{
    sigset_t ends;
    int number;

    (void)unused;
    (void)pthread_setname_np(pthread_self(), "signals");
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGINT);
    if (reload_event >= 0)
        (void)sigaddset(&ends, SIGHUP);
    (void)pthread_sigmask(SIG_SETMASK, &ends, NULL);
    for (;;) {
        if (sigwait(&ends, &number) != 0)
            continue;
        if (number == SIGHUP) {
            (void)eventfd_write(reload_event, 1);
            continue;
        }
        if (atomic_fetch_add(&stop_count, 1) > 0)
            _exit(128 + number);
        (void)eventfd_write(stop_event, 1);
    }
    return NULL;
}

void stop_block_signals(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t set;

    (void)sigfillset(&set);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        (void)sigdelset(&set, faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &set, NULL);
}

int stop_init_reload(struct err *err)
{
    reload_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return reload_event < 0 ? err_set(err, -errno, "eventfd: %s", strerror(errno)) : stop_init(err);
}

int stop_init(struct err *err)
{
    pthread_t thread;
    int rc;

    (void)signal(SIGPIPE, SIG_IGN);
    stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_event < 0)
        return err_set(err, -errno, "eventfd: %s", strerror(errno));
    stop_block_signals();
    rc = -pthread_create(&thread, NULL, signals_main, NULL);
    if (rc < 0)
        return err_set(err, rc, "cannot start the thread that waits for signals: %s", strerror(-rc));
    (void)pthread_detach(thread);
    return 0;
}

bool stop_requested(void)
{
    return atomic_load(&stop_count) > 0;
}

int stop_fd(void)
{
    return stop_event;
}

int stop_reload_fd(void)
{
    return reload_event;
}

bool stop_take_reload(void)
{
    eventfd_t n;

    return eventfd_read(reload_event, &n) == 0;
}
