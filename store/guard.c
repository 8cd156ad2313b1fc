#include "store/guard.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

struct guard {
    sigjmp_buf out;
    struct err err;
};

/* The guarded call of this thread; NULL: none. */
static _Thread_local struct guard *running;
static struct sigaction before;

/* Handles a fault in a mapped page, in LMDB's code or this program's; neither holds a lock of the C library there. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (running && info->si_code == BUS_ADRERR)
        siglongjmp(running->out, 1);
    (void)sigaction(number, &before, NULL); /* the fault is raised again and handled as before */
}

/* Installs the handler for each call, because others may have replaced it (a test framework does for each test). */
static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK}, now;

    (void)sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) < 0 || now.sa_sigaction == on_bus_error)
        return;
    before = now;
    (void)sigaction(SIGBUS, &action, NULL);
}

int guard_run(const char *path, int (*call)(void *arg), void *arg, bool *ret_jumped, struct err *err)
{
    struct guard guard;
    int rc;

    install();
    (void)err_set(&guard.err, 0, "%s: data.mdb was truncated, or the disk cannot be read", path);
    *ret_jumped = false;
    if (sigsetjmp(guard.out, 1) == 0) {
        running = &guard;
        rc = call(arg);
    } else {
        *ret_jumped = true;
        rc = err_set(err, -EIO, "%s; blipline verify lists the problems", guard.err.text);
    }
    running = NULL;
    return rc;
}

void guard_assertion_failed(const char *path, const char *what)
{
    if (!running)
        return;
    (void)err_set(&running->err, 0, "%s: data.mdb is damaged (LMDB: %s)", path, what);
    siglongjmp(running->out, 1);
}
