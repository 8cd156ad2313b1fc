/* arena.h - memory that is freed all at once.
 *
 * Allocate by lifetime: one arena per process, or per batch with arena_reset between batches.
 * Memory: the arena owns all it hands out: uninitialised, 64-byte aligned, valid until arena_reset or arena_release.
 * Errors: arena_alloc returns NULL when memory or the arena's limit is exhausted. Not thread-safe. */
#ifndef BLIPLINE_BASE_ARENA_H
#define BLIPLINE_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *first, *current;
    size_t max_bytes;  /* 0: no limit */
    size_t used_bytes; /* handed out since the last reset, padding included */
};

void arena_init(struct arena *a, size_t max_bytes);
void arena_release(struct arena *a);
/* Invalidate all allocations; keep the blocks for reuse. */
void arena_reset(struct arena *a);
void *arena_alloc(struct arena *a, size_t bytes);
char *arena_strndup(struct arena *a, const char *s, size_t n);

#endif
