#include "base/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static atomic_int stop_count;

static void on_signal(int number)
{
    if (atomic_fetch_add(&stop_count, 1) > 0)
        _exit(128 + number);
}

void stop_init(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &action, NULL);
}

bool stop_requested(void)
{
    return atomic_load(&stop_count) > 0;
}
