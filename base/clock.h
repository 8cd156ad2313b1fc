/* clock.h - time in milliseconds and nanoseconds.
 * Leases, timeouts and rates use the monotonic clock; wall time is only shown to people.
 * Errors: none (clock_gettime on these clocks cannot fail). Thread-safe. */
#ifndef BLIPLINE_BASE_CLOCK_H
#define BLIPLINE_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_mono_ms(void);
int64_t clock_mono_ns(void);
int64_t clock_wall_ms(void); /* since 1970-01-01 UTC */

#endif
