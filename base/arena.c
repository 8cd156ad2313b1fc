#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_ALIGN = 64, ARENA_BLOCK_MIN = 64 * 1024 };

struct arena_block {
    struct arena_block *next;
    size_t capacity, used;
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){.max_bytes = max_bytes};
}

void arena_release(struct arena *a)
{
    struct arena_block *next;

    for (struct arena_block *b = a->first; b; b = next) {
        next = b->next;
        free(b);
    }
    arena_init(a, a->max_bytes);
}

void arena_reset(struct arena *a)
{
    for (struct arena_block *b = a->first; b; b = b->next)
        b->used = 0;
    a->current = a->first;
    a->used_bytes = 0;
}

static struct arena_block *block_with_room(struct arena *a, size_t bytes)
{
    struct arena_block *b = a->current, *fresh;
    size_t capacity;

    while (b && b->capacity - b->used < bytes && b->next)
        b = b->next;
    if (b && b->capacity - b->used >= bytes)
        return b;
    capacity = b ? b->capacity * 2 : ARENA_BLOCK_MIN;
    if (capacity < bytes)
        capacity = bytes;
    if (capacity > SIZE_MAX - sizeof(*fresh) - ARENA_ALIGN)
        return NULL;
    /* aligned_alloc requires a multiple of the alignment */
    fresh = aligned_alloc(ARENA_ALIGN, (sizeof(*fresh) + capacity + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN);
    if (!fresh)
        return NULL;
    *fresh = (struct arena_block){.capacity = capacity};
    if (b)
        b->next = fresh;
    else
        a->first = fresh;
    return fresh;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    struct arena_block *b;
    void *p;

    if (bytes > SIZE_MAX / 4)
        return NULL;
    bytes = (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (a->max_bytes && bytes > a->max_bytes - a->used_bytes)
        return NULL;
    b = block_with_room(a, bytes);
    if (!b)
        return NULL;
    p = b->data + b->used;
    b->used += bytes;
    a->used_bytes += bytes;
    a->current = b;
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *copy = arena_alloc(a, n + 1);

    if (!copy)
        return NULL;
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}
