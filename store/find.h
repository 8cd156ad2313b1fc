/* find.h - what a client asks of a store before it sends its items: the sources, and the items of some keys.
 *
 * Who may call: one thread; that of the store, with store_find.
 * Units:  rows. Memory: rows are appended to the caller's buf, whose limit holds. Errors: as store.h. */
#ifndef BLIPLINE_STORE_FIND_H
#define BLIPLINE_STORE_FIND_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct reader;
struct store;

/* Source rows of all sources, by number. */
int find_sources(struct reader *r, struct buf *ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;
/* The items that have one of these keys, by number: Item rows with source, size and time, without paths and fields. As
 * many as the limit of `ret` allows, MSG_MAX_FOUND_ITEMS at most. `keys` are 1 to MSG_MAX_FIND_KEYS Item rows. Reads
 * only those rows of the manifest that the table `keys` does not cover yet. -EINVAL: the rows make no sense. */
int find_items(struct reader *r, const struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n,
               struct err *err) CHECK_RESULT;
/* Either, of what is committed in a store that is open here: sources, or the items of `keys`. */
int store_find(struct store *s, bool sources, const struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n,
               struct err *err) CHECK_RESULT;

#endif
