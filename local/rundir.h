/* rundir.h - the private folder of one run: configuration, socket and logs of the daemons.
 *
 * It lives in $TMPDIR (or /tmp where that is too long: a socket's path has at most 107 bytes) with mode 0700, and goes
 * when the run ends. A run that was killed leaves its folder; the next run sees that nobody holds its lock and removes
 * it. Who may call: one thread.
 * Units:  none. Memory: nothing to free but the lock's descriptor (rundir_remove). Errors: negative errno and `err`. */
#ifndef BLIPLINE_LOCAL_RUNDIR_H
#define BLIPLINE_LOCAL_RUNDIR_H

#include "base/err.h"

#include <stddef.h>

#define RUNDIR_MAX 88 /* leaves room for "/broker" and what daemons put beside it */

struct rundir {
    char path[RUNDIR_MAX]; /* "": there is none */
    int lock_fd;
};

int rundir_create(struct rundir *r, struct err *err) CHECK_RESULT;
/* Remove the folder and the files in it. NULL-safe and repeatable. */
void rundir_remove(struct rundir *r);
/* Give up the lock but leave the files, for the user to read; the next run removes them. */
void rundir_keep(struct rundir *r);
/* `path`, or where a value of a configuration file could not hold it, a link of that name in the folder. */
int rundir_plain_path(const struct rundir *r, const char *path, const char *link, char *ret, size_t ret_size,
                      struct err *err) CHECK_RESULT;
/* "PATH/name"; returns ret. */
char *rundir_file(const struct rundir *r, const char *name, char *ret, size_t ret_size);

#endif
