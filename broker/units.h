/* units.h - units that the core holds, with the rows of their items.
 *
 * Who may call: the loop's thread. Units: bytes. Memory: units_release frees the units of a job; driver and requests
 * are borrowed. Errors: what cannot be kept fails the driver. */
#ifndef BLIPLINE_BROKER_UNITS_H
#define BLIPLINE_BROKER_UNITS_H

#include "broker/core_table.h"
#include "broker/driver.h"
#include "broker/load.h"
#include "broker/requests.h"

#include <stdbool.h>
#include <stdint.h>

/* Those of one job. Zeroed but for `job`: it has none. */
struct job_units {
    uint64_t job;
    struct core_map by_number; /* unit + 1 -> struct unit_rows */
    bool waits;                /* to load the next ones */
    bool awaits_pictures;      /* the same, until their client has sent pictures */
    uint32_t from, max;        /* then: which */
    struct job_units *next_waiting;
};

/* Those of all jobs. While their rows take more than a limit, a job that has units in hand waits with the next ones. */
struct units {
    struct driver *driver;
    struct requests *requests;
    uint64_t rows_bytes;
    struct job_units *first_waiting;
};

/* What CORE_DO_LOAD_UNITS asks for: now, or after other units are done. */
void units_load(struct units *all, struct job_units *of, uint32_t from, uint32_t max);
/* Load the units that wait, as far as the limit allows. */
void units_load_waiting(struct units *all);
/* Pictures have come: load the units that waited for them. */
void units_load_pushed(struct units *all, struct job_units *of);
/* The job is being closed: answer a load that waits for pictures. */
void units_await_no_more(struct units *all, struct job_units *of);
/* Takes rows out of `load`. If there are none since they wait for pictures, the core is answered later. */
void units_loaded(struct units *all, struct job_units *of, struct units_read *load);
/* NULL: the core does not hold it. */
const struct unit_rows *units_find(const struct job_units *of, uint32_t unit);
void units_drop(struct units *all, struct job_units *of, uint32_t unit);
void units_release(struct units *all, struct job_units *of);

#endif
