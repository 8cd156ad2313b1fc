/* load.h - units to be done, read from a store, and the rows of their items for WORK messages.
 *
 * Who may call: units_read the committer's thread; the rest anybody. Units: bytes. Memory: see each function.
 * Errors: those of store.h. */
#ifndef BLIPLINE_BROKER_LOAD_H
#define BLIPLINE_BROKER_LOAD_H

#include "base/err.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The items of a unit as Item rows (proto/row.h), encoded once for all leases. One allocation, for free(). */
struct unit_rows {
    uint64_t first_item;
    uint32_t n_items;
    uint32_t size_bytes;
    uint64_t picture_bytes; /* of a job whose client sends them */
    const uint8_t *bytes;
    uint32_t ends[]; /* [n_items] where in bytes the row of each item ends */
};

/* Where the row of item `i` begins. */
static inline uint32_t unit_rows_start(const struct unit_rows *u, uint32_t i)
{
    return i ? u->ends[i - 1] : 0;
}

struct units_read {
    struct store_pending *pending; /* [n] */
    struct unit_rows **rows;       /* [n]; set an element to NULL to keep what it points to */
    size_t n;
    bool exhausted; /* there are no more units to do now */
    bool waits;     /* units that follow wait for their pictures */
};

/* Read units from `from_unit` on: max_units at most, and no more once their rows take max_bytes. */
int units_read(struct store *s, uint32_t from_unit, uint32_t max_units, size_t max_bytes, struct units_read **ret,
               struct err *err) CHECK_RESULT;
void units_read_free(struct units_read *l); /* NULL is fine */

#endif
