/* units.h - units that the core holds, with the rows of their items.
 *
 * Who may call: the loop's thread. Units: bytes. Memory: a job owns its units. Errors: what cannot be kept fails the
 * driver. */
#ifndef BLIPLINE_BROKER_UNITS_H
#define BLIPLINE_BROKER_UNITS_H

#include "broker/load.h"

#include <stdint.h>

struct broker;
struct broker_job;

/* Of rows, all jobs: past a limit, jobs that have units in hand wait with the next ones. */
struct units_budget {
    uint64_t rows_bytes;
    uint32_t n_held; /* jobs that wait */
};

/* What CORE_DO_LOAD_UNITS asks for, now or when other units are through. */
void units_load(struct broker *b, struct broker_job *job, uint32_t from_unit, uint32_t max_units);
/* Those that wait, if they may go on. */
void units_load_held(struct broker *b);
/* Takes rows out of `load`. */
void units_loaded(struct broker *b, struct broker_job *job, struct units_read *load);
/* NULL: the core does not hold it. */
const struct unit_rows *units_find(const struct broker_job *job, uint32_t unit);
void units_drop(struct broker *b, struct broker_job *job, uint32_t unit);
void units_release(struct broker *b, struct broker_job *job);

#endif
