/* rate.h - how fast a count has grown lately, from samples of it.
 *
 * Who may call: the loop's thread. Units: milliseconds; a rate is per 1000 seconds. Memory: a zeroed rate has no
 * samples. Errors: none. */
#ifndef BLIPLINE_BROKER_RATE_H
#define BLIPLINE_BROKER_RATE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RATE_SAMPLE_MS = 5000, /* between samples */
    RATE_SHORT_MS = 10000, /* a rate is over so long, or one sample more */
    RATE_SAMPLES = 13,     /* a minute and one */
};

struct rate {
    struct {
        int64_t at_ms;
        uint64_t count;
    } samples[RATE_SAMPLES]; /* a ring */
    uint32_t n;              /* ever */
};

/* Take a sample, unless the last one is younger than RATE_SAMPLE_MS. */
void rate_sample(struct rate *r, uint64_t count, int64_t now_ms);
/* How fast the count has grown up to now, when it is `count`. `patient`: it grows in large steps; look back over a
 * minute if it has grown less than twice. 0 without samples. */
uint64_t rate_get(const struct rate *r, uint64_t count, int64_t now_ms, bool patient);

#endif
