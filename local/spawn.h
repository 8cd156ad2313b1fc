/* spawn.h - start a program as a child that cannot outlive us.
 *
 * The child leads its own process group (Ctrl-C in the terminal reaches us alone), gets SIGTERM when we die however we
 * die, and inherits no descriptor but 0 (/dev/null), 1 and 2 (the log). Who may call: the main thread, which must live
 * as long as the children (PR_SET_PDEATHSIG looks at the thread).
 * Units:  none. Memory: nothing is kept.
 * Errors: negative errno; -ENOENT and the like name the program, also when it was exec that failed. */
#ifndef BLIPLINE_LOCAL_SPAWN_H
#define BLIPLINE_LOCAL_SPAWN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct spawn {
    const char *program;     /* a path */
    const char *const *args; /* NULL-ended, args[0] included */
    const char *const *env;  /* NULL-ended "NAME=value" on top of ours */
    int out_fd;              /* becomes 1; -1: the log */
    int log_fd;              /* becomes 2 */
};

int spawn_start(const struct spawn *s, pid_t *ret_pid, struct err *err) CHECK_RESULT;
/* The path of `name` beside the running program. -ENOENT with the way out when it is not there. */
int spawn_find(const char *name, char *ret, size_t ret_size, struct err *err) CHECK_RESULT;
/* The parent of a process; -1: there is no such process. */
long spawn_parent(long pid);
/* Does it run the program file that we run? */
bool spawn_is_same_program(long pid);
/* "ended with code 70", "was killed by signal 9 (Killed)": a wait status in words. */
char *spawn_status_text(int status, char *ret, size_t ret_size);

#endif
