/* philox.h - Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011): random numbers as a
 * function of key and counter, so that a sampled caption does not depend on other captions.
 *
 * Who may call: anyone, from any thread; there is no state.
 * Units: none.
 * Memory: none.
 * Errors: none. */
#ifndef BLIPLINE_LLM_WORKER_PHILOX_H
#define BLIPLINE_LLM_WORKER_PHILOX_H

#include <stdint.h>

/* Ten rounds; equal to Random123's philox4x32(counter, key). */
void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4]);

/* 0 <= u < 1, a multiple of 2^-24: the high 24 bits of the first word at counter (step, sample, 0, 0). The low half of
 * `key` is the first key word. */
float philox_uniform(uint64_t key, uint32_t step, uint32_t sample);

#endif
