/* push.h - pictures that a job's client has sent. They lie in files of the store's folder, one for each unit, until the
 * unit is done: pushed-XXXXXXXX, the unit's number in hex digits. Such a file begins with two numbers for each item of
 * the unit, uint64 little endian: where its bytes end, counted from behind these numbers, and whether they are an error
 * (code, NUL, message) instead of a picture. meta["pushed"] says how many items have their pictures.
 *
 * Who may call: as store.h; store_push_file anybody. Units: bytes. Memory: see the functions.
 * Errors: those of store.h. */
#ifndef BLIPLINE_STORE_PUSH_H
#define BLIPLINE_STORE_PUSH_H

#include "store/store.h"

#include <limits.h>

/* Of one picture, and of all pictures of a unit. */
#define PUSH_MAX_PICTURE_BYTES ((uint64_t)1 << 30)
#define PUSH_MAX_UNIT_BYTES ((uint64_t)2 << 30)
/* A unit ends once its pictures take so much by the manifest. */
#define PUSH_UNIT_BYTES ((uint64_t)32 << 20)

/* Within a transaction: the next pictures, as in JobPush. `rows` is a row frame of n_rows Item rows, `data` their bytes
 * from `offset` of the first picture on. -EAGAIN: the pictures before are not here (yet). -EINVAL, -EMSGSIZE: nothing
 * has changed. -ENOSPC: the transaction must be aborted, as after other errors. */
int store_push(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, uint64_t offset, const void *data,
               size_t n_data, struct err *err) CHECK_RESULT;
/* Items whose pictures are here, durably. */
uint64_t store_n_pushed(const struct store *s);
/* True if units wait for their pictures. */
bool store_push_waits(const struct store *s);
/* Append Item rows, with absolute paths, of the next pictures: a thousand, or a few more. *ret_n 0: all are here. */
int store_push_wanted(struct store *s, struct buf *ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;
/* The unit is done, durably: its pictures are not needed any more. */
void store_push_drop(struct store *s, uint32_t unit);
/* The file of a unit, and where its pictures begin. */
int store_push_file(const char *store_path, uint32_t unit, char ret[PATH_MAX]) CHECK_RESULT;
uint64_t store_push_head_bytes(uint32_t n_items);

#endif
