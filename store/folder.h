/* folder.h - the folder of a store before LMDB opens it: its files and its owner.
 *
 * Who may call: env.c, in the thread that opens; anyone may call folder_owner and folder_check_unfinished.
 * Units: bytes. Memory: none is kept.
 * Errors: as store.h; `path` is the store's folder, and err names it or a file in it. */
#ifndef BLIPLINE_STORE_FOLDER_H
#define BLIPLINE_STORE_FOLDER_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* "path/name"; -ENAMETOOLONG. err may be NULL. */
int folder_name(char ret[PATH_MAX], const char *path, const char *name, struct err *err) CHECK_RESULT;

/* Check that it is a store or, with `create`, can become one; then the folder is made. LMDB's files must be regular
 * files or missing. */
int folder_check(const char *path, bool create, bool allow_network_fs, struct err *err) CHECK_RESULT;

/* *ret: true if the folder has no complete store: data.mdb or its first commit is missing, as after a crash during
 * creation. Then a new store can be made there. -EINVAL: it cannot, because the folder has other files. */
int folder_check_unfinished(const char *path, bool *ret, struct err *err) CHECK_RESULT;
bool folder_is_unfinished(int64_t data_bytes);

/* *ret_bytes: length of data.mdb; -1: missing. */
int folder_data_length(const char *path, int64_t *ret_bytes, struct err *err) CHECK_RESULT;

/* Lock `owner`. The caller releases the lock by closing *ret_fd (-1: not locked; also set on failure). */
int folder_lock(const char *path, bool write, int *ret_fd, struct err *err) CHECK_RESULT;

/* The process that has the store open for writing; 0: unknown. */
long folder_owner(const char *path);

/* True if readers can register in lock.mdb. */
bool folder_lock_file_usable(const char *path);

/* Remove the files of an unfinished creation. */
int folder_remove_unfinished(const char *path, bool create, struct err *err) CHECK_RESULT;

/* Remove the folder with its files; it may be missing. */
int folder_remove(const char *path, struct err *err) CHECK_RESULT;

/* Sync the folder. */
int folder_sync(const char *path, struct err *err) CHECK_RESULT;

#endif
