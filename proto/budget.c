#include "proto/budget.h"

#include <stdlib.h>

struct budget_block {
    struct budget_block *next;
    uint8_t pad[8]; /* keeps the data after it 16-byte aligned */
};

void *budget_alloc(struct budget *b, size_t n_bytes)
{
    struct budget_block *block;
    size_t n;

    if (n_bytes > b->limit_bytes - b->used_bytes) {
        b->exhausted = true;
        return NULL;
    }
    n = (n_bytes + 15) & ~(size_t)15;
    b->used_bytes = n > b->limit_bytes - b->used_bytes ? b->limit_bytes : b->used_bytes + n;
    if (n <= b->slab_bytes - b->slab_used) {
        void *p = b->slab + b->slab_used;

        b->slab_used += n;
        return p;
    }
    block = malloc(sizeof(*block) + n);
    if (!block)
        return NULL;
    block->next = b->blocks;
    b->blocks = block;
    return block + 1;
}

static void *alloc_for_protobuf(void *budget, size_t n_bytes)
{
    return budget_alloc(budget, n_bytes);
}

static void free_for_protobuf(void *budget, void *p)
{
    (void)budget;
    (void)p; /* budget_reset frees everything */
}

void budget_init(struct budget *b, void *slab, size_t slab_bytes, size_t limit_bytes)
{
    *b = (struct budget){
        .allocator = {.alloc = alloc_for_protobuf, .free = free_for_protobuf, .allocator_data = b},
        .slab = slab,
        .slab_bytes = slab_bytes,
        .limit_bytes = limit_bytes,
    };
}

void budget_reset(struct budget *b, size_t limit_bytes)
{
    while (b->blocks) {
        struct budget_block *next = b->blocks->next;

        free(b->blocks);
        b->blocks = next;
    }
    b->slab_used = b->used_bytes = 0;
    b->exhausted = false;
    b->limit_bytes = limit_bytes;
}

void budget_release(struct budget *b)
{
    budget_reset(b, 0);
}
