#include "broker/core_table.h"

#include "base/grow.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* splitmix64's finaliser: every input bit moves every output bit. */
uint64_t core_mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void core_map_release(struct core_map *m)
{
    free(m->slots);
    *m = (struct core_map){0};
}

/* The slot of the key, or the free one where it would go. */
static size_t find_slot(const struct core_map *m, uint64_t key)
{
    size_t i = core_mix64(key) & (m->capacity - 1);

    while (m->slots[i].key != 0 && m->slots[i].key != key)
        i = (i + 1) & (m->capacity - 1);
    return i;
}

void *core_map_get(const struct core_map *m, uint64_t key)
{
    if (m->n == 0 || key == 0)
        return NULL;
    return m->slots[find_slot(m, key)].value;
}

static int map_grow(struct core_map *m)
{
    struct core_map bigger = {.capacity = m->capacity ? m->capacity * 2 : 16, .n = m->n};

    bigger.slots = calloc(bigger.capacity, sizeof(bigger.slots[0]));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->capacity; i++)
        if (m->slots[i].key != 0)
            bigger.slots[find_slot(&bigger, m->slots[i].key)] = m->slots[i];
    free(m->slots);
    *m = bigger;
    return 0;
}

int core_map_put(struct core_map *m, uint64_t key, void *value)
{
    size_t i;

    assert(key != 0 && value);
    if ((m->n + 1) * 3 > m->capacity * 2) {
        int rc = map_grow(m);

        if (rc < 0)
            return rc;
    }
    i = find_slot(m, key);
    assert(m->slots[i].key == 0);
    m->slots[i] = (struct core_map_slot){key, value};
    m->n++;
    return 0;
}

void *core_map_next(const struct core_map *m, size_t *at)
{
    while (*at < m->capacity) {
        const struct core_map_slot *slot = &m->slots[(*at)++];

        if (slot->key)
            return slot->value;
    }
    return NULL;
}

void *core_map_take(struct core_map *m, uint64_t key)
{
    size_t i, j, mask = m->capacity - 1;
    void *value;

    if (m->n == 0 || key == 0)
        return NULL;
    i = find_slot(m, key);
    value = m->slots[i].value;
    if (!value)
        return NULL;
    /* Close the gap, so that no probe stops early: move back an entry that may be stored at i. */
    for (j = (i + 1) & mask; m->slots[j].key != 0; j = (j + 1) & mask) {
        size_t home = core_mix64(m->slots[j].key) & mask;

        if (((j - home) & mask) >= ((j - i) & mask)) {
            m->slots[i] = m->slots[j];
            i = j;
        }
    }
    m->slots[i] = (struct core_map_slot){0};
    m->n--;
    return value;
}

void core_heap_release(struct core_heap *h)
{
    free(h->entries);
    *h = (struct core_heap){0};
}

static void put_at(struct core_heap *h, size_t i, struct core_heap_entry e)
{
    h->entries[i] = e;
    *e.place = (uint32_t)i + 1;
}

static void sift(struct core_heap *h, size_t i)
{
    struct core_heap_entry e = h->entries[i];

    while (i > 0 && h->entries[(i - 1) / 2].key > e.key) {
        put_at(h, i, h->entries[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;

        if (child + 1 < h->n && h->entries[child + 1].key < h->entries[child].key)
            child++;
        if (child >= h->n || h->entries[child].key >= e.key)
            break;
        put_at(h, i, h->entries[child]);
        i = child;
    }
    put_at(h, i, e);
}

int core_heap_set(struct core_heap *h, uint32_t *place, int64_t key, void *item)
{
    size_t i;

    if (*place == 0) {
        if (grow_array(&h->entries, &h->capacity, h->n, sizeof(*h->entries), 16) < 0)
            return -ENOMEM;
        *place = (uint32_t)++h->n;
    }
    i = *place - 1;
    h->entries[i] = (struct core_heap_entry){key, place, item};
    sift(h, i);
    return 0;
}

void core_heap_remove(struct core_heap *h, uint32_t *place)
{
    size_t i = *place;

    if (i == 0)
        return;
    *place = 0;
    h->n--;
    if (--i < h->n) {
        h->entries[i] = h->entries[h->n];
        sift(h, i);
    }
}

void core_heap_validate(const struct core_heap *h)
{
    for (size_t i = 0; i < h->n; i++) {
        assert(*h->entries[i].place == i + 1);
        assert(i == 0 || h->entries[(i - 1) / 2].key <= h->entries[i].key);
    }
}
