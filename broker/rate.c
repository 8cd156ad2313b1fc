#include "broker/rate.h"

/* The sample taken `back` samples before the last one. */
static uint32_t slot(const struct rate *r, uint32_t back)
{
    return (r->n - 1 - back) % RATE_SAMPLES;
}

void rate_sample(struct rate *r, uint64_t count, int64_t now_ms)
{
    if (r->n && now_ms - r->samples[slot(r, 0)].at_ms < RATE_SAMPLE_MS)
        return;
    r->n++;
    r->samples[slot(r, 0)].at_ms = now_ms;
    r->samples[slot(r, 0)].count = count;
}

uint64_t rate_get(const struct rate *r, uint64_t count, int64_t now_ms, bool patient)
{
    const uint32_t n = r->n < RATE_SAMPLES ? r->n : RATE_SAMPLES;
    uint64_t later = count, grown;
    uint32_t back = 0, n_steps = 0;
    int64_t ms;

    if (n == 0)
        return 0;
    for (;; back++) {
        n_steps += r->samples[slot(r, back)].count < later;
        later = r->samples[slot(r, back)].count;
        if (back + 1 == n || now_ms - r->samples[slot(r, back)].at_ms >= RATE_SHORT_MS)
            break;
    }
    if (patient && n_steps < 2)
        back = n - 1;
    ms = now_ms - r->samples[slot(r, back)].at_ms;
    later = r->samples[slot(r, back)].count;
    grown = count > later ? count - later : 0;
    return ms > 0 && grown < UINT64_MAX / 1000000 ? grown * 1000000 / (uint64_t)ms : 0;
}
