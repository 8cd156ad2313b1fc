/* trie.h - finds which of many strings a text begins with.
 *
 * Who may call: model/ only; immutable once built, then any thread.
 * Units: bytes; values are int32_t >= 0.
 * Memory: about ten bytes per distinct prefix byte of the keys. Nothing is borrowed.
 * Errors: -ENOMEM; -EEXIST for a duplicate key; -EINVAL for an empty key. */
#ifndef BLIPLINE_MODEL_TRIE_H
#define BLIPLINE_MODEL_TRIE_H

#include "base/err.h"
#include "model/pieces.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Nodes in breadth-first order; the children of a node are adjacent. */
struct trie {
    uint8_t *labels;  /* [n_nodes] the byte that leads to the node; unused for the root */
    uint32_t *first;  /* [n_nodes + 1] children of i: first[i] .. first[i + 1] - 1 */
    int32_t *values;  /* [n_nodes] -1: no key ends here */
    uint32_t n_nodes; /* 0: no keys */
    uint32_t from_root[256];
};

#define TRIE_NONE 0u /* the root is never a child */
enum { TRIE_ROOT = 0 };

/* keys[i] has the value values[i], or i if values is NULL. */
int trie_init(struct trie *t, const struct token_text *keys, const int32_t *values, size_t n) CHECK_RESULT;
void trie_release(struct trie *t);

/* The node that byte c leads to, or TRIE_NONE. */
static inline uint32_t trie_step(const struct trie *t, uint32_t node, uint8_t c)
{
    uint32_t from, n;
    const uint8_t *found;

    if (node == TRIE_ROOT)
        return t->from_root[c];
    from = t->first[node];
    n = t->first[node + 1] - from;
    if (n <= 4) { /* most nodes; here memchr's overhead exceeds its gain */
        for (uint32_t i = from; i < from + n; i++)
            if (t->labels[i] == c)
                return i;
        return TRIE_NONE;
    }
    found = memchr(t->labels + from, c, n);
    return found ? (uint32_t)(found - t->labels) : TRIE_NONE;
}

/* The value of the longest key that the text begins with, or -1. */
int32_t trie_longest(const struct trie *t, const char *text, size_t n, size_t *ret_size_bytes);

#endif
