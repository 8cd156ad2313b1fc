/* source_kinds.h - the three kinds of source behind source.h; nobody else includes this.
 *
 * Units, memory, errors: as in source.h. */
#ifndef BLIPLINE_SOURCE_SOURCE_KINDS_H
#define BLIPLINE_SOURCE_SOURCE_KINDS_H

#include "source/source.h"

struct source {
    int (*next)(struct source *s, struct source_item *ret, struct err *err);
    void (*free)(struct source *s); /* contents and s */
    struct source_skipped skipped;
};

/* `path` is absolute, shorter than PATH_MAX, without a slash at the end (but for "/"). `arg` is what the user wrote. */
int source_walk_open(const char *path, const char *arg, struct source **ret, struct err *err) CHECK_RESULT;
int source_file_open(const char *path, const char *arg, struct source **ret, struct err *err) CHECK_RESULT;
/* arg[0] == '@' */
int source_list_open(const char *arg, struct source **ret, struct err *err) CHECK_RESULT;

/* `name` below the absolute folder `base`, or name itself when absolute, into ret[PATH_MAX]. -ENAMETOOLONG. */
int source_join(const char *base, const char *name, char *ret) CHECK_RESULT;
/* The same below the working folder, which is asked for only when it is needed: it may have no path that fits. */
int source_absolute(const char *name, char *ret, struct err *err) CHECK_RESULT;

#endif
