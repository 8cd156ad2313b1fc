/* budget.h - an allocator for protobuf-c with a limit; all memory is freed at once.
 *
 * Unpacking a message may need twenty times its size (unknown fields, repeated fields). Beyond the limit an allocation
 * returns NULL, and unpacking fails.
 * Who may call: proto/ only, one thread at a time.
 * Memory: allocations come from `slab`, which the caller owns, and from malloc once it is full. They are valid until
 *         budget_reset or budget_release. */
#ifndef BLIPLINE_PROTO_BUDGET_H
#define BLIPLINE_PROTO_BUDGET_H

#include <protobuf-c/protobuf-c.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget_block;

struct budget {
    ProtobufCAllocator allocator;
    uint8_t *slab;
    size_t slab_bytes, slab_used;
    size_t limit_bytes, used_bytes;
    bool exhausted; /* an allocation was refused since the last reset */
    struct budget_block *blocks;
};

/* `slab` must be 16-byte aligned. */
void budget_init(struct budget *b, void *slab, size_t slab_bytes, size_t limit_bytes);
void budget_reset(struct budget *b, size_t limit_bytes);
void budget_release(struct budget *b);
void *budget_alloc(struct budget *b, size_t n_bytes); /* 16-byte aligned; NULL beyond the limit */

#endif
