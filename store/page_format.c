#include "store/page_format.h"

#include <string.h>

struct page_head page_head(const uint8_t *page)
{
    struct page_head h;

    memcpy(&h, page, sizeof(h));
    return h;
}

size_t page_n_nodes(const struct page_head *h)
{
    return (h->lower - sizeof(*h)) / sizeof(uint16_t);
}

bool page_has_bounds(const struct page_head *h, size_t n_bytes)
{
    return sizeof(*h) <= h->lower && h->lower <= h->upper && h->upper <= n_bytes;
}

bool page_node(const uint8_t *page, size_t n_bytes, size_t i, bool branch, struct page_node *ret)
{
    const struct page_head h = page_head(page);
    uint16_t at, f[4]; /* two halves of a size, flags, bytes of the key */
    size_t size, left;

    memcpy(&at, page + sizeof(h) + i * sizeof(at), sizeof(at));
    if (at < h.upper || at + sizeof(f) > n_bytes)
        return false;
    memcpy(f, page + at, sizeof(f));
    left = n_bytes - at - sizeof(f);
    if (f[3] > left)
        return false;
    left -= f[3];
    size = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? f[0] | (size_t)f[1] << 16 : f[1] | (size_t)f[0] << 16;
    *ret = (struct page_node){.key = {page + at + sizeof(f), f[3]}};
    if (branch) {
        ret->child = sizeof(size_t) > 4 ? size | (size_t)f[2] << 16 << 16 : size;
        return true;
    }
    ret->flags = f[2];
    ret->value_bytes = size;
    ret->data = (struct page_bytes){ret->key.data + ret->key.n, f[2] & NODE_BIG ? sizeof(size_t) : size};
    return ret->data.n <= left;
}

size_t page_node_room(const struct page_node *n)
{
    return (4 * sizeof(uint16_t) + n->key.n + n->data.n + 1) & ~(size_t)1;
}

size_t page_word(struct page_bytes b)
{
    size_t n = 0;

    memcpy(&n, b.data, sizeof(n));
    return n;
}
