#include "console/crash_handler.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "console/answer.h"
#include "console/cli.h"

static const char *watched_command, *watched_store;

/* Async-signal-safe. The process exits with the code of an error; a forked copy dies of the signal to leave a core dump
 * for debugging. */
static void on_crash(int number)
{
    pid_t copy;

    const char *parts[] = {"blipline: ",
                           watched_command,
                           ": crashed while reading ",
                           watched_store,
                           "/data.mdb: ",
                           number == SIGBUS
                               ? "a part of the file is missing, or cannot be read\n"
                               : "its pages are damaged; if `blipline verify` finds it sound, this is a bug of "
                                 "blipline\n"};
    struct iovec lines[sizeof(parts) / sizeof(parts[0])];

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        lines[i] = (struct iovec){.iov_base = (void *)(uintptr_t)parts[i], .iov_len = strlen(parts[i])};
    (void)!write(STDOUT_FILENO, answer_of_crash(), strlen(answer_of_crash()));
    (void)!writev(STDERR_FILENO, lines, (int)(sizeof(lines) / sizeof(lines[0])));
    copy = _Fork();
    if (copy == 0)
        (void)raise(number); /* no longer handled */
    if (copy > 0)
        (void)waitpid(copy, NULL, 0);
    _exit(CLI_EXIT_ERROR);
}

void crash_handler_install(const char *command, const char *store)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE};
    static char apart[64 << 10]; /* the stack may have overflowed */
    const stack_t stack = {.ss_sp = apart, .ss_size = sizeof(apart)};
    const struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER | SA_ONSTACK)};

    (void)sigaltstack(&stack, NULL);
    watched_command = command;
    watched_store = store;
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        (void)sigaction(crashes[i], &action, NULL);
#else
    (void)command;
    (void)store;
    (void)on_crash;
#endif
}
