/* spawn.h - start a child process that does not outlive this one.
 *
 * The child has its own process group, so that Ctrl-C does not reach it. It gets SIGTERM when this process ends in any
 * way, and inherits only the descriptors 0 (/dev/null), 1 and 2 (the log).
 * Who may call: the main thread, which must live as long as the children (PR_SET_PDEATHSIG depends on the thread).
 * Units:  none. Memory: nothing is kept.
 * Errors: negative errno; err names the program, also if exec failed. */
#ifndef BLIPLINE_LOCAL_SPAWN_H
#define BLIPLINE_LOCAL_SPAWN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct spawn {
    const char *program;     /* a path */
    const char *const *args; /* NULL-terminated, including args[0] */
    const char *const *env;  /* NULL-terminated "NAME=value", added to the environment */
    int out_fd;              /* becomes 1; -1: the log */
    int log_fd;              /* becomes 2 */
};

int spawn_start(const struct spawn *s, pid_t *ret_pid, struct err *err) CHECK_RESULT;
/* The path of `name` beside the running program. -ENOENT: not found; err names the cure. */
int spawn_find(const char *name, char *ret, size_t ret_size, struct err *err) CHECK_RESULT;
/* The parent of a process, or -1 if there is no such process. */
long spawn_parent(long pid);
/* True if it runs the same program file as this process. */
bool spawn_is_same_program(long pid);
/* "ended with code 70", "was killed by signal 9 (Killed)": a wait status in words. */
char *spawn_status_text(int status, char *ret, size_t ret_size);

#endif
