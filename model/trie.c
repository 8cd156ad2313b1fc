#include "model/trie.h"

#include <errno.h>
#include <stdlib.h>

struct entry {
    struct token_text key;
    int32_t value;
};

/* The sorted keys that share a node's prefix. */
struct range {
    uint32_t begin, end;
};

struct growth {
    struct trie *trie;
    struct range *ranges; /* of each node */
    uint32_t capacity;
};

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t n = x->key.size_bytes < y->key.size_bytes ? x->key.size_bytes : y->key.size_bytes;
    int order = memcmp(x->key.text, y->key.text, n);

    if (order)
        return order;
    return (x->key.size_bytes > y->key.size_bytes) - (x->key.size_bytes < y->key.size_bytes);
}

static int grow(struct growth *g)
{
    uint32_t capacity = g->capacity ? 2 * g->capacity : 1024;
    struct trie *t = g->trie;
    struct range *ranges;
    uint8_t *labels;
    uint32_t *first;
    int32_t *values;

    if (capacity > UINT32_MAX / 4)
        return -ENOMEM;
    labels = realloc(t->labels, capacity);
    if (labels)
        t->labels = labels;
    first = reallocarray(t->first, capacity + 1, sizeof(*first));
    if (first)
        t->first = first;
    values = reallocarray(t->values, capacity, sizeof(*values));
    if (values)
        t->values = values;
    ranges = reallocarray(g->ranges, capacity, sizeof(*ranges));
    if (ranges)
        g->ranges = ranges;
    if (!labels || !first || !values || !ranges)
        return -ENOMEM;
    g->capacity = capacity;
    return 0;
}

static int add_node(struct growth *g, uint8_t label, struct range range)
{
    int rc = g->trie->n_nodes == g->capacity ? grow(g) : 0;

    if (rc < 0)
        return rc;
    g->trie->labels[g->trie->n_nodes] = label;
    g->ranges[g->trie->n_nodes++] = range;
    return 0;
}

/* Adds the children of a node at depth `depth`. */
static int add_children(struct growth *g, const struct entry *sorted, uint32_t node, size_t depth)
{
    struct range r = g->ranges[node];
    int rc = 0;

    g->trie->first[node] = g->trie->n_nodes;
    g->trie->values[node] = -1;
    if (sorted[r.begin].key.size_bytes == depth)
        g->trie->values[node] = sorted[r.begin++].value;
    while (r.begin < r.end && rc == 0) {
        uint8_t c = (uint8_t)sorted[r.begin].key.text[depth];
        struct range child = {r.begin, r.begin};

        while (child.end < r.end && (uint8_t)sorted[child.end].key.text[depth] == c)
            child.end++;
        rc = add_node(g, c, child);
        r.begin = child.end;
    }
    return rc;
}

static int add_nodes(struct growth *g, const struct entry *sorted, size_t n)
{
    struct trie *t = g->trie;
    uint32_t level_end = 1;
    size_t depth = 0;
    int rc = add_node(g, 0, (struct range){0, (uint32_t)n});

    for (uint32_t node = 0; rc == 0 && node < t->n_nodes; node++) {
        if (node == level_end) {
            level_end = t->n_nodes;
            depth++;
        }
        rc = add_children(g, sorted, node, depth);
    }
    if (rc == 0)
        t->first[t->n_nodes] = t->n_nodes;
    return rc;
}

int trie_init(struct trie *t, const struct token_text *keys, const int32_t *values, size_t n)
{
    struct trie made = {0};
    struct growth g = {.trie = &made};
    struct entry *sorted = n ? calloc(n, sizeof(*sorted)) : NULL;
    int rc = n && !sorted ? -ENOMEM : 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        sorted[i] = (struct entry){keys[i], values ? values[i] : (int32_t)i};
        rc = keys[i].size_bytes ? 0 : -EINVAL;
    }
    if (rc == 0 && n)
        qsort(sorted, n, sizeof(*sorted), by_key);
    for (size_t i = 1; rc == 0 && i < n; i++)
        rc = by_key(&sorted[i - 1], &sorted[i]) == 0 ? -EEXIST : 0;
    if (rc == 0 && n)
        rc = add_nodes(&g, sorted, n);
    for (uint32_t i = 1; rc == 0 && n && i < made.first[1]; i++)
        made.from_root[made.labels[i]] = i;
    free(sorted);
    free(g.ranges);
    if (rc < 0)
        trie_release(&made);
    else
        *t = made;
    return rc;
}

void trie_release(struct trie *t)
{
    free(t->labels);
    free(t->first);
    free(t->values);
    *t = (struct trie){0};
}

int32_t trie_longest(const struct trie *t, const char *text, size_t n, size_t *ret_size_bytes)
{
    int32_t found = -1;
    uint32_t node = TRIE_ROOT;

    for (size_t i = 0; i < n; i++) {
        node = trie_step(t, node, (uint8_t)text[i]);
        if (node == TRIE_NONE)
            break;
        if (t->values[node] >= 0) {
            found = t->values[node];
            *ret_size_bytes = i + 1;
        }
    }
    return found;
}
