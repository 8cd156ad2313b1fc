/* folder.h - a store's folder before there is an LMDB environment: what may be in it, who owns it.
 *
 * Who may call: env.c, in the thread that opens; anybody folder_owner and folder_check_unfinished.
 * Units: bytes. Memory: none is kept.
 * Errors: as store.h; `path` is the store's folder, and err names it or the file in it. */
#ifndef BLIPLINE_STORE_FOLDER_H
#define BLIPLINE_STORE_FOLDER_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* "path/name"; -ENAMETOOLONG. err may be NULL. */
int folder_name(char ret[PATH_MAX], const char *path, const char *name, struct err *err) CHECK_RESULT;

/* Is it a store, or can it become one (create: the folder is made)? LMDB's files are regular files, or not there. */
int folder_check(const char *path, bool create, bool allow_network_fs, struct err *err) CHECK_RESULT;

/* *ret: no store was ever completed in this folder: data.mdb is missing, or its first commit is, which is what a crash
 * during creation leaves. A new store may be made there. -EINVAL: it may not, since the folder has other files. */
int folder_check_unfinished(const char *path, bool *ret, struct err *err) CHECK_RESULT;
bool folder_is_unfinished(int64_t data_bytes);

/* *ret_bytes: length of data.mdb, -1 where there is none. */
int folder_data_length(const char *path, int64_t *ret_bytes, struct err *err) CHECK_RESULT;

/* Take the lock on `owner`, which the caller gives back by closing *ret_fd (-1: none was taken; set on failure too). */
int folder_lock(const char *path, bool write, int *ret_fd, struct err *err) CHECK_RESULT;

/* The process whose broker has the store open for writing; 0: not known. */
long folder_owner(const char *path);

/* May readers register in lock.mdb? */
bool folder_lock_file_usable(const char *path);

/* The creation was cut short: remove what it left. */
int folder_remove_unfinished(const char *path, bool create, struct err *err) CHECK_RESULT;

/* Make names in the folder durable. */
int folder_sync(const char *path, struct err *err) CHECK_RESULT;

#endif
