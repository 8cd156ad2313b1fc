/* source.h - where images come from, as a stream of items in a reproducible order.
 *
 * A source argument is
 *   a folder   Every image below it by extension (.jpg .jpeg .jpe .jfif .mpo .png .apng .webp in any case), in bytewise
 *              order of the paths. Hidden names are skipped; links to files are followed, links to folders are not, so
 *              there are no loops.
 *   a file     That file, whatever its name.
 *   @list.txt  One path per line, absolute or relative to the list's folder; LF or CRLF; empty lines are skipped. Paths
 *              are not checked: a missing file becomes an item that fails. @- is standard input. Paths from standard
 *              input and pipes are relative to the working folder; if the first byte is {, they are read as JSONL. A
 *              folder or file whose name begins with @ is written ./@name.
 *   @list.csv, @list.tsv, @list.jsonl
 *              A table with named columns; each row is an item. The image's path is in the first of the usual columns
 *              (source/table.c) or in the column that the caller names. `key` is the item's key; without it, the path
 *              as written. Columns that the caller asks for become fields. An invalid row becomes an item that fails.
 *
 * Who may call: one thread per source.
 * Units:  sizes bytes, times nanoseconds since 1970 UTC.
 * Memory: the source owns what an item points to; it is valid until the next call on that source. A folder is read and
 *         sorted when the walk enters it: memory holds the names of the folders between the root and the current one,
 *         not of the tree.
 * Errors: negative errno and `err` (names in it may hold any byte). What a walk cannot use is skipped and counted. */
#ifndef BLIPLINE_SOURCE_SOURCE_H
#define BLIPLINE_SOURCE_SOURCE_H

#include "base/err.h"
#include "source/image_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source;

enum {
    SOURCE_MAX_COLUMNS = 32,
    SOURCE_MAX_FIELDS = 64,                   /* per item; a list of values counts as several */
    SOURCE_MAX_FIELD_BYTES = 16384,           /* per value */
    SOURCE_MAX_ITEM_FIELD_BYTES = 128 * 1024, /* per item, all values */
    SOURCE_MAX_ROW_BYTES = 16 << 20,          /* per row of the file */
};

/* A column's value as text; JSON numbers, true and false too. Empty CSV cells and null have no value. */
struct source_field {
    const char *name;  /* as the caller asked for it */
    const char *value; /* UTF-8, NUL-terminated as well */
    size_t value_bytes;
};

struct source_item {
    const char *key; /* path relative to the source; any byte but NUL, not necessarily UTF-8; NUL-terminated as well */
    size_t key_bytes;
    const char *path; /* absolute, NUL-terminated, less than PATH_MAX bytes; "": see problem_code */
    size_t path_bytes;
    uint64_t size_bytes; /* 0 if stat() failed (lists only) */
    int64_t mtime_ns;    /* 0 likewise */
    uint32_t n_fields;   /* tables only; at most SOURCE_MAX_FIELDS */
    const struct source_field *fields;
    /* IMAGE_OK for an item with a path. Otherwise its row of the list is invalid: the item has no path and fails
     * with this code and text. */
    enum image_error problem_code;
    const char *problem;
    uint32_t n_left_out; /* invalid values left out of columns that are only kept */
};

/* The columns that become fields. The names are borrowed. */
struct source_columns {
    const char *const *names;
    uint32_t n;          /* at most SOURCE_MAX_COLUMNS */
    uint32_t n_kept;     /* the last n_kept columns are only kept: their invalid values are left out */
    const char *picture; /* the column with the image's path; NULL: the first of the usual ones */
};

/* What a walk skips. */
enum source_kind {
    SOURCE_OTHER_NAMES,    /* files without an image extension */
    SOURCE_HIDDEN,         /* names that begin with a dot */
    SOURCE_DANGLING_LINKS, /* dangling symbolic links */
    SOURCE_LOOPING_LINKS,  /* symbolic link loops */
    SOURCE_LINKED_FOLDERS, /* symbolic links to folders */
    SOURCE_PIPES,          /* and sockets */
    SOURCE_DEVICES,
    SOURCE_UNREADABLE_LINKS, /* symbolic links that cannot be followed: no permission etc. */
    SOURCE_LONG_PATHS,       /* files and folders whose path would not fit PATH_MAX */
    SOURCE_UNREADABLE_FOLDERS,
    SOURCE_N_KINDS
};
/* "other_names", "hidden" etc.: one word, never changed or reused. */
const char *source_kind_name(enum source_kind kind);
/* "other names", "hidden names" etc.: for messages. */
const char *source_kind_words(enum source_kind kind);

struct source_skipped {
    bool is_walk; /* if false, nothing can be skipped */
    uint64_t n[SOURCE_N_KINDS];
    struct err first_problem; /* text about the first entry of the last three kinds, or "" */
};

/* The contents of a list. */
struct source_summary {
    bool is_table;
    bool is_whole; /* all rows were read */
    uint64_t n_items;
    uint64_t n_left_out;    /* invalid values left out of columns that are only kept */
    uint64_t n_bad, n_urls; /* rows that are invalid; of those, rows with a URL */
    struct err first_bad;
    uint64_t n_with[SOURCE_MAX_COLUMNS]; /* rows that have a value in column i */
    char columns[160];                   /* the names of a table's columns, for messages */
};

/* -ENOENT etc. if the argument names nothing. `wanted` may be NULL. */
int source_open(const char *arg, const struct source_columns *wanted, struct source **ret,
                struct err *err) CHECK_RESULT;
/* Reads the first max_rows rows of a list (0: all) without opening its images, to find invalid lines before the job
 * starts. For folders and files checks only that they exist; skips lists that can be read only once (pipes, @-). */
int source_check(const char *arg, const struct source_columns *wanted, uint64_t max_rows, struct source_summary *ret,
                 struct err *err) CHECK_RESULT;
/* The absolute folder that item names are relative to (PATH_MAX bytes): the folder itself, the folder of the file or
 * list, or for a pipe the working folder. *ret_list: a list's file name, inside `arg`; NULL if it is not a list. */
int source_root(const char *arg, char *ret, const char **ret_list, struct err *err) CHECK_RESULT;
/* True if it can be read only once: a pipe, @-. */
bool source_is_read_once(const char *arg);
/* Returns 1 and the next item, 0 at the end, or a negative errno (for a list, err names the line). */
int source_next(struct source *s, struct source_item *ret, struct err *err) CHECK_RESULT;
/* Counts so far; valid until source_free. */
const struct source_skipped *source_skipped(const struct source *s);
void source_free(struct source *s);

#endif
