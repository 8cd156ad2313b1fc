/* budget.h - the allocator that protobuf-c is given: a fixed budget of bytes, everything freed at once.
 *
 * A message of a few bytes can ask protobuf-c for twenty times as much memory (unknown fields, unpacked repeats). Here
 * an allocation past the budget returns NULL, which protobuf-c turns into "cannot be unpacked".
 * Who may call: proto/ alone, one thread at a time.
 * Memory: small messages live in `slab` (the caller's); what does not fit there is malloced and still charged.
 *         Everything handed out is valid until budget_reset/release. */
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
void *budget_alloc(struct budget *b, size_t n_bytes); /* NULL past the budget; 16-byte aligned */

#endif
