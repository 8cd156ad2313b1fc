/* core_table.h - the two containers of the core: a hash map, and a heap whose members store their own index.
 *
 * Who may call: broker/core*.c. Units: heap keys are whatever the owner compares, smallest first.
 * Memory: both grow by doubling and never shrink; they own no values. Errors: -ENOMEM, nothing has changed. */
#ifndef BLIPLINE_BROKER_CORE_TABLE_H
#define BLIPLINE_BROKER_CORE_TABLE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* uint64 (not 0) -> pointer (not NULL). Open addressing, linear probing, at most 2/3 full. Zeroed: empty. */
struct core_map {
    struct core_map_slot {
        uint64_t key; /* 0: free */
        void *value;
    } * slots;
    size_t capacity; /* a power of two, or 0 */
    size_t n;
};

uint64_t core_mix64(uint64_t x);

void core_map_release(struct core_map *m);
void *core_map_get(const struct core_map *m, uint64_t key);
/* The key must not be there. */
int core_map_put(struct core_map *m, uint64_t key, void *value) CHECK_RESULT;
/* The value that was there, or NULL. */
void *core_map_take(struct core_map *m, uint64_t key);
/* All values one after the other, *at 0 at first; NULL at the end. Nothing may be put or taken meanwhile. */
void *core_map_next(const struct core_map *m, size_t *at);

/* Smallest key first. `*place` is the member's index + 1, 0 outside; one field a heap a member. Zeroed: empty. */
struct core_heap {
    struct core_heap_entry {
        int64_t key;
        uint32_t *place;
        void *item;
    } * entries;
    size_t n, capacity;
};

void core_heap_release(struct core_heap *h);
/* Insert, or move to where `key` belongs. Only inserting can fail. */
int core_heap_set(struct core_heap *h, uint32_t *place, int64_t key, void *item) CHECK_RESULT;
/* Remove, if it is in the heap. */
void core_heap_remove(struct core_heap *h, uint32_t *place);
void core_heap_validate(const struct core_heap *h);

#endif
