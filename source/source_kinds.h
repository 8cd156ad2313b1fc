/* source_kinds.h - the kinds of source behind source.h; private to source/.
 *
 * Units, memory, errors: as in source.h. */
#ifndef BLIPLINE_SOURCE_SOURCE_KINDS_H
#define BLIPLINE_SOURCE_SOURCE_KINDS_H

#include "source/source.h"

#include <stdbool.h>

struct source {
    int (*next)(struct source *s, struct source_item *ret, struct err *err);
    void (*free)(struct source *s); /* frees the contents and s */
    bool is_table;
    struct source_skipped skipped;
};

/* `path` is absolute, shorter than PATH_MAX, without a slash at the end (except "/"). `arg` is what the user wrote. */
int source_walk_open(const char *path, const char *arg, struct source **ret, struct err *err) CHECK_RESULT;
int source_file_open(const char *path, const char *arg, struct source **ret, struct err *err) CHECK_RESULT;
/* arg[0] == '@'. `examine`: stat() the images. */
int source_list_open(const char *arg, const struct source_columns *wanted, bool examine, struct source **ret,
                     struct err *err) CHECK_RESULT;
struct lines;
/* True if the list is a table, by its extension or, for a pipe, by its first byte. */
bool source_is_table(const char *path, const struct lines *lines);
/* An error if the list has the extension of an unsupported kind of table. */
int source_table_refused(const char *path, struct err *err) CHECK_RESULT;
/* Takes ownership of the open `lines`, also on failure. */
int source_table_open(const char *path, const struct lines *lines, const struct source_columns *wanted, bool examine,
                      struct source **ret, struct err *err) CHECK_RESULT;
/* The column names of a table's last row, for a message; "" if the list is not a table. */
void source_table_columns(const struct source *s, char *ret, size_t size);
/* Fills in size and time of the file at item->path if stat() succeeds. */
void source_examine(struct source_item *item);

/* Writes `name` below the absolute folder `base`, or `name` itself if absolute, to ret[PATH_MAX]. -ENAMETOOLONG. */
int source_join(const char *base, const char *name, char *ret) CHECK_RESULT;
/* The same below the working folder, which is read only if needed: its path may be too long. */
int source_absolute(const char *name, char *ret, struct err *err) CHECK_RESULT;

#endif
