#include "client/known.h"

#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

struct known_entry {
    uint64_t low, high; /* of the path's hash */
    uint64_t stamp;     /* of size and time; 0: unknown */
    uint32_t count;     /* how often; 0 once taken */
    uint32_t used;
};

static uint64_t stamp_of(uint64_t size_bytes, int64_t mtime_ns)
{
    const uint64_t both[2] = {size_bytes, (uint64_t)mtime_ns};

    return size_bytes == 0 && mtime_ns == 0 ? 0 : XXH3_64bits(both, sizeof(both)) | 1;
}

/* The entry of this hash, or the free slot where it belongs. */
static struct known_entry *slot(const struct known *k, uint64_t low, uint64_t high)
{
    size_t i = low & (k->n_slots - 1);

    while (k->entries[i].used && (k->entries[i].low != low || k->entries[i].high != high))
        i = (i + 1) & (k->n_slots - 1);
    return &k->entries[i];
}

static int grow(struct known *k)
{
    struct known bigger = {.n_slots = k->n_slots ? k->n_slots * 2 : 1024, .n_entries = k->n_entries};

    bigger.entries = calloc(bigger.n_slots, sizeof(*bigger.entries));
    if (!bigger.entries)
        return -ENOMEM;
    for (size_t i = 0; i < k->n_slots; i++) {
        if (k->entries[i].used)
            *slot(&bigger, k->entries[i].low, k->entries[i].high) = k->entries[i];
    }
    free(k->entries);
    *k = bigger;
    return 0;
}

int known_add(struct known *k, const void *path, size_t path_bytes, uint64_t size_bytes, int64_t mtime_ns)
{
    XXH128_hash_t h = XXH3_128bits(path, path_bytes);
    struct known_entry *e;

    if (k->n_entries * 3 >= k->n_slots * 2 && grow(k) < 0)
        return -ENOMEM;
    e = slot(k, h.low64, h.high64);
    if (!e->used) {
        *e = (struct known_entry){.low = h.low64, .high = h.high64, .used = 1};
        k->n_entries++;
    }
    e->stamp = stamp_of(size_bytes, mtime_ns);
    e->count++;
    return 0;
}

bool known_take(struct known *k, const void *path, size_t path_bytes, uint64_t size_bytes, int64_t mtime_ns,
                bool *ret_changed)
{
    XXH128_hash_t h = XXH3_128bits(path, path_bytes);
    uint64_t stamp = stamp_of(size_bytes, mtime_ns);
    struct known_entry *e = k->n_slots ? slot(k, h.low64, h.high64) : NULL;

    if (!e || !e->used || e->count == 0)
        return false;
    e->count--;
    *ret_changed = stamp && e->stamp && stamp != e->stamp;
    return true;
}

void known_release(struct known *k)
{
    free(k->entries);
    *k = (struct known){0};
}
