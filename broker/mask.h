/* mask.h - sets of items as the core has them: bit i of word i / 64. Who may call: anybody. Nothing is kept. */
#ifndef BLIPLINE_BROKER_MASK_H
#define BLIPLINE_BROKER_MASK_H

#include <stdbool.h>
#include <stdint.h>

static inline bool mask_has(const uint64_t *mask, uint32_t i)
{
    return mask[i / 64] >> (i % 64) & 1;
}

#endif
