/* signal_storm.c - a library to preload: a thousand signals a second to the main thread and to the process, with a
 * handler that nobody has given a stack of its own. One that interrupts any other thread than that for signals ends
 * the process with exit code 99. It begins when the main thread has blocked the signal, at the latest after ten
 * seconds. */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void on_signal(int number)
{
    char name[16] = "";

    (void)number;
    (void)prctl(PR_GET_NAME, name);
    if (strcmp(name, "signals") != 0)
        _exit(99);
}

/* While a thread starts another one, the C library blocks them all for a moment: that is not meant. */
static bool is_blocked(void)
{
    FILE *f = fopen("/proc/self/status", "re"); /* the main thread's */
    unsigned long long mask = 0;
    char line[256];

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "SigBlk: %llx", &mask) == 1)
            break;
    if (f)
        (void)fclose(f);
    return (mask >> (SIGUSR1 - 1) & 1) && !(mask >> (SIGABRT - 1) & 1);
}

static void *storm(void *unused)
{
    sigset_t all;

    (void)unused;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int i = 0; i < 1000 && !is_blocked(); i++)
        (void)usleep(10000);
    for (;;) {
        (void)usleep(500);
        (void)syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
        (void)usleep(500);
        (void)kill(getpid(), SIGUSR1);
    }
    return NULL;
}

__attribute__((constructor)) static void begin(void)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    pthread_t thread;

    (void)sigaction(SIGUSR1, &action, NULL);
    (void)pthread_create(&thread, NULL, storm, NULL);
}
