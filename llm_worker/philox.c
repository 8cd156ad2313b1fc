#include "llm_worker/philox.h"

#include <string.h>

enum { ROUNDS = 10 };

void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4])
{
    uint32_t c[4], k[2] = {key[0], key[1]};

    memcpy(c, counter, sizeof(c));
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t a = (uint64_t)0xD2511F53U * c[0], b = (uint64_t)0xCD9E8D57U * c[2];

        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k[0];
        c[1] = (uint32_t)b;
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k[1];
        c[3] = (uint32_t)a;
        k[0] += 0x9E3779B9U; /* the golden ratio and sqrt(3) - 1, in 32 bits */
        k[1] += 0xBB67AE85U;
    }
    memcpy(ret, c, sizeof(c));
}

float philox_uniform(uint64_t key, uint32_t step, uint32_t sample)
{
    const uint32_t words[2] = {(uint32_t)key, (uint32_t)(key >> 32)}, counter[4] = {step, sample, 0, 0};
    uint32_t out[4];

    philox_block(counter, words, out);
    return (float)(out[0] >> 8) * 0x1p-24F;
}
