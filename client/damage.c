#include "client/damage.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/cli.h"

static const char *watched_command, *watched_store;

/* Nothing but what a signal handler may call. */
static void on_crash(int number)
{
    const char *parts[] = {"blipline: ",
                           watched_command,
                           ": crashed while reading ",
                           watched_store,
                           number == SIGBUS ? "/data.mdb: a part of the file is missing, or cannot be read"
                                            : "/data.mdb: its pages are damaged",
                           "; blipline caption with another -o makes it anew, a copy of the folder brings it back\n"};
    struct iovec lines[sizeof(parts) / sizeof(parts[0])];

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        lines[i] = (struct iovec){.iov_base = (void *)(size_t)parts[i], .iov_len = strlen(parts[i])};
    (void)!writev(STDERR_FILENO, lines, (int)(sizeof(lines) / sizeof(lines[0])));
    _exit(CLI_EXIT_ERROR);
}

void damage_watch(const char *command, const char *store)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
    const struct sigaction action = {.sa_handler = on_crash};

    watched_command = command;
    watched_store = store;
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        (void)sigaction(crashes[i], &action, NULL);
#else
    (void)on_crash;
    watched_command = command;
    watched_store = store;
#endif
}
