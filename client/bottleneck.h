/* bottleneck.h - which stage of a fleet holds up the others, by what the broker measured.
 *
 * Stages of one model make a pipeline. Its bottleneck is the last stage that has units waiting and either no worker
 * that could do them, or workers that have been busy nearly all the time.
 *
 * Who may call: anyone. Units: none. Memory: borrows the rows. Errors: none. */
#ifndef BLIPLINE_CLIENT_BOTTLENECK_H
#define BLIPLINE_CLIENT_BOTTLENECK_H

#include "proto/row_fleet.h"

#include <stdbool.h>
#include <stddef.h>

enum { BOTTLENECK_BUSY_PER_MILLE = 900, BOTTLENECK_TEXT_SIZE = 512 };

/* Is stage i the bottleneck of its model? */
bool bottleneck_is(const struct row_fleet_stage *stages, size_t n, size_t i);
/* "llm of blip2-opt, bf16 is the bottleneck: 3 workers busy 98 %, 14 units wait". Returns `ret`. */
char *bottleneck_text(const struct row_fleet_stage *s, char ret[BOTTLENECK_TEXT_SIZE]);

#endif
