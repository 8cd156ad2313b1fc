/* source.h - where images come from, as a stream of items in a reproducible order.
 *
 * A source argument is
 *   a folder   every picture below it by its extension (.jpg .jpeg .jpe .jfif .mpo .png .apng .webp in any case), in
 * bytewise order of the paths; hidden names are skipped, links to files are followed, links to folders are not (so
 * loops cannot arise); a file     that file, whatever its name;
 *   @list.txt  one path a line, relative to the list's folder or absolute; LF or CRLF; empty lines are skipped. Lines
 * are not looked at further: a file that is missing becomes an item, and fails with that reason. @- is standard input,
 *              it and pipes are relative to the working folder, and are JSONL where they begin with {. A folder or file
 *              whose name begins with @ is written ./@name;
 *   @list.csv, @list.tsv, @list.jsonl
 *              a table, by its extension: one row an item, with named columns. The picture is in the first of the
 * usual columns (source/table.c), or in the one that the caller names; `key` is the item's key (else the path as
 * written). What the caller asks for of the others becomes fields of the item. A row that is of no use becomes an item
 * with a problem.
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
    SOURCE_MAX_FIELDS = 64,                   /* of one item; a list of values is several */
    SOURCE_MAX_FIELD_BYTES = 16384,           /* of one value */
    SOURCE_MAX_ITEM_FIELD_BYTES = 128 * 1024, /* of all of them */
    SOURCE_MAX_ROW_BYTES = 16 << 20,          /* of a row in the file */
};

/* A value of a column, as text: of JSON also numbers, true and false. Empty cells of CSV and null have none. */
struct source_field {
    const char *name;  /* the caller's */
    const char *value; /* UTF-8, NUL-terminated as well */
    size_t value_bytes;
};

struct source_item {
    const char *key; /* path relative to the source; any byte but NUL, not necessarily UTF-8; NUL-terminated as well */
    size_t key_bytes;
    const char *path; /* absolute, NUL-terminated, less than PATH_MAX bytes; "": see problem */
    size_t path_bytes;
    uint64_t size_bytes; /* 0 where the file could not be examined (lists only) */
    int64_t mtime_ns;    /* 0 likewise */
    uint32_t n_fields;   /* tables alone; at most SOURCE_MAX_FIELDS */
    const struct source_field *fields;
    /* IMAGE_OK where there is a picture to look at. Else the row of a list is of no use by itself: the item has no
     * path, and this is to be its error, with these words. */
    enum image_error problem_code;
    const char *problem;
    uint32_t n_left_out; /* columns that are only kept, and hold what cannot be */
};

/* The columns that the caller wants as fields. The names are borrowed. */
struct source_columns {
    const char *const *names;
    uint32_t n;          /* at most SOURCE_MAX_COLUMNS */
    uint32_t n_kept;     /* of them, so many at the end are not used: what they have that is no text is left out */
    const char *picture; /* the column that names the picture; NULL: the first of the usual ones */
};

/* What a walk passes over. */
enum source_kind {
    SOURCE_OTHER_NAMES,    /* files without a picture's extension */
    SOURCE_HIDDEN,         /* names that begin with a dot */
    SOURCE_DANGLING_LINKS, /* symbolic links to nothing */
    SOURCE_LOOPING_LINKS,  /* symbolic links in a circle */
    SOURCE_LINKED_FOLDERS, /* symbolic links to folders */
    SOURCE_PIPES,          /* and sockets */
    SOURCE_DEVICES,
    SOURCE_UNREADABLE_LINKS, /* symbolic links that cannot be followed: no permission, ... */
    SOURCE_LONG_PATHS,       /* files and folders whose path would not fit PATH_MAX */
    SOURCE_UNREADABLE_FOLDERS,
    SOURCE_N_KINDS
};
/* "other_names", "hidden", ...: one word, never changed or reused. */
const char *source_kind_name(enum source_kind kind);
/* "other names", "hidden names", ...: for people. */
const char *source_kind_words(enum source_kind kind);

struct source_skipped {
    bool is_walk; /* else nothing can be passed over */
    uint64_t n[SOURCE_N_KINDS];
    struct err first_problem; /* in words, about the first of the last three; "" when there was none */
};

/* What a list is found to hold. */
struct source_summary {
    bool is_table;
    bool is_whole; /* all of it was read */
    uint64_t n_items;
    uint64_t n_left_out;    /* values of the columns that are only kept */
    uint64_t n_bad, n_urls; /* of them, rows that are of no use; and because the picture is somewhere on the network */
    struct err first_bad;
    uint64_t n_with[SOURCE_MAX_COLUMNS]; /* rows that have a value of wanted column i */
    char columns[160];                   /* the names of a table's columns in its first row, for messages */
};

/* -ENOENT and the like when the argument names nothing. `wanted` may be NULL. */
int source_open(const char *arg, const struct source_columns *wanted, struct source **ret,
                struct err *err) CHECK_RESULT;
/* Read the first max_rows rows of a list (0: all of it) without looking at its pictures, so that a broken line is known
 * before any work. Only that it is there is checked of folders and files; lists that can be read once alone (pipes, @-)
 * are not touched. */
int source_check(const char *arg, const struct source_columns *wanted, uint64_t max_rows, struct source_summary *ret,
                 struct err *err) CHECK_RESULT;
/* The absolute folder that the names of its items start from (PATH_MAX bytes): the folder itself, that of the file or
 * list, the working folder of a pipe. *ret_list: the file name of a list, in `arg`; NULL: it is none. */
int source_root(const char *arg, char *ret, const char **ret_list, struct err *err) CHECK_RESULT;
/* A list that a second pass would not find again: a pipe, @-. */
bool source_is_read_once(const char *arg);
/* 1: *ret is the next item. 0: there are no more. Negative: the source is broken (a list's line is named by its
 * number). */
int source_next(struct source *s, struct source_item *ret, struct err *err) CHECK_RESULT;
/* Counts so far; valid until source_free. */
const struct source_skipped *source_skipped(const struct source *s);
void source_free(struct source *s);

#endif
