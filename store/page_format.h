/* page_format.h - the format of LMDB's pages, with checks before their contents are used. Inside store/ only.
 *
 * As in mdb.c, data version 1, in this machine's word size and byte order. Structs are copied out, because pages may be
 * unaligned.
 * Who may call: pages.c, in any thread. Units: bytes. Memory: what a node points to lies in its page. Errors: false. */
#ifndef BLIPLINE_STORE_PAGE_FORMAT_H
#define BLIPLINE_STORE_PAGE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define META_MAGIC 0xBEEFC0DEu
enum { META_VERSION = 1, N_METAS = 2 };
enum {
    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META = 8,
    PAGE_DIRTY = 16,
    PAGE_FIXED = 32,
    PAGE_SUB = 64
};
enum { NODE_BIG = 1, NODE_TABLE = 2, NODE_DUPS = 4 };
enum { TABLE_DUPSORT = 4, TABLE_DUPFIXED = 16 };
enum { MAX_DEPTH = 32, MIN_PAGE_BYTES = 256, MAX_PAGE_BYTES = 65536 };
#define NO_PAGE SIZE_MAX

struct page_head {
    size_t number;
    uint16_t pad; /* of a PAGE_FIXED page: bytes of each key */
    uint16_t flags;
    uint16_t lower, upper; /* bounds of its free room; of an overflow page together: how many pages there are */
};

struct page_table {
    uint32_t pad; /* of duplicates of one size: that; of the free list: bytes of a page */
    uint16_t flags, depth;
    size_t n_branch, n_leaf, n_overflow, n_entries, root;
};

struct page_meta {
    uint32_t magic, version;
    size_t address, map_bytes;
    struct page_table free, main;
    size_t last_page, txn;
};

struct page_bytes {
    const uint8_t *data;
    size_t n;
};

struct page_node {
    unsigned flags;
    struct page_bytes key, data; /* data: what lies in the page; of a big value that is the number of its first page */
    size_t value_bytes;          /* leaf */
    size_t child;                /* branch */
};

struct page_head page_head(const uint8_t *page);
/* True if the bounds of a page or sub-page of n_bytes are within it. Call before the functions below. */
bool page_has_bounds(const struct page_head *h, size_t n_bytes);
size_t page_n_nodes(const struct page_head *h);
/* Read node i. False: it is not within the page. */
bool page_node(const uint8_t *page, size_t n_bytes, size_t i, bool branch, struct page_node *ret);
/* The bytes that a node takes in its page. */
size_t page_node_room(const struct page_node *n);
/* The first word of b, which must be long enough. */
size_t page_word(struct page_bytes b);

#endif
