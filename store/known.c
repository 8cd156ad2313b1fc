#include "store/known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct known_entry {
    uint64_t low, high; /* of the item's hash; further items of the same hash get derived hashes */
    uint64_t stamp;     /* of size and time; 0: unknown */
    uint64_t item;
    uint32_t fields; /* hash of the fields; 0: items of this hash differ in them */
    uint32_t path;   /* hash of the path */
    bool used;
    uint8_t state;             /* enum known_state */
    uint32_t n_added, n_taken; /* of this hash; counted in its first entry */
};

static uint64_t stamp_of(const struct row_item *item)
{
    const uint64_t both[2] = {item->size_bytes, (uint64_t)item->mtime_ns};

    return item->size_bytes == 0 && item->mtime_ns == 0 ? 0 : XXH3_64bits(both, sizeof(both)) | 1;
}

/* Never 0. Lengths are hashed too, to keep adjacent values apart. */
static uint32_t fields_of(const struct row_item *item)
{
    uint64_t h = item->n_fields;

    for (uint32_t i = 0; i < item->n_fields; i++) {
        const struct row_field *f = &item->fields[i];

        h = XXH3_64bits_withSeed(f->name, f->name_bytes, h ^ f->name_bytes);
        h = XXH3_64bits_withSeed(f->value, f->value_bytes, h ^ f->value_bytes);
    }
    return (uint32_t)h | 1;
}

static uint32_t path_of(const struct row_item *item)
{
    return (uint32_t)XXH3_64bits(item->path, item->path_bytes);
}

/* True if the key is the end of the path, or was before a leading "./" was removed. */
static bool has_own_key(const struct row_item *item)
{
    const uint8_t *key = item->key;
    uint32_t n = item->key_bytes;

    while (n > 2 && key[0] == '.' && key[1] == '/') {
        key += 2;
        n -= 2;
    }
    return n > item->path_bytes || memcmp(item->path + item->path_bytes - n, key, n) != 0 ||
           (n < item->path_bytes && n > 0 && key[0] != '/' && item->path[item->path_bytes - n - 1] != '/');
}

/* `source`: of the item; 0: as in a store without sources. */
static XXH128_hash_t hash_of(const struct row_item *item, uint32_t source)
{
    XXH128_hash_t h;

    if (source && has_own_key(item))
        return XXH3_128bits_withSeed(item->key, item->key_bytes, source);
    h = XXH3_128bits(item->path, item->path_bytes);
    return has_own_key(item) ? XXH3_128bits_withSeed(item->key, item->key_bytes, h.low64) : h;
}

static bool same_bytes(const uint8_t *a, uint32_t n_a, const uint8_t *b, uint32_t n_b)
{
    return n_a == n_b && memcmp(a, b, n_a) == 0;
}

bool known_same(const struct row_item *is, const struct row_item *was)
{
    const bool own = has_own_key(is);

    if (own != has_own_key(was) || (own && !same_bytes(is->key, is->key_bytes, was->key, was->key_bytes)))
        return false;
    if (own && was->source)
        return is->source == was->source;
    return same_bytes(is->path, is->path_bytes, was->path, was->path_bytes);
}

unsigned known_changes(const struct row_item *was, const struct row_item *is)
{
    bool told = (was->size_bytes || was->mtime_ns) && (is->size_bytes || is->mtime_ns);
    unsigned changed = 0;

    if (told && (was->size_bytes != is->size_bytes || was->mtime_ns != is->mtime_ns))
        changed |= KNOWN_FILE;
    if ((was->n_fields || is->n_fields) && fields_of(was) != fields_of(is))
        changed |= KNOWN_FIELDS;
    if (!same_bytes(was->path, was->path_bytes, is->path, is->path_bytes))
        changed |= KNOWN_PATH;
    return changed;
}

/* The entry of this hash, or the free slot for it. */
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

/* The slot of the n-th item of a hash. */
static struct known_entry *nth(const struct known *k, XXH128_hash_t h, uint32_t n)
{
    const uint64_t all[3] = {h.low64, h.high64, n};

    if (n > 0)
        h = XXH3_128bits(all, sizeof(all));
    return slot(k, h.low64, h.high64);
}

int known_add(struct known *k, const struct row_item *item, enum known_state state)
{
    XXH128_hash_t h = hash_of(item, item->source);
    uint32_t fields = fields_of(item);
    struct known_entry *first, *e;

    if (k->n_entries * 3 >= k->n_slots * 2 && grow(k) < 0)
        return -ENOMEM;
    first = nth(k, h, 0);
    e = first->used ? nth(k, h, first->n_added) : first;
    if (e != first) {
        const uint64_t all[3] = {h.low64, h.high64, first->n_added};

        h = XXH3_128bits(all, sizeof(all));
    }
    *e = (struct known_entry){.low = h.low64,
                              .high = h.high64,
                              .stamp = stamp_of(item),
                              .item = item->item,
                              .fields = e == first || first->fields == fields ? fields : 0,
                              .path = path_of(item),
                              .used = true,
                              .state = (uint8_t)state};
    if (first->fields != fields)
        first->fields = 0;
    first->n_added++;
    k->n_entries++;
    return 0;
}

bool known_take(struct known *k, const struct row_item *item, struct known_found *ret)
{
    XXH128_hash_t h = hash_of(item, item->source);
    uint64_t stamp = stamp_of(item);
    struct known_entry *first = k->n_slots ? nth(k, h, 0) : NULL, *e;

    if ((!first || first->n_taken == first->n_added) && k->n_slots && item->source) {
        h = hash_of(item, 0);
        first = nth(k, h, 0);
    }
    if (!first || first->n_taken == first->n_added)
        return false;
    e = nth(k, h, first->n_taken++);
    *ret = (struct known_found){.item = e->item, .state = (enum known_state)e->state};
    if (stamp && e->stamp && stamp != e->stamp)
        ret->changed |= KNOWN_FILE;
    if (first->fields && first->fields != fields_of(item))
        ret->changed |= KNOWN_FIELDS;
    if (e->path != path_of(item))
        ret->changed |= KNOWN_PATH;
    return true;
}

void known_release(struct known *k)
{
    free(k->entries);
    *k = (struct known){0};
}
