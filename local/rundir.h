/* rundir.h - the private folder of one run: configuration, socket and logs of the daemons.
 *
 * It is in $TMPDIR, or in /tmp if that is too long for a socket path (107 bytes), with mode 0700, and is removed when
 * the run ends. If a run was killed, the next run removes its folder, whose lock is free.
 * Who may call: one thread.
 * Units:  none. Memory: rundir_remove closes the lock. Errors: negative errno and `err`. */
#ifndef BLIPLINE_LOCAL_RUNDIR_H
#define BLIPLINE_LOCAL_RUNDIR_H

#include "base/err.h"

#include <stddef.h>

#define RUNDIR_MAX 88 /* leaves room for "/broker" and other names of the daemons */

struct rundir {
    char path[RUNDIR_MAX]; /* "": none */
    int lock_fd;
};

int rundir_create(struct rundir *r, struct err *err) CHECK_RESULT;
/* Remove the folder and its files. NULL is allowed, and so are repeated calls. */
void rundir_remove(struct rundir *r);
/* Release the lock but keep the files for the user to read; the next run removes them. */
void rundir_keep(struct rundir *r);
/* `path`, or a symbolic link to it in the folder if a configuration file cannot hold the path. */
int rundir_plain_path(const struct rundir *r, const char *path, const char *link, char *ret, size_t ret_size,
                      struct err *err) CHECK_RESULT;
/* "PATH/name"; returns ret. */
char *rundir_file(const struct rundir *r, const char *name, char *ret, size_t ret_size);

#endif
