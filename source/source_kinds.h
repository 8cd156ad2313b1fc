/* source_kinds.h - the kinds of source behind source.h; nobody else includes this.
 *
 * Units, memory, errors: as in source.h. */
#ifndef BLIPLINE_SOURCE_SOURCE_KINDS_H
#define BLIPLINE_SOURCE_SOURCE_KINDS_H

#include "source/source.h"

#include <stdbool.h>

struct source {
    int (*next)(struct source *s, struct source_item *ret, struct err *err);
    void (*free)(struct source *s); /* contents and s */
    bool is_table;
    struct source_skipped skipped;
};

/* `path` is absolute, shorter than PATH_MAX, without a slash at the end (but for "/"). `arg` is what the user wrote. */
int source_walk_open(const char *path, const char *arg, struct source **ret, struct err *err) CHECK_RESULT;
int source_file_open(const char *path, const char *arg, struct source **ret, struct err *err) CHECK_RESULT;
/* arg[0] == '@'. `examine`: find out the pictures' sizes. */
int source_list_open(const char *arg, const struct source_columns *wanted, bool examine, struct source **ret,
                     struct err *err) CHECK_RESULT;
struct lines;
/* Is the list a table? Its name says so, or, where it has none that says anything (a pipe), its first byte. */
bool source_is_table(const char *path, const struct lines *lines);
/* A list whose name says that it is a kind of table which is not read. */
int source_table_refused(const char *path, struct err *err) CHECK_RESULT;
/* Takes the open `lines` over, also when it fails. */
int source_table_open(const char *path, const struct lines *lines, const struct source_columns *wanted, bool examine,
                      struct source **ret, struct err *err) CHECK_RESULT;
/* The names of the columns of a table's last row, for a message; "" for a list that is no table. */
void source_table_columns(const struct source *s, char *ret, size_t size);
/* Fill in size and time of the file at item->path, where it can be examined. */
void source_examine(struct source_item *item);

/* `name` below the absolute folder `base`, or name itself when absolute, into ret[PATH_MAX]. -ENAMETOOLONG. */
int source_join(const char *base, const char *name, char *ret) CHECK_RESULT;
/* The same below the working folder, which is asked for only when it is needed: it may have no path that fits. */
int source_absolute(const char *name, char *ret, struct err *err) CHECK_RESULT;

#endif
